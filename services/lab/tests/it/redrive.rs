//! Dead letters are sent back on purpose: whatever dies in between, nothing is lost and nothing is done twice.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::PgExecutor;
use testkit::{Process, wait_until};
use uuid::Uuid;

use crate::{
    foreign::ours,
    load::client,
    world::{World, ready, turn},
};

const LIMIT: Duration = Duration::from_mins(1);
pub(crate) const TOKEN: &str = "a secret of this test";
const API: &str = "/received/api/redrives";

/// A receiver that takes orders.
pub(crate) async fn receiver(world: &World, name: &str) -> Process {
    let receiver = world.receiver(name).env("REDRIVE_TOKEN", TOKEN);
    let receiver = receiver.start().await;
    ready(&receiver).await;
    receiver
}

/// Dead letters as they are parked, of messages that were sent with these texts; gives the ids of the messages.
pub(crate) async fn parked(world: &World, count: i64, text: &str) -> Vec<Uuid> {
    park(&world.database.admin, count, text).await
}

/// The same in any database.
pub(crate) async fn park(database: impl PgExecutor<'_>, count: i64, text: &str) -> Vec<Uuid> {
    let sql = "insert into receiver.dead_letter (fingerprint, message_id, kind, body, reason, headers, node)
        select id, id::uuid, 'message.v1', convert_to(json_build_object('number', n, 'text', $2::text)::text, 'UTF8'),
               'its work failed 20 times, at last: no luck',
               json_build_object('x-lab-node', 'sender-1', 'x-lab-accepted-us', (extract(epoch from now()) * 1e6)::bigint),
               'receiver-before'
          from (select n, gen_random_uuid()::text as id from generate_series(1, $1) n) made
        returning message_id";
    let ids = sqlx::query_scalar(sql).bind(count).bind(text);
    ids.fetch_all(database).await.unwrap()
}

/// Effects of these messages, made by another receiver.
pub(crate) async fn have_effects(world: &World, ids: &[Uuid]) {
    for sql in [
        "insert into receiver.inbox (message_id) select unnest($1::uuid[])",
        "insert into receiver.processed (message_id, number, text, node, attempt, redelivered, received_at, took_ms)
         select id, 1, 'x', 'receiver-before', 1, false, clock_timestamp(), 0 from unnest($1::uuid[]) id",
    ] {
        let made = sqlx::query(sql).bind(ids);
        made.execute(&world.database.admin).await.unwrap();
    }
}

