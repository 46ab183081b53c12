//! `lab prune`: what is old goes, with its rows, and nothing else does.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use lab::run::{Meta, RunDir, RunId};
use testkit::wait_until;
use tokio::process::Command;
use uuid::Uuid;

use crate::{
    load::client,
    world::{World, lab, ready},
};

/// The tables whose rows belong to messages, and how many rows each has.
const TABLES: [&str; 9] = [
    "sender.message",
    "sender.publication",
    "sender.outbox",
    "receiver.inbox",
    "receiver.processed",
    "receiver.failure",
    "receiver.delivery",
    "receiver.dead_letter",
    "receiver.given_up",
];

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    Processed,
    Parked,
    /// Nothing yet.
    Nothing,
    /// An effect, and its outbox row is still there: it may be published again.
    Unmarked,
}

/// A folder of runs that goes with the test.
struct Root(PathBuf);

impl Root {
    fn new() -> Self {
        let name = format!("lab-prune-{:016x}", rand::random::<u64>());
        Self(std::env::temp_dir().join(name))
    }

    fn run(&self, id: &str, days: i64) -> RunDir {
        let id: RunId = id.parse().unwrap();
        let mut meta = Meta::new(id.clone(), "load", 1, "");
        meta.created_at -= chrono::Duration::days(days);
        meta.ended_at = Some(meta.created_at);
        RunDir::create(&self.0, id, &meta).unwrap()
    }

    fn runs(&self) -> Vec<String> {
        let runs = RunDir::all(&self.0).unwrap();
        runs.iter().map(|run| run.id().to_string()).collect()
    }

