//! What the lease queue promises, sentence by sentence, said to one node and to three at once.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::wait_until;

use crate::served::{LIMIT, Served, answer, bodies, messages, these};

macro_rules! contract {
    ($($name:ident)*) => {
        mod one_node {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&crate::served::Served::by(1).await).await;
            })*
        }
        mod three_nodes {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&crate::served::Served::by(3).await).await;
            })*
        }
    };
}

contract! {
    the_seeds_commands_work_as_pasted
    any_valid_json_comes_back_equal
    a_batch_is_pushed_in_one_call_in_its_order
    invalid_json_is_400
    more_than_256_kib_is_413
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
    a_message_leased_too_often_is_a_dead_letter
    dead_letters_are_listed_page_by_page
    dead_letters_are_sent_back_or_discarded
    zero_receives_means_never_dead
    queues_have_names_and_settings_of_their_own
    head_never_leases
    the_page_shows_the_queues
    one_queue_can_be_asked_for_by_its_name_however_many_there_are
    errors_are_problem_details_whatever_the_client_accepts
    a_push_with_a_key_is_one_push
    behind_the_gateway_it_is_the_same_under_its_prefix
    an_answer_is_not_larger_than_a_node_can_hold
    what_is_larger_than_many_at_once_can_have_is_no_empty_queue
    what_a_queue_allows_when_the_last_lease_ends_is_what_holds
    a_page_of_another_site_can_say_nothing
}

/// What curl says of `--data`.
const FORM: &str = "application/x-www-form-urlencoded";

/// Has leases of the queue `default` last as long as a test may.
async fn last(served: &Served) {
    let settings = r#"{"lease_ms":60000}"#;
    served.put("/queues/default", settings).await.is(200);
}

