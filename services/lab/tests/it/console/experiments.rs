//! Experiments that are started at the console, followed there, and stopped.

use reqwest::Method;
use serde_json::{Value, json};
use testkit::wait_until;

use super::{Browser, actions, down, up};
use crate::up::LIMIT;

const FORM: &str = "/lab/experiments/failed-work/runs";

/// Waits until a run is so.
async fn run_is(browser: &Browser, place: &str, state: &str) -> Value {
    wait_until(&format!("the run to be {state}"), LIMIT, async || {
        let run = browser.json(&place.replace("/lab/", "/lab/api/")).await;
        if run["state"] == state {
            Ok(run)
        } else {
            Err(run.to_string())
        }
    })
    .await
}

#[tokio::test]
async fn an_experiment_is_started_by_a_form_and_followed_to_its_verdict_and_its_report() {
    let stack = up(1).await;
    let (nobody, somebody) = (Browser::new(&stack), Browser::signed_in(&stack).await);
    // not without signing in, and not without the word of one's own session
    for (browser, csrf) in [(&nobody, &*somebody.csrf), (&somebody, "0"), (&nobody, "")] {
        let form = browser.ask(Method::POST, FORM).form(&[("csrf", csrf)]);
        assert_eq!(form.send().await.unwrap().status(), 403);
    }
    let locked = nobody.page("/lab/experiments").await;
    assert!(locked.contains("sign in to run it"), "{locked}");
    let none = nobody.json("/lab/api/runs").await;
    assert_eq!(none["runs"], json!([]), "nothing was begun");

    let place = somebody.form(FORM, &[("seed", "7")]).await;
    let id = place.strip_prefix("/lab/runs/").unwrap().to_owned();
    let page = somebody.page(&place).await;
    assert!(
        page.contains("failed-work") && page.contains("seed 7"),
        "{page}"
    );
    assert!(page.contains("Stop it and heal") && !page.contains("report.html"));
    let going = somebody
        .sees("the run to be told beside the stack", |state| {
            state["experiment"]["run"] == *id
        })
        .await;
    assert_eq!(going["experiment"]["experiment"], "failed-work");
    // one at a time: people are led to where it is stopped
    let busy = somebody.ask(Method::POST, FORM);
    let busy = busy.form(&[("csrf", &*somebody.csrf)]).send().await;
    let busy = busy.unwrap();
    assert_eq!(busy.status(), 409);
    let page = busy.text().await.unwrap();
    assert!(page.contains(&format!("href=\"{place}\"")), "{page}");
    assert!(!page.contains("DELETE"), "{page}");

    let done = run_is(&nobody, &place, "done").await;
    assert_eq!(done["verdict"], "PASS", "{done}");
    assert_eq!(done["counts"]["accepted"], done["counts"]["processed"]);
    let page = nobody.page(&place).await;
    let report = format!("/lab/runs/{id}/report.html");
    let verdict = "<strong>done</strong>: <strong class=\"ok\">PASS</strong>";
    assert!(page.contains(verdict), "{page}");
    assert!(page.contains("drained") && page.contains(&format!("href=\"{report}\"")));
    assert!(!page.contains("Stop it and heal"));
    let report = nobody.page(&report).await;
    assert!(report.contains(&id) && report.contains("PASS"));
    let past = nobody.page("/lab/experiments").await;
    let row = past.split("<tr>").find(|row| row.contains(&id)).unwrap();
    assert!(row.contains("PASS") && row.contains("report.html"), "{row}");
    let log = actions(&stack);
    let outcomes = |outcome: &str| {
        let begun = |line: &&Value| {
            let deed = line["deed"].as_str().unwrap();
            deed.contains("failed-work/runs") && line["outcome"] == outcome
        };
        log.iter().filter(begun).count()
    };
    assert_eq!((outcomes("done"), outcomes("refused")), (1, 4), "{log:?}");

    // the next one is stopped: it says so while it is healed
    let place = somebody.form(FORM, &[("twin", "1")]).await;
    run_is(&somebody, &place, "loading").await;
    let back = somebody.form(&format!("{place}/stop"), &[]).await;
    assert_eq!(back, place);
    let page = somebody.page(&place).await;
    assert!(page.contains("(unsafe twin)"), "{page}");
    assert!(page.contains("<strong>stopping</strong>"), "{page}");
    let stopped = run_is(&somebody, &place, "interrupted").await;
    assert_eq!(stopped["verdict"], "INCONCLUSIVE", "{stopped}");
    down(stack).await;
}
