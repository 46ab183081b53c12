//! A node that was told to stop.

use serde_json::json;

use super::{Browser, down, turn, up};

#[tokio::test]
async fn a_node_that_finishes_what_it_has_begun_is_shown_to_be_stopping() {
    let stack = up(1).await;
    let browser = Browser::signed_in(&stack).await;
    // nearly as long as a node that was told to stop may take
    let slow = json!({"target": "all", "delay_max_ms": 8_000, "delay_min_ms": 8_000});
    turn(&stack, &browser, slow, &[("delay_min_ms", 8_000)]).await;
    let one = json!({"count": 1, "poison": false});
    browser.deed("/lab/api/messages", &one).await;
    browser
        .sees("the receiver to have it in hand", |state| {
            let nodes = state["nodes"].as_array().unwrap();
            nodes.iter().any(|node| node["in_hand"] == 1)
        })
        .await;
    let told = json!({"fault": "receiver-terminate"});
    let told = browser.deed("/lab/api/faults", &told);
    let state_is = |word: &'static str| {
        browser.sees(word, move |state| {
            let nodes = state["nodes"].as_array().unwrap();
            let mut receivers = nodes.iter().filter(|node| node["service"] == "receiver");
            receivers.any(|node| node["state"] == word)
        })
    };
    let seen = async {
        state_is("stopping").await;
        state_is("dead").await
    };
    let (told, _) = tokio::join!(told, seen);
    assert!(told["seen"].is_string(), "{told}");
    // it is the only one, and it finished
    browser
        .sees("the message to be processed", |state| {
            state["balance"]["processed"] == 1 && state["balance"]["waiting"] == 0
        })
        .await;
    let heal = format!("/lab/api/faults/{}/heal", told["id"].as_str().unwrap());
    browser.deed(&heal, &json!({})).await;
    state_is("up").await;
    down(stack).await;
}
