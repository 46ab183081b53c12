//! What was leased too often.

use serde_json::json;

use crate::served::{Served, bodies, these};

contract! {
    a_message_leased_too_often_is_a_dead_letter
    dead_letters_are_listed_page_by_page
    dead_letters_are_sent_back_or_discarded
    zero_receives_means_never_dead
    what_a_queue_allows_when_the_last_lease_ends_is_what_holds
}

async fn a_message_leased_too_often_is_a_dead_letter(served: &Served) {
    served
        .put("/queues/q", r#"{"max_receives":2,"lease_ms":1}"#)
        .await
        .is(201);
    let id = served.push("/queues/q", r#"{"n": 1.0}"#).await;
    assert_eq!(
        served.lease_until("/queues/q", "").await[0].receive_count,
        1
    );
    assert_eq!(
        served.lease_until("/queues/q", "").await[0].receive_count,
        2
    );
    let dead = served.dead("/queues/q", 1).await;
    let letter = &dead["deadLetters"][0];
    assert_eq!(
        (&letter["id"], &letter["receiveCount"]),
        (&json!(id), &json!(2))
    );
    assert!(letter["deadAt"].is_string() && letter["pushedAt"].is_string());
    let text = served.get("/queues/q/dead-letters").await.text;
    assert!(text.contains(r#""body":{"n": 1.0}"#), "{text}");
    assert!(served.lease("/queues/q", "").await.is_empty());
    served.patch(&format!("/queues/q/{id}")).await.is(404);
    // the last lease still counts
    let id = served.push("/queues/q", "2").await;
    served.lease_until("/queues/q", "").await;
    served.lease_until("/queues/q", "lease_ms=60000").await;
    served.patch(&format!("/queues/q/{id}")).await.is(204);
    // given back from its last lease it is dead at once
    let id = served.push("/queues/q", "3").await;
    served.lease_until("/queues/q", "").await;
    served.lease_until("/queues/q", "lease_ms=60000").await;
    served
        .delete(&format!("/queues/q/{id}/lease"))
        .await
        .is(204);
    let list = served.get("/queues/q/dead-letters").await.is(200).json();
    assert_eq!(list["deadLetters"][1]["id"], json!(id), "{list}");
    // and twenty is the default
    let settings = served.put("/queues/default", "").await.is(200).json();
    assert_eq!(
        settings,
        json!({"name": "default", "lease_ms": 1_000, "max_receives": 20})
    );
}

/// Has all messages of a queue, of which one lease is enough, die.
pub(super) async fn kill(served: &Served, queue: &str, numbers: impl Iterator<Item = u32>) {
    let settings = r#"{"max_receives":1,"lease_ms":1}"#;
    assert!(served.put(queue, settings).await.status.is_success());
    let numbers: Vec<u32> = numbers.collect();
    let path = format!("{queue}/batch");
    served.post(&path, json!(numbers).to_string()).await.is(201);
    let leased = served.lease(queue, "amount=1000").await;
    assert_eq!(leased.len(), numbers.len());
}

async fn dead_letters_are_listed_page_by_page(served: &Served) {
    kill(served, "/queues/q", 0..25).await;
    served.dead("/queues/q", 25).await;
    let mut found = Vec::new();
    let mut after = json!(0);
    while !after.is_null() {
        let path = format!("/queues/q/dead-letters?amount=10&after={after}");
        let page = served.get(&path).await.is(200).json();
        let letters = page["deadLetters"].as_array().unwrap();
        assert!((1..=10).contains(&letters.len()), "{page}");
        found.extend(
            letters
                .iter()
                .map(|letter| letter["body"].as_u64().unwrap()),
        );
        after = page["next"].clone();
    }
    assert_eq!(found, (0..25).collect::<Vec<u64>>());
    for wrong in ["amount=0", "amount=1001", "after=x", "before=1"] {
        served
            .get(&format!("/queues/q/dead-letters?{wrong}"))
            .await
            .is(400);
    }
}

async fn dead_letters_are_sent_back_or_discarded(served: &Served) {
    kill(served, "/queues/q", 0..5).await;
    let dead = served.dead("/queues/q", 5).await;
    let id = |index: usize| dead["deadLetters"][index]["id"].as_str().unwrap();
    let order = these(&[id(3), id(1)]);
    let done = served
        .post("/queues/q/dead-letters/redrive", order.clone())
        .await
        .is(200);
    assert_eq!(done.json(), json!({"redriven": 2, "done": true}));
    let done = served
        .post("/queues/q/dead-letters/redrive", order)
        .await
        .is(200);
    assert_eq!(done.json()["redriven"], 0, "said again, it does the rest");
    let leased = served.lease("/queues/q", "lease_ms=60000").await;
    assert_eq!(bodies(&leased), ["1", "3"]);
    assert!(
        leased.iter().all(|leased| leased.receive_count == 1),
        "counted anew"
    );
    served
        .patch(&format!("/queues/q/{}", leased[0].id))
        .await
        .is(204);
    let done = served
        .post("/queues/q/dead-letters/discard", these(&[id(0)]))
        .await
        .is(200);
    assert_eq!(done.json(), json!({"discarded": 1, "done": true}));
    // those of another queue are not meant
    let done = served
        .post("/dead-letters/redrive", r#"{"all":true}"#)
        .await
        .is(200);
    assert_eq!(done.json()["redriven"], 0);
    let done = served
        .post("/queues/q/dead-letters/redrive", r#"{"all":true}"#)
        .await
        .is(200);
    assert_eq!(done.json()["redriven"], 2);
    assert_eq!(bodies(&served.lease("/queues/q", "").await), ["2", "4"]);
    served.dead("/queues/q", 2).await;
    let done = served
        .post("/queues/q/dead-letters/discard", r#"{"all":true}"#)
        .await
        .is(200);
    assert_eq!(done.json()["discarded"], 2);
    served.dead("/queues/q", 0).await;
    for (wrong, status) in [("{", 400), ("{}", 422), (r#"{"ids":[]}"#, 422), ("", 400)] {
        let refused = served.post("/queues/q/dead-letters/discard", wrong).await;
        refused.is(status);
    }
}

async fn zero_receives_means_never_dead(served: &Served) {
    served
        .put("/queues/q", r#"{"max_receives":0,"lease_ms":1}"#)
        .await
        .is(201);
    served.push("/queues/q", "1").await;
    for count in 1..=25 {
        let leased = served.lease_until("/queues/q", "").await;
        assert_eq!(leased[0].receive_count, count);
    }
}

async fn what_a_queue_allows_when_the_last_lease_ends_is_what_holds(served: &Served) {
    let allow = async |max_receives: u32, status: u16| {
        let settings = json!({ "max_receives": max_receives }).to_string();
        served.put("/queues/q", settings).await.is(status);
    };
    allow(1, 201).await;
    let id = served.push("/queues/q", "1").await;
    for (count, allowed) in [(1, 0), (2, 3), (3, 5)] {
        let leased = served.lease_until("/queues/q", "lease_ms=60000").await;
        assert_eq!(leased[0].receive_count, count);
        // its last one, so far
        allow(allowed, 200).await;
        let path = format!("/queues/q/{id}/lease");
        served.delete(&path).await.is(204);
        served.dead("/queues/q", 0).await;
        allow(u32::try_from(count).unwrap() + 1, 200).await;
    }
    served.lease_until("/queues/q", "lease_ms=1").await;
    served.dead("/queues/q", 1).await;
}
