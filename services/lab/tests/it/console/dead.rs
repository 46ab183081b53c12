//! Dead letters are sent back at the console and from the command line, and audited afterwards.

use serde_json::{Value, json};
use testkit::wait_until;

use super::{Browser, actions, down, turn, up};
use crate::up::{LIMIT, Stack, said};

/// A load of which some messages are given up on though nothing is wrong with them; gives its run, when all is accounted for.
async fn given_up_on(stack: &Stack, browser: &Browser) -> String {
    let park = json!({"target": "all", "fail_one_in": 3, "failure_action": "park"});
    turn(stack, browser, park, &[("fail_one_in", 3)]).await;
    let load = json!({"rate": 40, "for": "3s"});
    let load = browser.deed("/lab/api/load", &load).await;
    let run = load["run"].as_str().unwrap().to_owned();
    wait_until("every message to be accounted for", LIMIT, async || {
        let state = browser.json("/lab/api/state").await;
        let balances = browser.json("/lab/api/balance").await;
        let one = &balances["runs"][&run];
        let all = state["load"].is_null() && one["accepted"] == 120 && one["waiting"] == 0;
        if all && one["parked"].as_i64() > Some(0) {
            Ok(())
        } else {
            Err(balances.to_string())
        }
    })
    .await;
    let clear = json!({"target": "all", "clear": true});
    turn(stack, browser, clear, &[("fail_one_in", 0)]).await;
    run
}

async fn verdict(stack: &Stack, run: &str) -> (Option<i32>, String) {
    let audit = stack.lab(&["audit", "--run", run]).await;
    (audit.status.code(), said(&audit))
}

/// Waits until the order of this page is so.
async fn order_is(browser: &Browser, place: &str, what: &str, is: impl Fn(&Value) -> bool) {
    let place = place.replace("/lab/dead", "/lab/api/dead");
    wait_until(what, LIMIT, async || {
        let order = browser.json(&place).await;
        if is(&order) {
            Ok(())
        } else {
            Err(order.to_string())
        }
    })
    .await;
}

/// A form that asks for what cannot be done comes back as it was, with why.
async fn refused_forms(stack: &Stack, browser: &Browser, run: &str) {
    let list = browser.json(&format!("/lab/api/dead?run={run}")).await;
    let id = list["dead_letters"][0]["dead_letter_id"].to_string();
    let form = ("/lab/dead/redrives", "/lab/dead/discard");
    let csrf = ("csrf", &*browser.csrf);
    let ticked = ("which", "ticked");
    let (one, named) = (("id", &*id), [("run", run), csrf]);
    let wrong = ("which", "none");
    for (place, fields, status, right) in [
        (form.0, vec![ticked], 422, "Nothing is ticked."),
        (
            form.0,
            vec![ticked, ("id", "abc")],
            422,
            "is not the number",
        ),
        (form.0, vec![wrong, one], 422, "Right is"),
        (form.1, vec![ticked, one], 422, "such as"),
        (
            form.1,
            vec![ticked, one, ("confirm", "discard 2")],
            409,
            "1 dead letter fits, and that is not the number",
        ),
    ] {
        let kept = fields.contains(&one);
        let fields = [fields, named.to_vec()].concat();
        let sent = browser.ask(reqwest::Method::POST, place).form(&fields);
        let answer = sent.send().await.unwrap();
        assert_eq!(answer.status(), status, "{fields:?}");
        let page = answer.text().await.unwrap();
        assert!(page.contains("id=\"notice\"") && page.contains(right));
        let filter = format!("name=\"run\" value=\"{run}\"");
        assert!(page.contains(&filter), "{page}");
        let tick = format!("name=\"id\" value=\"{id}\" checked");
        assert_eq!(page.contains(&tick), kept, "{fields:?}: {page}");
        let why = |line: &Value| line["why"].as_str().is_some_and(|why| why.contains(right));
        assert!(actions(stack).iter().any(why), "{right}");
    }
    let unknown = "/lab/dead/redrives/00000000-0000-7000-8000-000000000000";
    let answer = browser.ask(reqwest::Method::GET, unknown).send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 404);
    let page = answer.text().await.unwrap();
    assert!(page.contains("There is no redrive 00000000"), "{page}");
}

#[tokio::test]
async fn a_redrive_is_audited_afterwards_and_its_verdict_is_shown() {
    let stack = up(1).await;
    let browser = Browser::signed_in(&stack).await;
    let run = given_up_on(&stack, &browser).await;
    let (code, text) = verdict(&stack, &run).await;
    assert_eq!(code, Some(1), "{text}");

    refused_forms(&stack, &browser, &run).await;
    let form = [("which", "matching"), ("run", &*run), ("per_second", "50")];
    let place = browser.form("/lab/dead/redrives", &form).await;
    let audit = format!("{place}/audit");
    let page = browser.page(&place).await;
    assert!(page.contains("Redrive: planned") && !page.contains("id=\"audit\""));
    // what is not over cannot be judged
    let early = browser.ask(reqwest::Method::POST, &audit);
    let early = early.form(&[("csrf", &*browser.csrf)]).send().await;
    assert_eq!(early.unwrap().status(), 409);
    browser.form(&format!("{place}/start"), &[]).await;
    order_is(&browser, &place, "the redrive to be over", |order| {
        order["redrive"]["state"] == "done" && order["outcome"]["on_their_way"] == 0
    })
    .await;
    let page = browser.page(&place).await;
    let before = "not audited since; before the redrive was over it was FAIL";
    assert!(page.contains(before), "{page}");

    assert_eq!(browser.form(&audit, &[]).await, place);
    order_is(&browser, &place, "the audit to be over", |order| {
        let one = &order["audits"][0];
        one["after"] == true && one["going"].is_null()
    })
    .await;
    let page = browser.page(&place).await;
    assert!(page.contains("<strong>PASS</strong>"), "{page}");
    assert!(page.contains("nothing is wrong with any message"), "{page}");
    // it is the one on file
    let file = stack.folder.join(format!("runs/{run}/audit.json"));
    let file: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(file["verdict"], "PASS", "{file}");

    // the command does all of it
    let run = given_up_on(&stack, &browser).await;
    let redrive = ["dead", "redrive", "--run", &run, "--yes"];
    let redrive = stack.lab(&redrive).await;
    let text = said(&redrive);
    assert_eq!(redrive.status.code(), Some(0), "{text}");
    assert!(
        text.contains(&format!("Audit of run {run}:\nPASS")),
        "{text}"
    );
    // what is still parked is not its own to mend
    let run = given_up_on(&stack, &browser).await;
    let one = browser.json(&format!("/lab/api/dead?run={run}")).await;
    let one = one["dead_letters"][0]["message_id"].as_str().unwrap();
    let redrive = stack.lab(&["dead", "redrive", one, "--yes"]).await;
    let text = said(&redrive);
    assert_eq!(redrive.status.code(), Some(1), "{text}");
    assert!(text.contains("FAIL"), "{text}");
    down(stack).await;
}