async fn post(receiver: &Process, path: &str, body: Value) -> (StatusCode, Value) {
    let request = client().post(receiver.url() + path).json(&body);
    let answer = request.header("X-Redrive-Token", TOKEN).send().await;
    let answer = answer.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn get(receiver: &Process, id: &str) -> Option<Value> {
    let request = client().get(format!("{}{API}/{id}", receiver.url()));
    let answer = request.header("X-Redrive-Token", TOKEN).send().await.ok()?;
    answer.json().await.ok()
}

/// Plans, and gives the id.
async fn plan(receiver: &Process, selection: Value, per_second: u32) -> (String, Value) {
    let order = json!({"selection": selection, "per_second": per_second, "who": "test"});
    let (status, plan) = post(receiver, API, order).await;
    assert_eq!(status, StatusCode::CREATED, "{plan}");
    (plan["redrive_id"].as_str().unwrap().to_owned(), plan)
}

pub(crate) async fn start(receiver: &Process, id: &str) {
    let (status, answer) = post(receiver, &format!("{API}/{id}/start"), json!({})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

async fn cancel(receiver: &Process, id: &str) -> Value {
    let (status, answer) = post(receiver, &format!("{API}/{id}/cancel"), json!({})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

/// Waits until an order has ended.
pub(crate) async fn ended(receiver: &Process, id: &str) -> Value {
    wait_until("the redrive to be done", LIMIT, async || {
        match get(receiver, id).await {
            Some(now) if now["state"] == "done" => Ok(now),
            now => Err(format!("{now:?}")),
        }
    })
    .await
}

/// Waits until there are so many.
pub(crate) async fn counts(world: &World, sql: &str, right: i64) {
    wait_until(sql, LIMIT, async || match world.count(sql).await {
        now if now == right => Ok(()),
        now => Err(now),
    })
    .await;
}

pub(crate) const MESSAGES: &str = "select count(distinct message_id) from receiver.processed";
pub(crate) const EFFECTS: &str = "select count(*) from receiver.processed";
pub(crate) const PARKED: &str = "select count(*) from receiver.dead_letter where state = 'parked'";
pub(crate) const WAITING: &str = "select count(*) from receiver.outbox";

#[tokio::test]
async fn what_has_an_effect_has_no_second_one_and_the_counts_are_right() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    let ids = parked(&world, 1_000, "x").await;
    have_effects(&world, &ids[..500]).await;
    let order = json!({"selection": {"all": true}, "dry_run": true});
    let (status, dry) = post(&receiver, API, order).await;
    assert_eq!((status, &dry["selected"]), (StatusCode::OK, &json!(1_000)));
    let orders = "select count(*) from receiver.redrive";
    assert_eq!(world.count(orders).await, 0, "a dry run leaves nothing");

    let (id, planned) = plan(&receiver, json!({"all": true}), 10_000).await;
    let said =
        "1000 selected: 500 already have an effect, so replaying them changes nothing; 500 new";
    assert_eq!(planned["plan"], said);
    // parked after the cut-off
    let late = parked(&world, 3, "late").await;
    start(&receiver, &id).await;
    let done = ended(&receiver, &id).await;
    let counted = ["redriven", "has_effect", "gone", "left"].map(|name| done[name].clone());
    assert_eq!(counted, [500, 500, 0, 0].map(|count| json!(count)));
    counts(&world, MESSAGES, 1_000).await;
    counts(&world, WAITING, 0).await;
    assert_eq!(world.count(EFFECTS).await, 1_000);
    let left: Vec<Uuid> =
        sqlx::query_scalar("select message_id from receiver.dead_letter where state = 'parked'")
            .fetch_all(&world.database.admin)
            .await
            .unwrap();
    assert_eq!(left.len(), late.len());
    assert!(late.iter().all(|id| left.contains(id)));
    // started once more, it does nothing
    start(&receiver, &id).await;
    assert_eq!(get(&receiver, &id).await.unwrap()["state"], "done");
}

#[tokio::test]
async fn a_cancel_in_the_middle_leaves_a_correct_count_and_the_rate_is_kept() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    parked(&world, 200, "x").await;
    let (id, _) = plan(&receiver, json!({"text": "x"}), 20).await;
    let begun = std::time::Instant::now();
    start(&receiver, &id).await;
    let some = "select redriven from receiver.redrive";
    wait_until("some to be sent back", LIMIT, async || {
        world.count(some).await >= 40
    })
    .await;
    // 40 at 20 a second, in batches of four of which the first goes at once
    assert!(
        begun.elapsed() >= Duration::from_millis(1_500),
        "{:?}",
        begun.elapsed()
    );
    let now = cancel(&receiver, &id).await;
    assert_eq!(now["state"], "cancelled");
    let redriven = now["redriven"].as_i64().unwrap();
    assert!((40..200).contains(&redriven), "{now}");
    counts(&world, EFFECTS, redriven).await;
    counts(&world, WAITING, 0).await;
    assert_eq!(world.count(PARKED).await, 200 - redriven);
    let (status, _) = post(&receiver, &format!("{API}/{id}/start"), json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    // what is left can be sent back by another one
    let (rest, planned) = plan(&receiver, json!({"all": true}), 10_000).await;
    assert_eq!(planned["selected"], json!(200 - redriven));
    start(&receiver, &rest).await;
    ended(&receiver, &rest).await;
    counts(&world, EFFECTS, 200).await;
    assert_eq!(world.count(MESSAGES).await, 200);
}

/// The receiver that is at it dies at this line, the `pass`th time that it gets there, and goes on after its next start.
async fn killed_at(fail_point: &str, pass: u32) {
    let world = World::new().await;
    let mut receiver = receiver(&world, "receiver-1").await;
    parked(&world, 100, "x").await;
    let (id, _) = plan(&receiver, json!({"all": true}), 100).await;
    receiver
        .arm(&format!("{fail_point}=crash@{pass}"))
        .await
        .unwrap();
    start(&receiver, &id).await;
    receiver.wait(LIMIT).await.unwrap();
    receiver.start_again().await;
    ready(&receiver).await;
    let done = ended(&receiver, &id).await;
    assert_eq!(done["redriven"], json!(100), "{done}");
    counts(&world, WAITING, 0).await;
    counts(&world, MESSAGES, 100).await;
    assert_eq!(world.count(EFFECTS).await, 100);
    assert_eq!(world.count(PARKED).await, 0);
}

#[tokio::test]
async fn a_receiver_that_dies_before_the_commit_of_a_batch_has_sent_none_of_it_back() {
    killed_at("redrive.before_commit", 2).await;
}

#[tokio::test]
async fn a_receiver_that_dies_after_the_commit_of_a_batch_leaves_it_to_be_published() {
    killed_at("redrive.after_commit", 2).await;
}

#[tokio::test]
async fn a_receiver_that_dies_between_confirm_and_mark_doubles_nothing() {
    // a busy machine may publish all batches in one pass, so there may be no second
    killed_at("relay.after_confirm", 1).await;
}

#[tokio::test]
async fn what_fails_again_begins_anew_and_is_parked_again_under_the_next_number() {
    let world = World::new().await;
    let receiver = world.receiver("receiver-1").env("REDRIVE_TOKEN", TOKEN);
    let receiver = receiver.env("WORK_MAX_FAILURES", 3).start().await;
    ready(&receiver).await;
    let id = Uuid::now_v7();
    let properties = ours().with_message_id(id.to_string().into());
    let body = json!({"number": 1, "text": "poison: x"}).to_string();
    let published = world
        .broker
        .publish_raw("messages", "messages", properties, body.as_bytes());
    published.await.unwrap();
    for redrive in 0..2 {
        counts(&world, PARKED, 1).await;
        // as many failures for each time
        let failures = format!("select count(*) from receiver.failure where redrive = {redrive}");
        assert_eq!(world.count(&failures).await, 3);
        let row = format!(
            "select count(*) from receiver.dead_letter where redrive = {redrive}
            and reason like 'its work failed 3 times%'"
        );
        assert_eq!(world.count(&row).await, 1);
        let (order, _) = plan(&receiver, json!({"messages": [id]}), 100).await;
        start(&receiver, &order).await;
        ended(&receiver, &order).await;
    }
    counts(&world, PARKED, 1).await;
    let lineage =
        "select count(distinct redriven_by) from receiver.dead_letter where state = 'redriven'";
    assert_eq!(world.count(lineage).await, 2);
    assert_eq!(world.count(EFFECTS).await, 0);
}

#[tokio::test]
async fn two_orders_for_the_same_dead_letters_send_each_back_once() {
    let world = World::new().await;
    let first = receiver(&world, "receiver-1").await;
    let second = receiver(&world, "receiver-2").await;
    parked(&world, 300, "x").await;
    let (one, _) = plan(&first, json!({"all": true}), 300).await;
    let (other, _) = plan(&second, json!({"all": true}), 300).await;
    start(&first, &one).await;
    start(&second, &other).await;
    let (one, other) = (ended(&first, &one).await, ended(&second, &other).await);
    let sum = |name: &str| one[name].as_i64().unwrap() + other[name].as_i64().unwrap();
    assert_eq!(
        (sum("redriven"), sum("gone") + sum("has_effect")),
        (300, 300)
    );
    counts(&world, EFFECTS, 300).await;
    counts(&world, WAITING, 0).await;
    assert_eq!(world.count(MESSAGES).await, 300);
}

#[tokio::test]
async fn nobody_does_anything_without_the_token() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    let off = world.receiver("receiver-2").start().await;
    ready(&off).await;
    parked(&world, 1, "x").await;
    let id = Uuid::now_v7();
    let deeds = [
        API.to_owned(),
        format!("{API}/{id}/start"),
        format!("{API}/{id}/cancel"),
        "/received/api/dead-letters/discard".to_owned(),
    ];
    let body = json!({"selection": {"all": true}, "confirm": "discard 1"});
    for path in deeds {
        for (receiver, token) in [(&receiver, ""), (&receiver, "wrong"), (&off, TOKEN)] {
            let request = client().post(receiver.url() + &path).json(&body);
            let answer = request.header("X-Redrive-Token", token).send().await;
            let answer = answer.unwrap();
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
        }
    }
    assert_eq!(world.count(PARKED).await, 1);
    // with it, what is not selected is not done
    for (path, body) in [
        (API, json!({"selection": {}})),
        (API, json!({"selection": {"all": true}, "per_second": 0})),
        (
            "/received/api/dead-letters/discard",
            json!({"selection": {}, "confirm": "discard 1"}),
        ),
        (
            "/received/api/dead-letters/discard",
            json!({"selection": {"all": true}, "confirm": "1"}),
        ),
    ] {
        let (status, answer) = post(&receiver, path, body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    }
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
    // and is not sent back any more
    let (_, planned) = plan(&receiver, json!({"all": true}), 100).await;
    assert_eq!(planned["selected"], json!(3));
}

#[tokio::test]
async fn an_alarm_in_the_middle_stops_it_and_it_goes_on_afterwards() {
    let world = World::own().await;
    let receiver = receiver(&world, "receiver-1").await;
    parked(&world, 50, "x").await;
    let (id, _) = plan(&receiver, json!({"all": true}), 1_000).await;
    world.servers.alarm(true).await;
    start(&receiver, &id).await;
    ended(&receiver, &id).await;
    wait_until("the broker to block the publishes", LIMIT, async || {
        receiver.log().contains("the broker blocks publishing")
    })
    .await;
    assert_eq!(world.count(EFFECTS).await, 0);
    assert_eq!(world.count(WAITING).await, 50);
    // the consumer is not in the way of it: its own knobs still turn
    turn(&receiver, json!({"delay_min_ms": 0, "delay_max_ms": 0})).await;
    world.servers.alarm(false).await;
    counts(&world, EFFECTS, 50).await;
    counts(&world, WAITING, 0).await;
    assert_eq!(world.count(MESSAGES).await, 50);
    world.servers.end().await;
}

/// The relay of a receiver works on its tables with the statements of a sender's.
#[tokio::test]
async fn the_outbox_of_a_receiver_is_that_of_a_sender() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let receiver = receiver(&world, "receiver-1").await;
    ready(&sender).await;
    drop(receiver);
    let differ = "select count(*) from (
        select table_name::text, column_name::text, data_type::text, is_nullable::text, array_agg(table_schema::text order by table_schema::text) as schemas
          from information_schema.columns
         where table_schema in ('sender', 'receiver') and table_name in ('outbox', 'publication')
         group by 1, 2, 3, 4) as columns where schemas <> array['receiver', 'sender']";
    assert_eq!(world.count(differ).await, 0);
}