async fn the_seeds_commands_work_as_pasted(served: &Served) {
    last(served).await;
    let post = |media: Option<&str>| {
        let request = served.request(Method::POST, "").body(r#"{"value": 12}"#);
        match media {
            Some(media) => request.header("content-type", media),
            None => request,
        }
    };
    let mut ids = Vec::new();
    for media in [Some("application/json"), Some(FORM), None, Some("text/x")] {
        let pushed = answer(post(media)).await.is(201).json();
        assert_eq!(pushed.as_object().unwrap().len(), 1, "{pushed}");
        let id = pushed["messageID"].as_str().unwrap().to_owned();
        assert_eq!(id.len(), 36);
        ids.push(id);
    }
    let got = served.get("").await.is(200);
    assert_eq!(got.media, "application/json");
    let leased = messages(&got);
    let found: Vec<&str> = leased.iter().map(|leased| leased.id.as_str()).collect();
    assert_eq!(found, ids);
    assert_eq!(leased[0].body(), r#"{"value": 12}"#);
    assert!(served.lease("", "amount=100").await.is_empty());
    let confirmed = served.patch(&format!("/{}", ids[0])).await.is(204);
    assert_eq!(confirmed.text, "");
}

async fn any_valid_json_comes_back_equal(served: &Served) {
    last(served).await;
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let documents = [
        "null",
        "true",
        "-0",
        "1.10",
        "1e400",
        "123456789012345678901234567890.000",
        r#""""#,
        r#""\u0000""#,
        r#"{"\u0000":"\u0000","b":"\ud83d\ude00 \/ \\ ä 😀"}"#,
        r#"{"b":1,"a":2,"b":3}"#,
        r#"[1, 2,  {"x" : [ ] }]"#,
        &deep,
    ];
    for document in documents {
        served.push("", document).await;
    }
    let leased = served.lease("", "amount=100").await;
    assert_eq!(bodies(&leased), documents);
    served.push("", " \n\t[1]\r\n ").await;
    assert_eq!(bodies(&served.lease("", "").await), ["[1]"]);
}

async fn a_batch_is_pushed_in_one_call_in_its_order(served: &Served) {
    last(served).await;
    let pushed = served
        .post("/batch", r#"[1, "two", {"n":3}]"#)
        .await
        .is(201);
    let ids: Vec<String> = serde_json::from_value(pushed.json()["messageIDs"].clone()).unwrap();
    let leased = served.lease("", "").await;
    let found: Vec<&str> = leased.iter().map(|leased| leased.id.as_str()).collect();
    assert_eq!(found, ids);
    assert_eq!(bodies(&leased), ["1", r#""two""#, r#"{"n":3}"#]);
    let many = |count: usize| json!((0..count).collect::<Vec<_>>()).to_string();
    let pushed = served.post("/batch", many(1_000)).await.is(201).json();
    assert_eq!(pushed["messageIDs"].as_array().unwrap().len(), 1_000);
    let numbers: Vec<String> = (0..1_000).map(|number: u32| number.to_string()).collect();
    assert_eq!(bodies(&served.lease("", "amount=1000").await), numbers);
    for wrong in [many(1_001), "[]".to_owned(), "{}".to_owned()] {
        served.post("/batch", wrong).await.is(422);
    }
    served.post("/batch", "[1,").await.is(400);
    assert!(served.lease("", "").await.is_empty(), "all or none");
}

async fn invalid_json_is_400(served: &Served) {
    for wrong in [
        &b""[..],
        b" ",
        b"{",
        b"{'a':1}",
        b"1 2",
        b"nul",
        b"\"\xff\"",
        b"\"\0\"",
    ] {
        let refused = served.post("/", wrong).await.is(400);
        assert_eq!(refused.media, "application/problem+json");
    }
    assert!(served.lease("", "").await.is_empty());
}

async fn more_than_256_kib_is_413(served: &Served) {
    let of = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    served.post("/", of(256 * 1024)).await.is(201);
    served.post("/", of(256 * 1024 + 1)).await.is(413);
    served.post("/", of(2 * 1024 * 1024)).await.is(413);
    let batch = format!("[1,{}]", of(256 * 1024 + 1));
    served.post("/batch", batch).await.is(413);
    let three = [of(256 * 1024), of(256 * 1024), of(256 * 1024)].join(",");
    served.post("/batch", format!("[{three}]")).await.is(201);
    let leased = served.lease("", "").await;
    assert_eq!(leased.len(), 4);
    assert!(
        leased
            .iter()
            .all(|leased| leased.body().len() == 256 * 1024)
    );
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
async fn kill(served: &Served, queue: &str, numbers: impl Iterator<Item = u32>) {
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

async fn queues_have_names_and_settings_of_their_own(served: &Served) {
    let missing = served.post("/queues/mail", "1").await.is(404).json();
    let detail = missing["detail"].as_str().unwrap();
    assert!(detail.contains("PUT /queues/mail makes it"), "{detail}");
    served.get("/queues/mail").await.is(404);
    let made = served
        .put("/queues/mail", r#"{"lease_ms":60000}"#)
        .await
        .is(201)
        .json();
    let wanted = json!({"name": "mail", "lease_ms": 60_000, "max_receives": 20});
    assert_eq!(made, wanted);
    let changed = served
        .put("/queues/mail", r#"{"max_receives":3}"#)
        .await
        .is(200)
        .json();
    let wanted = json!({"name": "mail", "lease_ms": 60_000, "max_receives": 3});
    assert_eq!(changed, wanted, "what is not said stays");
    let id = served.push("/queues/mail", "1").await;
    let default = served.push("", "2").await;
    assert_eq!(served.lease("", "lease_ms=60000").await[0].id, default);
    assert_eq!(served.lease("/queues/mail", "").await[0].id, id);
    served.patch(&format!("/{id}")).await.is(404);
    served
        .patch(&format!("/queues/mail/{default}"))
        .await
        .is(404);
    served
        .patch(&format!("/queues/mail/{id}/lease"))
        .await
        .is(204);
    served
        .delete(&format!("/queues/mail/{id}/lease"))
        .await
        .is(204);
    assert_eq!(served.lease("/queues/mail", "").await[0].id, id);
    served.patch(&format!("/queues/mail/{id}")).await.is(204);
    // the default queue has a name too
    served
        .patch(&format!("/queues/default/{default}"))
        .await
        .is(204);
    let many = served
        .post("/queues/mail/batch", "[1,2]")
        .await
        .is(201)
        .json();
    assert_eq!(many["messageIDs"].as_array().unwrap().len(), 2);
    for (name, body, status) in [
        ("UPPER", "{}", 400),
        (&*"x".repeat(81), "{}", 400),
        ("a%20b", "{}", 400),
        ("q", "{", 400),
        ("q", r#"{"lease_ms":0}"#, 422),
        ("q", r#"{"max_receives":-1}"#, 422),
        ("q", r#"{"leases":1}"#, 422),
    ] {
        served
            .put(&format!("/queues/{name}"), body)
            .await
            .is(status);
    }
}

async fn head_never_leases(served: &Served) {
    served.push("", "1").await;
    for path in ["", "/", "/leases", "/queues/default"] {
        let head = answer(served.request(Method::HEAD, path)).await.is(200);
        assert_eq!(head.text, "");
    }
    assert_eq!(served.lease("", "").await[0].receive_count, 1);
}

async fn one_queue_can_be_asked_for_by_its_name_however_many_there_are(served: &Served) {
    // more than one page has
    for number in 0..501 {
        let status = served.put(&format!("/queues/q{number}"), "").await.status;
        assert_eq!(status, 201);
    }
    served.put("/queues/zz", "").await.is(201);
    served.push_numbers("/queues/zz", 0..3).await;
    served.lease("/queues/zz", "amount=1&lease_ms=60000").await;
    let read = |path| {
        let request = served.request(Method::GET, path);
        answer(request.header("accept", "application/json"))
    };
    for path in ["/queues?name=zz", "/leases/queues?name=zz"] {
        let found = read(path).await.is(200).json();
        let queues = found["queues"].as_array().unwrap();
        assert_eq!(queues.len(), 1, "{found}");
        let told = ["name", "ready", "leased", "dead"].map(|name| queues[0][name].clone());
        assert_eq!(told, [json!("zz"), json!(2), json!(1), json!(0)]);
    }
    let all = read("/queues").await.is(200).json();
    assert_eq!(all["queues"].as_array().unwrap().len(), 500);
    let none = read("/queues?name=nobodys").await.is(404).json();
    assert!(
        none["detail"].as_str().unwrap().contains("nobodys"),
        "{none}"
    );
    read("/queues?name=A%20B").await.is(404);
    read("/queues?names=zz").await.is(400);
    let page = served.get("/leases/queues?name=zz").await.is(200);
    assert!(page.text.contains("data-queue=\"zz\""), "{}", page.text);
    assert!(!page.text.contains("data-queue=\"q1\""), "{}", page.text);
}

async fn the_page_shows_the_queues(served: &Served) {
    served
        .put("/queues/mail", r#"{"max_receives":1}"#)
        .await
        .is(201);
    served.push_numbers("/queues/mail", 0..4).await;
    served
        .lease("/queues/mail", "amount=1&lease_ms=60000")
        .await;
    kill(served, "/queues/gone", 0..2).await;
    served.dead("/queues/gone", 2).await;
    let read = |path| {
        let request = served.request(Method::GET, path);
        answer(request.header("accept", "application/json"))
    };
    let of = |list: &Value, name: &str| -> Value {
        let queues = list["queues"].as_array().unwrap();
        queues
            .iter()
            .find(|queue| queue["name"] == name)
            .cloned()
            .unwrap()
    };
    let list = read("/queues").await.is(200).json();
    let mail = of(&list, "mail");
    assert_eq!(
        (&mail["ready"], &mail["leased"], &mail["dead"]),
        (&json!(3), &json!(1), &json!(0)),
        "{mail}"
    );
    assert_eq!(of(&list, "gone")["dead"], 2);
    assert_eq!(of(&list, "default")["ready"], 0);
    // rates are of the last seconds: there is something to count in each turn
    wait_until("the rates of all nodes", LIMIT, async || {
        served.push("/queues/mail", "4").await;
        served
            .lease("/queues/mail", "amount=1&lease_ms=60000")
            .await;
        let mail = of(&read("/leases/queues").await.is(200).json(), "mail");
        let rates = ["pushed_per_second", "leased_per_second"].map(|rate| mail[rate].as_f64());
        if rates.iter().all(|rate| rate.unwrap() > 0.0) {
            Ok(())
        } else {
            Err(mail)
        }
    })
    .await;
    let page = served.get("/leases/queues").await.is(200);
    assert!(page.media.starts_with("text/html"), "{}", page.media);
    for part in [
        "data-queue=\"mail\"",
        "data-queue=\"default\"",
        "dead after 1 lease",
    ] {
        assert!(page.text.contains(part), "{part} is missing: {}", page.text);
    }
}

async fn errors_are_problem_details_whatever_the_client_accepts(served: &Served) {
    for accept in ["*/*", "text/html", "application/json"] {
        for (method, path, status) in [
            (Method::GET, "/?amount=0", 400),
            (Method::PATCH, "/nothing", 404),
            (Method::GET, "/queues/nothing", 404),
            (Method::DELETE, "/", 405),
            (Method::GET, "/a/b/c", 404),
        ] {
            let refused = served.request(method, path).header("accept", accept);
            let refused = answer(refused).await.is(status);
            assert_eq!(refused.media, "application/problem+json", "{path} {accept}");
            assert!(refused.json()["detail"].is_string());
        }
    }
}

async fn a_push_with_a_key_is_one_push(served: &Served) {
    let push = async |key: &str, path: &str, body: &str| {
        let request = served
            .request(Method::POST, path)
            .header("Idempotency-Key", key);
        answer(request.body(body.to_owned())).await
    };
    let (one, two, three) = tokio::join!(
        push("k", "/", "1"),
        push("k", "/", "1"),
        push("k", "/", "1")
    );
    let [one, two, three] = [one, two, three].map(|pushed| pushed.is(201).text);
    assert_eq!([&one, &one], [&two, &three]);
    let id = serde_json::from_str::<Value>(&one).unwrap()["messageID"].clone();
    assert_eq!(served.lease("", "lease_ms=60000").await.len(), 1);
    served
        .patch(&format!("/{}", id.as_str().unwrap()))
        .await
        .is(204);
    assert_eq!(
        push("k", "/", "1").await.is(201).text,
        one,
        "also when it is confirmed"
    );
    let refused = push("k", "/", "2").await.is(422).json();
    assert_eq!(refused["type"], "urn:unacked:problem:key_reused");
    push("k", "/batch", "[1,2]").await.is(422);
    let many = push("b", "/batch", "[1,2]").await.is(201).text;
    assert_eq!(push("b", "/batch", "[1,2]").await.is(201).text, many);
    push("b", "/batch", "[1]").await.is(422);
    push("b", "/batch", "[1,2,3]").await.is(422);
    assert_eq!(bodies(&served.lease("", "").await), ["1", "2"]);
    for wrong in ["", "a b", &"x".repeat(201)] {
        push(wrong, "/", "1").await.is(400);
    }
    // another queue is another push
    served.put("/queues/q", "").await.is(201);
    let other = push("k", "/queues/q", "1").await.is(201).text;
    assert_ne!(other, one);
    assert_eq!(served.count("select count(*) from leases.pushed").await, 3);
}

async fn behind_the_gateway_it_is_the_same_under_its_prefix(served: &Served) {
    last(served).await;
    served
        .put("/leases/queues/q", r#"{"lease_ms":60000}"#)
        .await
        .is(201);
    for queue in ["/leases", "/leases/queues/q"] {
        let pushed = served.post(queue, "1").await.is(201).json();
        let id = pushed["messageID"].as_str().unwrap();
        served.post(&format!("{queue}/batch"), "[2]").await.is(201);
        let leased = served
            .get(&format!("{queue}?amount=1&lease_ms=60000"))
            .await;
        assert_eq!(messages(&leased.is(200))[0].id, id);
        served.patch(&format!("{queue}/{id}/lease")).await.is(204);
        served.delete(&format!("{queue}/{id}/lease")).await.is(204);
        let leased = served
            .get(&format!("{queue}/?lease_ms=60000"))
            .await
            .is(200);
        assert_eq!(bodies(&messages(&leased)), ["2", "1"]);
        served.patch(&format!("{queue}/{id}")).await.is(204);
        served.get(&format!("{queue}/dead-letters")).await.is(200);
        served
            .post(&format!("{queue}/dead-letters/discard"), r#"{"all":true}"#)
            .await
            .is(200);
    }
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

async fn a_page_of_another_site_can_say_nothing(served: &Served) {
    let id = served.push("", "1").await;
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for (method, path) in [
            (Method::GET, "/?amount=1"),
            (Method::POST, "/"),
            (Method::POST, "/leases/batch"),
            (Method::PATCH, &*format!("/{id}")),
            (Method::PUT, "/queues/theirs"),
            (Method::GET, "/dead-letters"),
        ] {
            let theirs = served.request(method, path).header(name, value);
            let refused = answer(theirs.body("[1]")).await.is(403);
            assert_eq!(refused.media, "application/problem+json");
        }
        // a link to the page is what links are for
        let link = served.request(Method::GET, "/leases/queues");
        answer(link.header(name, value)).await.is(200);
    }
    served.get("/queues/theirs").await.is(404);
    let own = served.to(0, Method::GET, "/?lease_ms=60000");
    let own = own.header("origin", served.nodes[0].url());
    let leased = messages(
        &answer(own.header("sec-fetch-site", "same-origin"))
            .await
            .is(200),
    );
    assert_eq!((bodies(&leased), leased[0].receive_count), (vec!["1"], 1));
}
