//! Leases, waiting for them, and what their holders do with them.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use testkit::wait_until;

use crate::served::{LIMIT, Served, answer, bodies};

contract! {
    ten_are_leased_by_default_and_a_thousand_at_most
    what_is_leased_is_hidden_until_the_lease_ends
    a_lease_is_a_second_or_what_the_queue_or_the_call_says
    first_in_first_out_and_what_comes_back_stands_at_the_end
    a_long_poll_waits_and_is_answered_when_something_comes
    a_confirm_is_204_once
    nothing_that_is_not_leased_can_be_confirmed
    with_a_token_only_the_holder_can_confirm
    without_a_token_a_live_lease_can_be_confirmed
    a_lease_can_be_made_longer
    a_lease_can_be_given_back_at_once
    an_answer_is_not_larger_than_a_node_can_hold
    what_is_larger_than_many_at_once_can_have_is_no_empty_queue
}

async fn ten_are_leased_by_default_and_a_thousand_at_most(served: &Served) {
    let numbers = json!((0..1_000).collect::<Vec<_>>()).to_string();
    served.post("/batch", numbers.clone()).await.is(201);
    served.post("/batch", numbers).await.is(201);
    assert_eq!(served.lease("", "").await.len(), 10);
    assert_eq!(served.lease("", "amount=1").await.len(), 1);
    assert_eq!(served.lease("", "amount=1000").await.len(), 1_000);
    for wrong in [
        "amount=0",
        "amount=1001",
        "amount=-1",
        "amount=x",
        "amount=",
        "amount=1.5",
        "amount=1&amount=1",
        "amont=1",
        "lease_ms=0",
        "lease_ms=43200001",
        "wait_ms=20001",
        "wait_ms=-1",
    ] {
        served.get(&format!("/?{wrong}")).await.is(400);
    }
}

async fn what_is_leased_is_hidden_until_the_lease_ends(served: &Served) {
    let id = served.push("", "1").await;
    let began = Instant::now();
    let first = served.lease("", "").await;
    assert_eq!(
        (first[0].id.as_str(), first[0].receive_count),
        (id.as_str(), 1)
    );
    let second = served.lease_until("", "").await;
    // the lease began after `began` and ended before this answer
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        (second[0].id.as_str(), second[0].receive_count),
        (id.as_str(), 2)
    );
    assert_ne!(first[0].token, second[0].token);
}