    async fn prune(&self, url: Option<&str>, arguments: &[&str]) -> Output {
        let mut command = Command::new(lab());
        command
            .arg("--lab-dir")
            .arg(&self.0)
            .arg("prune")
            .args(arguments);
        command.env_remove("LAB_PRUNE_DATABASE_URL");
        if let Some(url) = url {
            command.env("LAB_PRUNE_DATABASE_URL", url);
        }
        command
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The tables, as the services make them, in a database of the test's own.
async fn ledger() -> World {
    let world = World::new().await;
    let (mut sender, mut receiver) = tokio::join!(
        world.sender("sender-1").start(),
        world.receiver("receiver-1").start()
    );
    for node in [&sender, &receiver] {
        wait_until(
            "the node to have made its tables",
            Duration::from_secs(30),
            async || {
                let (ready, health) = node.ready().await.unwrap_or_default();
                if ready { Ok(()) } else { Err(health) }
            },
        )
        .await;
    }
    tokio::join!(sender.kill(), receiver.kill());
    world
}

/// The superuser's way to it.
fn admin(world: &World) -> String {
    let mut url: reqwest::Url = world.servers.at.postgres.url.parse().unwrap();
    url.set_path(&world.database.name);
    url.into()
}

/// Every row that such a message may have.
async fn message(world: &World, run: Option<&str>, came: Came) -> Uuid {
    let id = Uuid::now_v7();
    let mut rows = vec![
        "insert into sender.message (message_id, text, node, run, idempotency_key) values ($1, 'x', 's', $2, $1::text)",
        "insert into sender.publication (message_id, node, try, outcome, confirm_ms) select $1, 's', 1, 'confirmed', 1 where $2 is null or true",
        "insert into receiver.failure (failure_id, message_id, node, attempt, reason) select gen_random_uuid(), $1, 'r', 1, 'x' where $2 is null or true",
        "insert into receiver.delivery (delivery_id, message_id, node, attempt, redelivered, started_at) select gen_random_uuid(), $1, 'r', 1, false, now() where $2 is null or true",
    ];
    match came {
        Came::Processed | Came::Unmarked => rows.extend([
            "insert into receiver.inbox (message_id) select $1 where $2 is null or true",
            "insert into receiver.processed (message_id, number, text, run, node, attempt, redelivered, received_at, took_ms) values ($1, 1, 'x', $2, 'r', 1, false, now(), 1)",
        ]),
        Came::Parked => rows.extend([
            "insert into receiver.dead_letter (fingerprint, redrive, message_id, body, reason, headers, node, run) values ($1::text, 0, $1, '', 'x', '{}', 'r', $2)",
            "insert into receiver.given_up (message_id, reason, attempts, node) select $1, 'x', 1, 'r' where $2 is null or true",
        ]),
        Came::Nothing => {}
    }
    if matches!(came, Came::Nothing | Came::Unmarked) {
        rows.push("insert into sender.outbox (message_id, kind, body, node, run, accepted_at) values ($1, 'k', '', 's', $2, now())");
    }
    for sql in rows {
        sqlx::query(sql)
            .bind(id)
            .bind(run)
            .execute(&world.database.admin)
            .await
            .unwrap();
    }
    id
}

/// How many rows each table has of these messages.
async fn rows(world: &World, ids: &[Uuid]) -> [i64; 9] {
    let mut counts = [0; 9];
    for (count, table) in counts.iter_mut().zip(TABLES) {
        let sql = format!("select count(*) from {table} where message_id = any($1)");
        let ask = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(ids);
        (*count,) = ask.fetch_one(&world.database.admin).await.unwrap();
    }
    counts
}

/// How many results a receiver shows.
async fn results(world: &World) -> usize {
    let receiver = world.receiver("receiver-2").start().await;
    ready(&receiver).await;
    let url = format!("{}/received/api/messages", receiver.url());
    let answer = client().get(url).send().await.unwrap();
    let shown: serde_json::Value = answer.json().await.unwrap();
    shown["messages"].as_array().unwrap().len()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn an_old_run_goes_with_the_rows_of_what_is_done_and_no_other_row_does() {
    let world = ledger().await;
    let root = Root::new();
    root.run("r-old", 9);
    root.run("r-new", 1);
    let mut done = Vec::new();
    let mut stay = Vec::new();
    for _ in 0..3 {
        done.push(message(&world, Some("r-old"), Came::Processed).await);
        done.push(message(&world, Some("r-old"), Came::Parked).await);
        stay.push(message(&world, Some("r-old"), Came::Nothing).await);
        stay.push(message(&world, Some("r-old"), Came::Unmarked).await);
        stay.push(message(&world, Some("r-new"), Came::Processed).await);
        stay.push(message(&world, None, Came::Processed).await);
    }
    let all_of_it = [6, 6, 0, 3, 3, 6, 6, 3, 3];
    assert_eq!(rows(&world, &done).await, all_of_it);
    let before = rows(&world, &stay).await;
    let url = admin(&world);

    // says it and removes nothing, for nobody can answer
    let asked = root.prune(Some(&url), &["--older-than", "7d"]).await;
    let text = said(&asked);
    assert_eq!(asked.status.code(), Some(2), "{text}");
    assert!(text.contains("r-old") && !text.contains("r-new"), "{text}");
    assert!(text.contains("6 messages in the ledger; 6 stay"), "{text}");
    assert!(text.contains("say --yes"), "{text}");
    assert_eq!(rows(&world, &done).await, all_of_it);
    assert_eq!(root.runs(), ["r-old", "r-new"]);

    let removed = root
        .prune(Some(&url), &["--older-than", "7d", "--yes"])
        .await;
    let text = said(&removed);
    assert!(removed.status.success(), "{text}");
    // of queues nothing is known here: what keeps a copy from a second effect stays
    assert!(text.contains("Rows of the inbox stay"), "{text}");
    assert_eq!(rows(&world, &done).await, [0, 0, 0, 3, 3, 0, 0, 0, 0]);
    let bare = "select count(*) from receiver.processed where processed_id < 0 and run is null and text = ''";
    assert_eq!(world.count(bare).await, 3);
    assert_eq!(results(&world).await, 9, "bare rows are no results");
    assert_eq!(rows(&world, &stay).await, before);
    // by its folder the rest can be found
    assert!(
        text.contains("The run r-old stays with 6 messages"),
        "{text}"
    );
    assert!(text.contains("Removed 0 runs and 30 rows."), "{text}");
    assert_eq!(root.runs(), ["r-old", "r-new"]);

    for table in ["sender.outbox", "sender.message"] {
        let sql = format!("delete from {table} where run = 'r-old'");
        let delete = sqlx::query(sqlx::AssertSqlSafe(sql));
        delete.execute(&world.database.admin).await.unwrap();
    }
    let rest = ["--older-than", "7d", "--yes"];
    let removed = root.prune(Some(&url), &rest).await;
    assert!(removed.status.success(), "{}", said(&removed));
    assert_eq!(root.runs(), ["r-new"]);
    let again = root.prune(Some(&url), &rest).await;
    assert!(
        said(&again).contains("nothing to remove"),
        "{}",
        said(&again)
    );
}

#[tokio::test]
async fn a_run_of_another_ledger_stays_and_the_others_go() {
    let world = ledger().await;
    let root = Root::new();
    let url = admin(&world);
    let mut ledger = world.database.admin.acquire().await.unwrap();
    let here = lab::prune::ledger::identity(&mut ledger).await.unwrap();
    for (id, ledger) in [
        ("r-there", "1/unacked"),
        ("r-here", &*here),
        ("r-own", "1/run-r-own"),
    ] {
        let run = root.run(id, 9);
        let mut meta = run.meta().unwrap();
        meta.ledger = Some(ledger.to_owned());
        run.write_meta(&meta).unwrap();
    }
    let done = message(&world, Some("r-there"), Came::Processed).await;
    let before = rows(&world, &[done]).await;
    let removed = root.prune(Some(&url), &["--keep", "0", "--yes"]).await;
    let text = said(&removed);
    assert!(removed.status.success(), "{text}");
    assert!(
        text.contains("The run r-there stays: its messages are in another ledger"),
        "{text}"
    );
    assert_eq!(root.runs(), ["r-there"]);
    assert_eq!(rows(&world, &[done]).await, before);
}

async fn now_of(ledger: &mut sqlx::PgConnection) -> chrono::DateTime<chrono::Utc> {
    lab::prune::ledger::now(ledger).await.unwrap()
}

#[tokio::test]
async fn inbox_rows_go_when_the_queues_are_empty_and_strays_go_too() {
    let world = ledger().await;
    let run: RunId = "r1".parse().unwrap();
    let done = message(&world, Some("r1"), Came::Processed).await;
    let open = message(&world, Some("r1"), Came::Nothing).await;
    let stray = message(&world, Some("r1"), Came::Processed).await;
    sqlx::query("delete from sender.message where message_id = $1")
        .bind(stray)
        .execute(&world.database.admin)
        .await
        .unwrap();
    let mut ledger = world.database.admin.acquire().await.unwrap();
    let count = lab::prune::ledger::count(&mut ledger, &run).await.unwrap();
    assert_eq!((count.done, count.open), (1, 1));
    let now = now_of(&mut ledger).await;
    let late = message(&world, Some("r1"), Came::Processed).await;
    let removed = lab::prune::ledger::remove_rows(&mut ledger, &run, Some(now))
        .await
        .unwrap();
    assert_eq!(removed, 15);
    assert_eq!(rows(&world, &[late]).await, [0, 0, 0, 1, 1, 0, 0, 0, 0]);
    let left = lab::prune::ledger::left(&mut ledger, &run).await.unwrap();
    assert_eq!(left, 1);
    assert_eq!(rows(&world, &[done, stray]).await, [0; 9]);
    assert_eq!(rows(&world, &[open]).await, [1, 1, 1, 0, 0, 1, 1, 0, 0]);
    assert_eq!(
        lab::prune::ledger::remove_rows(&mut ledger, &run, Some(now))
            .await
            .unwrap(),
        0
    );

    // the bare one goes with a later one, and no other effect does
    let other = message(&world, Some("r2"), Came::Processed).await;
    for (until, bare) in [(now, 1), (now_of(&mut ledger).await, 0)] {
        let removed = lab::prune::ledger::remove_bare(&mut ledger, until).await;
        assert_eq!(removed.unwrap(), 1 - bare);
        let counts = [0, 0, 0, 1, i64::try_from(bare).unwrap(), 0, 0, 0, 0];
        assert_eq!(rows(&world, &[late]).await, counts);
    }
    assert_eq!(rows(&world, &[other]).await[4], 1);
}

#[tokio::test]
async fn a_run_that_still_goes_stops_everything_and_a_stack_that_is_down_too() {
    let root = Root::new();
    root.run("r-old", 9);
    let going = root.run("r-going", 8);
    let record = lab::run::requests::Recorder::create(&going).unwrap();
    let refused = root.prune(None, &["--keep", "0", "--yes"]).await;
    let text = said(&refused);
    assert_eq!(
        (refused.status.code(), text.lines().count()),
        (Some(2), 1),
        "{text}"
    );
    let right = "the run r-going may still be going: process ";
    assert!(text.contains(right), "{text}");
    assert!(text.contains("nothing was removed"), "{text}");
    drop(record);

    // a stack was here: without it nobody can remove the rows
    std::fs::write(root.0.join("secrets.json"), "{}").unwrap();
    let refused = root.prune(None, &["--keep", "0", "--yes"]).await;
    let text = said(&refused);
    assert_eq!(
        (refused.status.code(), text.lines().count()),
        (Some(2), 1),
        "{text}"
    );
    assert_eq!(root.runs(), ["r-old", "r-going"]);

    std::fs::remove_file(root.0.join("secrets.json")).unwrap();
    let kept = root.prune(None, &["--keep", "1", "--yes"]).await;
    assert!(kept.status.success(), "{}", said(&kept));
    assert_eq!(root.runs(), ["r-going"], "{}", said(&kept));
    let wrong = root.prune(None, &["--yes"]).await;
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
}
