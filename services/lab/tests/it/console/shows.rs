//! What is shown, live and as it is asked for, and that what is told is done.

use std::fs;

use nix::sys::signal::Signal;
use reqwest::header::LOCATION;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use testkit::wait_until;

use super::{Browser, SOON, actions, console, down, up};
use crate::up::{LIMIT, signal};

/// Reads events until one is as wanted; all that came, with their ids.
async fn events(
    answer: &mut Response,
    mut enough: impl FnMut(&[(String, String, Value)]) -> bool,
) -> Vec<(String, String, Value)> {
    let (mut text, mut all) = (String::new(), Vec::new());
    let reading = async {
        while !enough(&all) {
            text += &String::from_utf8_lossy(&answer.chunk().await.unwrap().expect("it goes on"));
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.map(|value| value.trim().to_owned())
                };
                if let (Some(kind), Some(id), Some(data)) =
                    (field("event:"), field("id:"), field("data:"))
                {
                    all.push((kind, id, serde_json::from_str(&data).unwrap()));
                }
            }
        }
    };
    tokio::time::timeout(SOON, reading)
        .await
        .expect("the events come");
    all
}

#[tokio::test]
async fn the_console_shows_what_is_and_does_what_it_is_told_and_may_die() {
    let stack = up(2).await;
    let browser = Browser::signed_in(&stack).await;
    for page in ["/lab", "/lab/experiments", "/lab/sign-in"] {
        let text = browser.get(page).await.text().await.unwrap();
        assert!(
            text.contains("</html>") && !text.contains("style=\""),
            "{page}"
        );
    }
    // a filter by time stays in its form
    let dead = "/lab/dead?from=2026-11-22T05:06&to=2026-11-22T05:07:08";
    let dead = browser.get(dead).await.text().await.unwrap();
    for (name, value) in [
        ("from", "2026-11-22T05:06:00"),
        ("to", "2026-11-22T05:07:08"),
    ] {
        let field = format!("type=\"datetime-local\" step=\"1\" name=\"{name}\" value=\"{value}\"");
        assert!(dead.contains(&field), "{field} in {dead}");
    }
    let state = browser
        .sees("all nodes to be up", |state| {
            let nodes = state["nodes"].as_array().unwrap();
            nodes.len() == 3 && nodes.iter().all(|node| node["state"] == "up")
        })
        .await;
    let mut live = browser.get("/lab/live").await;
    assert_eq!(live.headers()["content-type"], "text/event-stream");
    let first = events(&mut live, |all| {
        all.iter().any(|(kind, _, _)| kind == "second")
    })
    .await;
    assert_eq!(first[0].0, "state");
    assert_eq!(first[0].2["queue"]["name"], "messages", "{state}");
    let last = first.last().unwrap().1.clone();
    drop(live);

    // a load, by a form
    let form = [
        ("csrf", &*browser.csrf),
        ("rate", "40"),
        ("for", "4s"),
        ("poison", "3"),
    ];
    let begun = browser
        .ask(Method::POST, "/lab/load")
        .form(&form)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (begun.status().as_u16(), &begun.headers()[LOCATION]),
        (303, &"/lab#load".parse().unwrap())
    );
    let state = browser
        .sees("the load to be seen", |state| {
            state["load"]["accepted"].as_u64() > Some(0)
        })
        .await;
    let run = state["load"]["run"].as_str().unwrap().to_owned();
    // where the script writes how far it is
    let page = browser.get("/lab").await.text().await.unwrap();
    for place in ["accepted", "offered", "stopping"] {
        assert!(page.contains(&format!("data-load=\"{place}\"")), "{place}");
    }
    // the form says what the load was started with
    for (name, value) in [
        ("rate", "40"),
        ("for", "4s"),
        ("size", "100"),
        ("poison", "3"),
    ] {
        let field = format!("name=\"{name}\" value=\"{value}\"");
        assert!(page.contains(&field), "{field}");
    }
    // whoever was away meanwhile gets what it missed
    let again = browser
        .ask(Method::GET, "/lab/live")
        .header("last-event-id", &last);
    let mut again = again.send().await.unwrap();
    let missed = events(&mut again, |all| {
        let processed = all.iter().filter(|(kind, _, _)| kind == "second");
        processed
            .map(|(_, _, second)| second["processed"].as_u64().unwrap())
            .sum::<u64>()
            > 20
    })
    .await;
    assert_eq!(missed[0].0, "state");
    let number = |id: &str| id.split_once('-').unwrap().1.parse::<u64>().unwrap();
    let kept: Vec<u64> = missed[1..]
        .iter()
        .filter(|(kind, _, _)| kind == "second")
        .map(|(_, id, _)| number(id))
        .collect();
    assert!(
        kept[0] <= number(&last) + 1 && kept.is_sorted(),
        "{kept:?} after {last}"
    );
    drop(again);
    let balance = wait_until(
        "every message of the load to be accounted for",
        LIMIT,
        async || {
            let balances = browser.json("/lab/api/balance").await;
            let state = browser.json("/lab/api/state").await;
            let one = balances["runs"][&run].clone();
            if state["load"].is_null() && one["waiting"] == 0 {
                Ok(one)
            } else {
                Err(balances.to_string())
            }
        },
    )
    .await;
    let summary = fs::read(stack.folder.join(format!("runs/{run}/load.json"))).unwrap();
    let summary: Value = serde_json::from_slice(&summary).unwrap();
    assert_eq!(
        (&balance["accepted"], &balance["parked"]),
        (&summary["accepted"], &json!(3))
    );
    assert_eq!(
        balance["processed"].as_i64().unwrap() + 3,
        balance["accepted"].as_i64().unwrap()
    );
    assert_eq!(
        (&balance["lost"], &balance["again"]),
        (&json!(0), &json!(0))
    );
    wait_until("the history to have all of it", SOON, async || {
        let history = browser.json("/lab/api/history").await;
        let seconds = history["seconds"].as_array().unwrap();
        let sum = |what: &str| -> u64 {
            let each = seconds.iter().map(|second| second[what].as_u64().unwrap());
            each.sum()
        };
        let found = (sum("accepted"), sum("processed"), sum("dead"));
        let timed = seconds
            .iter()
            .any(|second| second["p99"].as_f64() > Some(0.0));
        let wanted = (balance["accepted"].as_u64(), balance["processed"].as_u64());
        let same = wanted == (Some(found.0), Some(found.1)) && found.2 == 3;
        if same && timed {
            Ok(())
        } else {
            Err(history.to_string())
        }
    })
    .await;

    // messages, a knob, a fault and its end
    let sent = browser
        .deed("/lab/api/messages", &json!({"count": 100, "poison": false}))
        .await;
    assert_eq!(sent["messages"].as_array().unwrap().len(), 100);
    browser
        .deed(
            "/lab/api/knobs",
            &json!({"target": "all", "fail_one_in": 4}),
        )
        .await;
    browser
        .sees("the knob to be turned", |state| {
            state["knobs"]["all"] == json!({"fail_one_in": 4})
        })
        .await;
    browser
        .deed("/lab/api/knobs", &json!({"target": "all", "clear": true}))
        .await;
    browser
        .sees("the knob to be back", |state| {
            state["knobs"]["all"] == json!({})
        })
        .await;
    let broken = browser
        .deed("/lab/api/faults", &json!({"fault": "receiver-kill"}))
        .await;
    assert!(broken["seen"].is_string(), "{broken}");
    let state = browser
        .sees("a dead receiver", |state| {
            state["nodes"]
                .as_array()
                .unwrap()
                .iter()
                .any(|node| node["state"] == "dead")
        })
        .await;
    assert_eq!(
        (&state["faults"][0]["kind"], &state["faults"][0]["healable"]),
        (&json!("receiver-kill"), &json!(true))
    );
    let heal = format!("/lab/api/faults/{}/heal", broken["id"].as_str().unwrap());
    browser.deed(&heal, &json!({})).await;
    browser
        .sees("all to be whole", |state| {
            state["faults"] == json!([])
                && state["nodes"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|node| node["state"] == "up")
        })
        .await;
    // what this stack cannot serve says why
    let link = browser
        .ask(Method::POST, "/lab/api/faults")
        .header("x-csrf-token", &browser.csrf);
    let link = link
        .json(&json!({"fault": "rabbitmq-link-cut"}))
        .send()
        .await
        .unwrap();
    assert_eq!(link.status(), 422);
    assert!(link.text().await.unwrap().contains("--faults"));
    // what is misspelt, or of another type, is not taken for what is usual
    for (path, body) in [
        ("/lab/api/load", json!({})),
        ("/lab/api/load", json!({"rate": 20, "fro": "1s"})),
        ("/lab/api/messages", json!({"poison": "maybe"})),
        ("/lab/api/knobs", json!({"prefetch": "5"})),
        ("/lab/api/faults", json!({})),
        (
            "/lab/api/faults",
            json!({"fault": "receiver-kill", "for": "0s"}),
        ),
    ] {
        let deed = browser
            .ask(Method::POST, path)
            .header("x-csrf-token", &browser.csrf);
        let refused = deed.json(&body).send().await.unwrap();
        assert_eq!(refused.status(), 422, "{path} {body}");
    }

    // it dies, is started again, and nothing else changes
    let before = stack.status().await.unwrap();
    let pid = &before["console"]["pid"];
    signal(pid, Signal::SIGKILL);
    console(&stack, Some(pid)).await;
    let after = stack.status().await.unwrap();
    let pids = |status: &Value| -> Vec<Value> {
        status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["pid"].clone())
            .collect()
    };
    assert_eq!(pids(&before), pids(&after));
    assert_eq!(after["console"]["restarts"], 1);
    let log = actions(&stack);
    let done: Vec<&str> = log
        .iter()
        .filter(|line| line["outcome"] == "done")
        .map(|line| line["deed"].as_str().unwrap())
        .collect();
    assert!(
        done.contains(&"POST /lab/load") && done.contains(&"POST /lab/api/faults"),
        "{done:?}"
    );
    // the session went with the process
    assert!(
        browser
            .get("/lab")
            .await
            .text()
            .await
            .unwrap()
            .contains("You may look at everything.")
    );
    down(stack).await;
}