async fn a_lease_is_a_second_or_what_the_queue_or_the_call_says(served: &Served) {
    served
        .put("/queues/slow", r#"{"lease_ms":3600000}"#)
        .await
        .is(201);
    served.put("/queues/plain", "").await.is(201);
    let now = "select floor(extract(epoch from clock_timestamp()) * 1000)";
    for (queue, path, parameters, lasts) in [
        ("default", "", "", 1_000),
        ("slow", "/queues/slow", "", 3_600_000),
        ("plain", "/queues/plain", "lease_ms=43200000", 43_200_000),
    ] {
        served.push(path, "1").await;
        let before = served.count(now).await;
        assert_eq!(served.lease(path, parameters).await.len(), 1);
        let after = served.count(now).await;
        let end = format!(
            "select floor(extract(epoch from free_at) * 1000)
               from leases.message join leases.queue using (queue_id) where name = '{queue}'"
        );
        // it began between the two, however long that took
        let began = served.count(&end).await - lasts;
        assert!(
            (before..=after).contains(&began),
            "{queue}: {before} {began} {after}"
        );
    }
    // per call it may also be shorter
    let id = served.push("/queues/slow", "2").await;
    assert_eq!(served.lease("/queues/slow", "lease_ms=1").await[0].id, id);
    assert_eq!(served.lease_until("/queues/slow", "").await[0].id, id);
}

async fn first_in_first_out_and_what_comes_back_stands_at_the_end(served: &Served) {
    served.push_numbers("", 1..=6).await;
    let first = served.lease("", "amount=2&lease_ms=50").await;
    assert_eq!(bodies(&first), ["1", "2"]);
    wait_until("the lease to end", LIMIT, async || {
        served
            .count("select count(*) from leases.message where free_at <= now()")
            .await
            == 6
    })
    .await;
    served.push("", "7").await;
    let all = served.lease("", "").await;
    assert_eq!(bodies(&all), ["3", "4", "5", "6", "1", "2", "7"]);
}

async fn a_long_poll_waits_and_is_answered_when_something_comes(served: &Served) {
    let began = Instant::now();
    assert!(served.lease("", "wait_ms=300").await.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(300));
    let began = Instant::now();
    let wait = served.lease("", "wait_ms=20000&lease_ms=60000");
    let push = async {
        wait_until("somebody to wait", LIMIT, async || {
            let mut waiting = 0.0;
            for node in &served.nodes {
                waiting += node.metric("unacked_leases_waiting").await.unwrap();
            }
            waiting > 0.0
        })
        .await;
        served.push("", "1").await;
    };
    let (leased, ()) = tokio::join!(wait, push);
    assert_eq!(bodies(&leased), ["1"]);
    assert!(began.elapsed() < Duration::from_secs(10));
    // nothing to wait for
    served.push("", "2").await;
    assert_eq!(bodies(&served.lease("", "wait_ms=20000").await), ["2"]);
}

async fn a_confirm_is_204_once(served: &Served) {
    let id = served.push("", "1").await;
    served.lease("", "lease_ms=60000").await;
    served.patch(&format!("/{id}")).await.is(204);
    served.patch(&format!("/{id}")).await.is(404);
    assert_eq!(served.count("select count(*) from leases.message").await, 0);
}

async fn nothing_that_is_not_leased_can_be_confirmed(served: &Served) {
    let id = served.push("", "1").await;
    served.patch(&format!("/{id}")).await.is(404);
    served
        .patch("/00000000-0000-0000-0000-000000000000")
        .await
        .is(404);
    served.patch("/nothing").await.is(404);
    let leased = served.lease("", "lease_ms=1").await;
    let token = &leased[0].token;
    wait_until("the lease to end", LIMIT, async || {
        served
            .count("select count(*) from leases.message where free_at <= now()")
            .await
            == 1
    })
    .await;
    served.patch(&format!("/{id}")).await.is(404);
    served.patch(&format!("/{id}?token={token}")).await.is(404);
    assert_eq!(served.lease("", "").await[0].id, id);
}

async fn with_a_token_only_the_holder_can_confirm(served: &Served) {
    let id = served.push("", "1").await;
    let old = served.lease("", "lease_ms=1").await.remove(0);
    let new = served.lease_until("", "lease_ms=60000").await.remove(0);
    assert_eq!(old.id, new.id);
    let other = "00000000-0000-4000-8000-000000000000";
    for wrong in [old.token.as_str(), other, "nonsense"] {
        served.patch(&format!("/{id}?token={wrong}")).await.is(404);
        let request = served.request(Method::PATCH, &format!("/{id}"));
        answer(request.header("X-Lease-Token", wrong)).await.is(404);
    }
    let both = served.request(Method::PATCH, &format!("/{id}?token={}", old.token));
    answer(both.header("x-lease-token", &new.token))
        .await
        .is(400);
    let request = served.request(Method::PATCH, &format!("/{id}"));
    answer(request.header("X-Lease-Token", &new.token))
        .await
        .is(204);
    let id = served.push("", "2").await;
    let token = served.lease("", "lease_ms=60000").await.remove(0).token;
    served.patch(&format!("/{id}?token={token}")).await.is(204);
}

async fn without_a_token_a_live_lease_can_be_confirmed(served: &Served) {
    // as in the seed: whoever holds it now
    let id = served.push("", "1").await;
    served.lease("", "lease_ms=1").await;
    served.lease_until("", "lease_ms=60000").await;
    served.patch(&format!("/{id}")).await.is(204);
}

async fn a_lease_can_be_made_longer(served: &Served) {
    let id = served.push("", "1").await;
    served
        .patch(&format!("/{id}/lease?lease_ms=5"))
        .await
        .is(404);
    let token = served.lease("", "lease_ms=30000").await.remove(0).token;
    let path = format!("/{id}/lease?lease_ms=43200000");
    served
        .patch(&format!(
            "{path}&token=00000000-0000-4000-8000-000000000000"
        ))
        .await
        .is(404);
    served.patch(&format!("{path}&token={token}")).await.is(204);
    let left = "select extract(epoch from free_at - now()) from leases.message";
    assert!(served.count(left).await > 43_000);
    // without a time it is the queue's, and without a token whoever holds it
    served.patch(&format!("/{id}/lease")).await.is(204);
    assert!(served.count(left).await <= 1);
    for wrong in ["lease_ms=0", "lease_ms=43200001", "lease=1"] {
        served.patch(&format!("/{id}/lease?{wrong}")).await.is(400);
    }
    assert_eq!(served.lease_until("", "lease_ms=1").await[0].id, id);
    wait_until("the lease to end", LIMIT, async || {
        served
            .count("select count(*) from leases.message where free_at <= now()")
            .await
            == 1
    })
    .await;
    served
        .patch(&format!("/{id}/lease?lease_ms=5"))
        .await
        .is(404);
}

async fn a_lease_can_be_given_back_at_once(served: &Served) {
    let id = served.push("", "1").await;
    served.delete(&format!("/{id}/lease")).await.is(404);
    let token = served.lease("", "lease_ms=60000").await.remove(0).token;
    served.push("", "2").await;
    let other = "00000000-0000-4000-8000-000000000000";
    served
        .delete(&format!("/{id}/lease?token={other}"))
        .await
        .is(404);
    served
        .delete(&format!("/{id}/lease?token={token}"))
        .await
        .is(204);
    served.delete(&format!("/{id}/lease")).await.is(404);
    served.patch(&format!("/{id}?token={token}")).await.is(404);
    served.patch(&format!("/{id}")).await.is(404);
    let leased = served.lease("", "lease_ms=60000").await;
    assert_eq!(bodies(&leased), ["2", "1"], "at the end of the queue");
    assert_eq!(leased[1].receive_count, 2);
    served.delete(&format!("/{id}/lease")).await.is(204);
}

async fn an_answer_is_not_larger_than_a_node_can_hold(served: &Served) {
    let large = format!("\"{}\"", "x".repeat(250 * 1024));
    let batch = format!("[{}]", [large.as_str(); 4].join(","));
    for _ in 0..12 {
        served.post("/batch", batch.clone()).await.is(201);
    }
    let mut found = 0;
    while found < 48 {
        let leased = served.lease("", "amount=1000&lease_ms=600000").await;
        assert!((1..=34).contains(&leased.len()), "{}", leased.len());
        found += leased.len();
    }
    assert_eq!(found, 48);
}

async fn what_is_larger_than_many_at_once_can_have_is_no_empty_queue(served: &Served) {
    let large = format!("\"{}\"", "x".repeat(250 * 1024));
    let batch = format!("[{}]", [large.as_str(); 4].join(","));
    for _ in 0..12 {
        served.post("/batch", batch.clone()).await.is(201);
    }
    // they share a group, and it cannot hold what all of them want
    let lease = || served.lease("", "amount=8&lease_ms=600000");
    let all = tokio::join!(lease(), lease(), lease(), lease(), lease(), lease());
    let all = [all.0, all.1, all.2, all.3, all.4, all.5];
    assert!(all.iter().all(|leased| !leased.is_empty()));
}
