//! What `/metrics` shows: everything from the start, at 0, so that an alert on a rate misses nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lapin::BasicProperties;
use testkit::{Process, wait_until};

use crate::{
    load::offer,
    world::{World, linked, part, ready},
};

const LIMIT: Duration = Duration::from_mins(1);

/// The numbers of ours, by name and labels.
async fn series(node: &Process) -> BTreeMap<String, f64> {
    let text = text(node).await;
    let lines = text.lines().filter(|line| line.starts_with("unacked_"));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

async fn text(node: &Process) -> String {
    let answer = reqwest::get(node.ops_url() + "/metrics").await.unwrap();
    answer.text().await.unwrap()
}

fn names(series: &BTreeMap<String, f64>) -> BTreeSet<String> {
    let name = |series: &String| series.split('{').next().unwrap_or_default().to_owned();
    series.keys().map(name).collect()
}

#[tokio::test]
async fn every_number_is_there_at_0_in_a_fresh_service_and_in_the_readme() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    ready(&receiver).await;
    let mut nodes = vec![sender, receiver];
    for words in [
        &["notes", "api"][..],
        &["notes", "worker"],
        &["leases"],
        &["signup", "api"],
        &["signup", "welcome"],
    ] {
        let name = format!("{}-1", words.join("-"));
        nodes.push(world.other(words, &name).start().await);
    }
    let mut found = BTreeSet::new();
    for node in &nodes {
        let series = series(node).await;
        for (series, value) in &series {
            let part = series.starts_with("unacked_part_up");
            assert!(part || value.abs() < 0.5, "{series} {value}");
        }
        let text = text(node).await;
        for name in names(&series) {
            let described = format!("# HELP {name} ");
            assert!(text.contains(&described), "{name} has no description");
            found.insert(name);
        }
    }
    let readme = include_str!("../../../../README.md").split('`');
    let told = readme.filter(|word| word.starts_with("unacked_"));
    let told: BTreeSet<String> = told.map(str::to_owned).collect();
    assert_eq!(found, told, "as in the README");
}

#[tokio::test]
async fn no_number_appears_only_when_it_moves() {
    let world = World::new().await;
    let sender = linked(&world, world.sender("sender-1"), &world.database.sender_url).await;
    let receiver = world.receiver("receiver-1").env("WORK_FAIL_ONE_IN", 2);
    let receiver = linked(&world, receiver, &world.database.receiver_url).await;
    let nodes = [&sender, &receiver];
    let mut before = Vec::new();
    for linked in nodes {
        ready(&linked.node).await;
        part(&linked.node, "rabbitmq", "up", LIMIT).await;
        before.push(series(&linked.node).await);
    }
    offer(&[sender.node.url()], 50, 8, Duration::ZERO).await;
    let foreign =
        world
            .broker
            .publish_raw("messages", "messages", BasicProperties::default(), b"hello");
    foreign.await.unwrap();
    for linked in nodes {
        let answer = reqwest::get(linked.node.url() + "/nowhere").await.unwrap();
        assert_eq!(answer.status(), 404);
        linked.rabbitmq.cut_rst();
    }
    let moved: [&[&str]; 2] = [
        &[
            "unacked_messages_accepted_total",
            "unacked_messages_confirmed_total",
            "unacked_sessions_broken_total",
            "unacked_http_errors_total",
        ],
        &[
            "unacked_messages_processed_total",
            "unacked_messages_redelivered_total",
            "unacked_messages_requeued_total",
            "unacked_messages_parked_total",
            "unacked_sessions_broken_total",
            "unacked_http_errors_total",
        ],
    ];
    for ((linked, moved), before) in nodes.into_iter().zip(moved).zip(before) {
        for name in moved {
            wait_until(&format!("{name} to move"), LIMIT, async || {
                linked.node.metric(name).await.is_ok_and(|now| now > 0.5)
            })
            .await;
        }
        let after = series(&linked.node).await;
        assert!(after.keys().eq(before.keys()), "{before:?}\n{after:?}");
    }
}
