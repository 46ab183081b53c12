//! `lab load` against a gateway that answers as a script says: what it records is what it was told.

mod gateway;
mod record;

use std::process::Output;
use std::time::Duration;

use lab::run::requests::Answer;
use lab::run::{RunDir, RunId};
use nix::{sys::signal, unistd::Pid};
use serde_json::Value;
use testkit::wait_until;

use self::gateway::{Do, Gateway};
use self::record::Root;

const LIMIT: Duration = Duration::from_secs(30);

fn summary(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn every_kind(number: u64) -> &'static [Do] {
    use Do::{Answer, Away, AwayAfterAnother, Drop};
    match number {
        0 => &[Answer(202)],
        1 => &[Away("database_away"), Away("outbox_full"), Answer(202)],
        2 => &[Answer(422)],
        3 => &[Away("database_away")],
        4 => &[Drop],
        5 => &[Drop, Answer(202)],
        6 => &[Away("outcome_unknown"), Away("database_away")],
        7 => &[AwayAfterAnother("database_away")],
        8 => &[Answer(502), Answer(422)],
        _ => &[Answer(429), Answer(200)],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_was_told_is_what_is_recorded() {
    use Answer::{Accepted, Refused, Unknown};
    let (gateway, url) = Gateway::start(every_kind).await;
    let root = Root::new();
    let output = root
        .load(&format!(
            "--gateway {url} --run t1 --total 10 --rate 100 --patience 5s --json"
        ))
        .await;
    let summary = summary(&output);
    let record = root.record();
    let told: Vec<Answer> = record
        .answers()
        .into_iter()
        .map(|(answer, _)| answer)
        .collect();
    assert_eq!(
        told,
        [
            Accepted, Accepted, Refused, Refused, Unknown, Accepted, Unknown, Unknown, Unknown,
            Accepted
        ]
    );
    let tries = gateway.tries.lock().unwrap();
    let run: RunId = "t1".parse().unwrap();
    for (number, answered) in &record.answered {
        let tries = &tries[&run.key(*number)];
        assert_eq!(answered.tries as usize, tries.len(), "{number}");
        assert!(
            tries
                .iter()
                .all(|one| one.run == "t1" && one.body == tries[0].body)
        );
        let text: Value = serde_json::from_str(&tries[0].body).unwrap();
        let text = text["message"].as_str().unwrap();
        assert!(
            text.starts_with(&format!("t1 {number} ")) && text.len() == 100,
            "{text}"
        );
    }
    let tries: Vec<u32> = [0, 1, 2, 5, 8, 9]
        .map(|number| record.answered[&number].tries)
        .into();
    assert_eq!(tries, [1, 3, 1, 2, 2, 2]);
    // repeated until patience ended
    for number in [3, 4, 6, 7] {
        assert!(record.answered[&number].tries >= 4, "{record:?}");
    }
    let dues: Vec<u64> = record.offered.values().map(|one| one.due_us).collect();
    assert_eq!(dues, (0..10).map(|n| n * 10_000).collect::<Vec<u64>>());
    let counts = ["offered", "accepted", "refused", "never_sent", "unknown"]
        .map(|name| summary[name].as_u64());
    assert_eq!(counts, [10, 4, 2, 0, 4].map(Some));
    let retries: u32 = record.answered.values().map(|one| one.tries - 1).sum();
    assert_eq!(summary["retries"], retries);
    let meta = RunDir::open(&root.0, &run).unwrap().meta().unwrap();
    assert!(meta.started_at.is_some() && meta.ended_at > meta.started_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedule_does_not_wait_for_answers() {
    let (gateway, url) = Gateway::start(|_| &[Do::Wait]).await;
    let root = Root::new();
    let child = root.start(&format!(
        "--gateway {url} --run t1 --total 40 --rate 100 --connections 2 --json"
    ));
    wait_until("all requests to be offered", LIMIT, async || {
        let record = root.record();
        if record.offered.len() == 40 {
            Ok(())
        } else {
            Err(record)
        }
    })
    .await;
    assert_eq!(
        gateway.tries.lock().unwrap().len(),
        2,
        "the bound of connections"
    );
    assert!(root.record().answered.is_empty());
    gateway.gate.add_permits(40);
    let summary = summary(&child.wait_with_output().await.unwrap());
    assert_eq!(summary["accepted"], 40);
    // all waited until the last one was due, 390 ms after the first
    let record = root.record();
    assert!(record.answered[&0].done_us >= 390_000, "{record:?}");
    // and the waiting of those that were not even sent counts from when they were due
    let waited = |number| record.answered[&number].done_us - record.offered[&number].due_us;
    assert!(
        (0..20).all(|number| waited(number) >= 200_000),
        "{record:?}"
    );
    let most = summary["accepted_us"]["max"].as_u64();
    assert!(most >= Some(390_000), "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_stopped_has_an_answer_for_each_request() {
    // every tenth is never answered
    let (_gateway, url) = Gateway::start(|number| match number % 10 {
        9 => &[Do::Wait],
        _ => &[Do::Answer(202)],
    })
    .await;
    let root = Root::new();
    let child = root.start(&format!(
        "--gateway {url} --run t1 --for 1h --rate 200 --json"
    ));
    wait_until("some requests to be answered", LIMIT, async || {
        let record = root.record();
        if record.answered.len() > 50 {
            Ok(())
        } else {
            Err(record)
        }
    })
    .await;
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    signal::kill(pid, signal::Signal::SIGINT).unwrap();
    let summary = summary(&child.wait_with_output().await.unwrap());
    let record = root.record();
    assert_eq!(summary["stopped"], true);
    assert_eq!(summary["offered"], record.offered.len());
    assert_eq!(record.offered.len(), record.answered.len());
    for (number, answered) in &record.answered {
        let expected = match number % 10 {
            9 => (Answer::Unknown, 1),
            _ => (Answer::Accepted, 1),
        };
        // what was due at the very moment of the stop was not sent any more
        let told = (answered.answer, answered.tries);
        assert!(
            told == expected || told == (Answer::Refused, 0),
            "{number}: {told:?}"
        );
    }
    assert!(record.answers().contains(&(Answer::Unknown, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_and_batches_are_sent_as_they_are_recorded() {
    let (gateway, url) = Gateway::start(|_| &[Do::Answer(202)]).await;
    let root = Root::new();
    let output = root
        .load(&format!(
            "--gateway {url} --run t1 --total 40 --rate 400 --batch 3 --poison 7 --seed 5"
        ))
        .await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && said.contains("accepted            40"),
        "{said}"
    );
    assert!(said.contains("audit --run t1"), "{said}");
    let record = root.record();
    assert_eq!(record.offered.values().filter(|one| one.poison).count(), 7);
    let tries = gateway.tries.lock().unwrap();
    let run: RunId = "t1".parse().unwrap();
    for (number, offered) in &record.offered {
        assert_eq!(offered.messages, 3);
        let body: Vec<Value> = serde_json::from_str(&tries[&run.key(*number)][0].body).unwrap();
        let poison = |one: &Value| one["message"].as_str().unwrap().starts_with("poison:");
        assert_eq!(
            body.iter().filter(|one| poison(one)).count(),
            if offered.poison { 3 } else { 0 }
        );
        assert_eq!(body.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_one_line_and_nothing_begins() {
    let (gateway, url) = Gateway::start(|_| &[Do::Answer(202)]).await;
    let root = Root::new();
    for (arguments, reason) in [
        ("--rate 0", "--rate"),
        ("--rate -5", "--rate"),
        ("--rate 1e9", "--rate"),
        ("--rate 1000000000", "too high"),
        ("--rate 5..x", "--rate"),
        ("--for 0s", "--for"),
        ("--for 30", "--for"),
        ("--total 0", "--total"),
        ("--total -1", "--total"),
        ("--connections 0", "--connections"),
        ("--size 0", "--size"),
        ("--size 10001", "--size"),
        ("--batch 0", "--batch"),
        ("--poison 31 --total 30", "--poison"),
        ("--patience 0s", "--patience"),
        ("--run ../x", "--run"),
        ("--gateway http://127.0.0.1:1", "no gateway answers"),
        ("--gateway nonsense", "gateway"),
    ] {
        let output = if arguments.contains("--gateway") {
            root.load(arguments).await
        } else {
            root.load(&format!("{arguments} --gateway {url}")).await
        };
        refused(&output, reason);
        assert!(!root.0.exists(), "{arguments:?}");
    }
    // no stack in this folder
    refused(&root.load("--total 1").await, "no stack runs");
    assert!(gateway.tries.lock().unwrap().is_empty());

    let once = format!("--gateway {url} --total 1 --run t1");
    assert!(root.load(&once).await.status.success());
    refused(&root.load(&once).await, "exists");
    assert_eq!(gateway.tries.lock().unwrap().len(), 1);
}

#[track_caller]
fn refused(output: &Output, reason: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.lines().count() == 1 && said.contains(reason), "{said}");
    assert!(output.stdout.is_empty());
}
