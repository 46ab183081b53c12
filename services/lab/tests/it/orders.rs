//! What is decided about dead letters: which orders are refused, how they are counted, and what nobody of ours made.

use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    load::client,
    redrive::{
        API, EFFECTS, PARKED, TOKEN, WAITING, counts, ended, get, parked, plan, post, receiver,
        start,
    },
    world::World,
};

const DISCARD: &str = "/received/api/dead-letters/discard";

async fn change(world: &World, sql: &'static str) {
    let done = sqlx::query(sql).execute(&world.database.admin).await;
    done.unwrap();
}

#[tokio::test]
async fn what_is_discarded_stays_on_record_and_only_the_right_number_is_a_confirmation() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    parked(&world, 2, "old").await;
    parked(&world, 3, "new").await;
    let discard = async |text: &str, confirm: &str| {
        let body = json!({"selection": {"text": text}, "confirm": confirm, "who": "192.0.2.1"});
        post(&receiver, "/received/api/dead-letters/discard", body).await
    };
    let (status, answer) = discard("old", "discard 3").await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert_eq!(world.count(PARKED).await, 5);
    let (status, answer) = discard("old", "discard 2").await;
    assert_eq!((status, &answer["discarded"]), (StatusCode::OK, &json!(2)));
    assert_eq!(world.count(PARKED).await, 3);
    let record = "select count(*) from receiver.dead_letter
        where state = 'discarded' and discarded_by = '192.0.2.1' and decided_at is not null";
    assert_eq!(world.count(record).await, 2);
    // the page counts what somebody has yet to decide
    let page = client().get(receiver.url() + "/received").send().await;
    let page = page.unwrap().text().await.unwrap();
    let waits = page.lines().find(|line| line.contains("3 dead letters"));
    assert!(waits.is_some_and(|line| line.contains("wait for somebody")));
    // and is not sent back any more
    let (_, planned) = plan(&receiver, json!({"all": true}), 100).await;
    assert_eq!(planned["selected"], json!(3));
}

/// As a receiver parked before redrives had numbers.
#[tokio::test]
async fn a_dead_letter_without_a_number_is_refused_instead_of_taken_for_a_copy() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    parked(&world, 1, "x").await;
    let (id, _) = plan(&receiver, json!({"all": true}), 100).await;
    start(&receiver, &id).await;
    ended(&receiver, &id).await;
    let old = "insert into receiver.dead_letter (fingerprint, message_id, kind, body, reason, headers, node)
        select fingerprint, message_id, kind, body, reason, headers, node from receiver.dead_letter
        on conflict do nothing";
    let refused = sqlx::query(old).execute(&world.database.admin).await;
    let refused = refused.unwrap_err();
    let code = refused
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    assert_eq!(code.as_deref(), Some("23502"), "{refused}");
}

#[tokio::test]
async fn what_somebody_else_published_under_an_id_of_ours_does_not_stop_the_others() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    parked(&world, 20, "x").await;
    // a second one of the same message in the same batch, one whose number cannot grow, one of a time before Postgres' own
    for sql in [
        "insert into receiver.dead_letter (fingerprint, redrive, message_id, kind, body, reason, headers, node)
         select fingerprint, 7, message_id, kind, body, reason, headers, node
           from receiver.dead_letter order by dead_letter_id limit 1",
        "update receiver.dead_letter set redrive = 2147483646
          where dead_letter_id = (select dead_letter_id from receiver.dead_letter order by 1 offset 1 limit 1)",
        "update receiver.dead_letter set headers = headers || '{\"x-lab-accepted-us\": -3000000000000000000}'
          where dead_letter_id = (select dead_letter_id from receiver.dead_letter order by 1 offset 2 limit 1)",
    ] {
        change(&world, sql).await;
    }
    let (id, _) = plan(&receiver, json!({"all": true}), 10_000).await;
    start(&receiver, &id).await;
    let done = ended(&receiver, &id).await;
    assert_eq!(
        (&done["selected"], &done["gone"], &done["left"]),
        (&json!(21), &json!(2), &json!(0))
    );
    // the second one was sent back too, or its message had its effect by then
    let (redriven, has_effect) = (&done["redriven"], &done["has_effect"]);
    assert_eq!(
        redriven.as_i64().unwrap() + has_effect.as_i64().unwrap(),
        19,
        "{done}"
    );
    counts(&world, WAITING, 0).await;
    counts(&world, EFFECTS, 18).await;
    assert_eq!(world.count(PARKED).await, 2, "what cannot be read stays");
}

