//! Who may do what: nobody without the token, and nobody from a foreign page.

use std::fs;

use lab::console::all_deeds;
use reqwest::header::{HOST, ORIGIN, RETRY_AFTER};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{Browser, actions, down, token, up};

#[tokio::test]
async fn no_deed_works_without_a_token_or_from_a_foreign_page_and_each_is_on_record() {
    let stack = up(1).await;
    let (nobody, somebody) = (Browser::new(&stack), Browser::signed_in(&stack).await);
    let known = actions(&stack).len();
    let mut asked = 0;
    for deed in all_deeds() {
        let (method, path) = deed.split_once(' ').unwrap_or(("POST", deed));
        let path = path.replace("{id}", "x").replace("{name}", "poison");
        let ask = |browser: &Browser| browser.ask(method.parse().unwrap(), &path);
        let foreign = |request: RequestBuilder| {
            request
                .header("x-csrf-token", &somebody.csrf)
                .header(ORIGIN, "http://evil.example")
        };
        for (why, request) in [
            ("not_signed_in", ask(&nobody)),
            (
                "not_signed_in",
                ask(&nobody).header("x-csrf-token", &somebody.csrf),
            ),
            ("wrong_csrf", ask(&somebody)),
            (
                "wrong_csrf",
                ask(&somebody).header("x-csrf-token", "0".repeat(64)),
            ),
            (
                "wrong_csrf",
                ask(&somebody).form(&[("csrf", ""), ("count", "1")]),
            ),
            ("foreign_origin", foreign(ask(&somebody))),
        ] {
            let answer = request
                .header("accept", "application/json")
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 403, "{deed} {why}");
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(
                problem["type"],
                format!("urn:unacked:problem:{why}"),
                "{deed}"
            );
            asked += 1;
        }
        let rebound = ask(&somebody)
            .header("x-csrf-token", &somebody.csrf)
            .header(HOST, "evil.example");
        assert_eq!(rebound.send().await.unwrap().status(), 421, "{deed}");
        asked += 1;
    }
    assert!(asked > 100, "{asked}");
    let log = actions(&stack);
    assert_eq!(log.len() - known, asked);
    assert!(
        log[known..].iter().all(|line| line["outcome"] == "refused"),
        "{log:?}"
    );
    assert!(
        !fs::read_to_string(stack.folder.join("actions.log"))
            .unwrap()
            .contains(&token(&stack))
    );
    // nothing of it was done, by a count that was made after all of it
    let asked_by = daemon::clock::now().timestamp_millis();
    let state = nobody
        .sees("a count after the last request", |state| {
            state["balance"]["as_of"].as_i64() > Some(asked_by)
        })
        .await;
    assert_eq!(
        (
            &state["load"],
            &state["faults"],
            &state["balance"]["accepted"]
        ),
        (&Value::Null, &json!([]), &json!(0))
    );

    // whoever signs out is nobody again
    let left = somebody
        .ask(Method::POST, "/lab/sign-out")
        .form(&[("csrf", &somebody.csrf)]);
    assert_eq!(left.send().await.unwrap().status(), 303);
    let after = somebody
        .ask(Method::POST, "/lab/load/stop")
        .form(&[("csrf", &somebody.csrf)]);
    assert_eq!(after.send().await.unwrap().status(), 403);

    // and wrong tokens close the door, also to the right one
    let mut said = Vec::new();
    for _ in 0..6 {
        said.push(nobody.show("not the token").await.status().as_u16());
    }
    assert_eq!(said, [403, 403, 403, 403, 403, 429]);
    let closed = nobody.show(&token(&stack)).await;
    assert_eq!(closed.status(), 429);
    assert!(closed.headers().contains_key(RETRY_AFTER));
    let log = actions(&stack);
    let refused = log
        .iter()
        .filter(|line| line["deed"] == "POST /lab/sign-in" && line["outcome"] == "refused");
    let whys: Vec<&Value> = refused.map(|line| &line["why"]).collect();
    let (wrong, closed) = ("wrong token", "too many wrong tokens");
    assert_eq!(whys, [wrong, wrong, wrong, wrong, wrong, closed, closed]);
    down(stack).await;
}