#[tokio::test]
async fn a_batch_that_is_committed_is_counted_though_its_receiver_errs_then() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    parked(&world, 20, "x").await;
    let (id, _) = plan(&receiver, json!({"all": true}), 50).await;
    receiver.arm("redrive.after_commit=error@1").await.unwrap();
    start(&receiver, &id).await;
    let done = ended(&receiver, &id).await;
    assert_eq!(done["redriven"], json!(20));
    assert!(
        receiver
            .log()
            .contains("dead letters cannot be sent back for now")
    );
    let told = receiver.metric("unacked_messages_redriven_total").await;
    assert!((told.unwrap() - 20.0).abs() < 0.5);
}

#[tokio::test]
async fn what_is_parked_after_the_cut_off_is_not_in_any_count() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    parked(&world, 4, "x").await;
    change(
        &world,
        "insert into receiver.dead_letter (fingerprint, redrive, body, reason, headers, node, dead_at)
         select n::text, 0, '', 'not a message of ours', '{}', 'receiver-1', clock_timestamp() + (n - 3) * interval '1 h'
           from generate_series(1, 5) n",
    )
    .await;
    let (_, planned) = plan(&receiver, json!({"all": true}), 100).await;
    // two an hour and more ago; the third was parked at once
    assert_eq!(
        (&planned["selected"], &planned["not_ours"]),
        (&json!(4), &json!(3)),
        "{planned}"
    );
}

#[tokio::test]
async fn nothing_is_left_of_an_order_that_is_done_though_its_dead_letters_are_pruned() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    parked(&world, 10, "x").await;
    let (id, planned) = plan(&receiver, json!({"all": true}), 100).await;
    assert_eq!(planned["left"], json!(10));
    let pruned = "delete from receiver.dead_letter where dead_letter_id in
        (select dead_letter_id from receiver.dead_letter order by 1 limit 3)";
    change(&world, pruned).await;
    start(&receiver, &id).await;
    let done = ended(&receiver, &id).await;
    assert_eq!(
        (&done["redriven"], &done["left"]),
        (&json!(7), &json!(0)),
        "{done}"
    );
}

#[tokio::test]
async fn a_list_of_orders_is_small_whatever_they_select() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    let ids: Vec<Uuid> = parked(&world, 20_000, "x").await;
    let (id, _) = plan(&receiver, json!({"messages": ids}), 100).await;
    let list = client()
        .get(receiver.url() + API)
        .header("X-Redrive-Token", TOKEN);
    let list = list.send().await.unwrap().text().await.unwrap();
    assert!(list.len() < 2_000, "{} bytes", list.len());
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["redrives"][0]["redrive_id"], json!(id));
    // by itself it is told with what was asked for
    let one = get(&receiver, &id).await.unwrap();
    assert_eq!(one["selection"]["messages"], json!(ids));
}

#[tokio::test]
async fn an_order_of_nothing_is_refused_and_is_none() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    let ids = parked(&world, 2, "x").await;
    let (id, _) = plan(&receiver, json!({"messages": [ids[0]]}), 100).await;
    start(&receiver, &id).await;
    ended(&receiver, &id).await;
    change(
        &world,
        "insert into receiver.dead_letter (fingerprint, redrive, body, reason, headers, node)
         values ('foreign', 0, '', 'not a message of ours', '{}', 'foreign')",
    )
    .await;
    let (unknown, by) = (Uuid::now_v7(), format!(", by redrive {id}"));
    let foreign = "The one dead letter that fits is not a message of ours";
    let numbers = "There is no dead letter 4711";
    let message = format!("There is no dead letter of message {unknown}");
    for (selection, code, right) in [
        (json!({"text": "y"}), "none_fits", "No dead letter fits"),
        (json!({"node": "foreign"}), "none_fits", foreign),
        (json!({"messages": [unknown]}), "settled", &*message),
        (json!({"messages": ids}), "settled", "was sent back already"),
        (json!({"messages": ids}), "settled", &*by),
        (json!({"ids": [4711]}), "settled", numbers),
    ] {
        for dry_run in [false, true] {
            let order = json!({"selection": selection, "dry_run": dry_run});
            let (status, answer) = post(&receiver, API, order).await;
            assert_eq!(status, StatusCode::CONFLICT, "{answer}");
            assert_eq!(answer["type"], format!("urn:unacked:problem:{code}"));
            let said = answer["detail"].as_str().unwrap();
            assert!(said.contains(right), "{right}: {said}");
        }
    }
    let orders = "select count(*) from receiver.redrive";
    assert_eq!(world.count(orders).await, 1);
    let (status, answer) = post(&receiver, &format!("{API}/{unknown}/cancel"), json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
    let right = format!("There is no redrive {unknown}.");
    assert_eq!(answer["detail"], right);
}

#[tokio::test]
async fn a_nul_in_a_selection_is_refused_in_words() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    for name in ["reason", "run", "node", "text"] {
        let selection = json!({ name: "a\0b" });
        let plan = post(&receiver, API, json!({"selection": selection})).await;
        let body = json!({"selection": selection, "confirm": "discard 0"});
        let discard = post(&receiver, DISCARD, body).await;
        for (status, answer) in [plan, discard] {
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{name}: {answer}");
            assert!(
                answer["detail"].as_str().unwrap().contains("NUL"),
                "{answer}"
            );
        }
    }
}

#[tokio::test]
async fn more_than_a_transaction_takes_are_refused() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    change(
        &world,
        "insert into receiver.dead_letter (fingerprint, redrive, message_id, body, reason, headers, node)
         select n::text, 0, gen_random_uuid(), '', 'x', '{}', 'r' from generate_series(1, 100001) n",
    )
    .await;
    let all = json!({"all": true});
    let planned = post(&receiver, API, json!({"selection": all})).await;
    let body = json!({"selection": all, "confirm": "discard 100001"});
    for (status, answer) in [planned, post(&receiver, DISCARD, body).await] {
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert_eq!(answer["type"], "urn:unacked:problem:too_many", "{answer}");
    }
    assert_eq!(world.count(PARKED).await, 100_001);
    // one fewer may be
    change(
        &world,
        "delete from receiver.dead_letter where fingerprint = '1'",
    )
    .await;
    let (_, planned) = plan(&receiver, all, 100).await;
    assert_eq!(planned["selected"], json!(100_000));
}

/// A long text that nearly matches everywhere: comparing it takes seconds for each body.
#[tokio::test]
async fn what_would_take_too_long_is_said_as_that_and_not_as_an_outage() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    change(
        &world,
        "insert into receiver.dead_letter (fingerprint, redrive, message_id, body, reason, headers, node)
         select n::text, 0, gen_random_uuid(), convert_to(repeat('a', 1000000), 'UTF8'), 'x', '{}', 'r'
           from generate_series(1, 60) n",
    )
    .await;
    let selection = json!({"text": "a".repeat(50_000) + "b"});
    let order = json!({"selection": selection});
    let confirmed = json!({"selection": selection, "confirm": "discard 1"});
    let both = futures::join!(
        post(&receiver, API, order),
        post(&receiver, DISCARD, confirmed)
    );
    for (status, answer) in [both.0, both.1] {
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert_eq!(answer["type"], "urn:unacked:problem:too_long", "{answer}");
    }
    assert_eq!(world.count(PARKED).await, 60);
}
