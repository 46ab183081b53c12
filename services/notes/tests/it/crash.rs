//! The process dies between two lines, comes back, and each note that was accepted is saved once.

use futures::future::join_all;
use reqwest::StatusCode;
use testkit::Process;

use crate::world::{LIMIT, World, ready, started};

const NOTES: usize = 20;

/// Sends notes through both roles, one of which dies at the fail point and is started again.
async fn die_at(fail_point: &str) -> (World, Process, Process) {
    let world = World::new().await;
    let spec = format!("{fail_point}=crash@1");
    let api_dies = fail_point.starts_with("submit") || fail_point.starts_with("relay");
    let (mut api, mut worker) = (world.api("notes-1"), world.worker("worker-1"));
    if api_dies {
        api = api.env("FAIL_POINTS", &spec);
    } else {
        worker = worker.env("FAIL_POINTS", &spec);
    }
    let (mut api, mut worker) = (started(api).await, started(worker).await);
    let url = api.url();
    let victim = if api_dies { &mut api } else { &mut worker };
    let revive = async {
        let status = victim.wait(LIMIT).await.expect("it dies at the fail point");
        assert!(!status.success(), "it crashed: {status}");
        victim.set_env("FAIL_POINTS", "");
        victim.start_again().await;
    };
    let offer = join_all((0..NOTES).map(|n| {
        let (world, url) = (&world, &url);
        async move { world.offer(url, &format!("note {n}")).await }
    }));
    tokio::join!(offer, revive);
    world.saved_once(NOTES).await;
    (world, api, worker)
}

#[tokio::test]
async fn dying_before_the_commit_of_a_submission_stores_nothing_and_the_repetition_is_one_note() {
    die_at("submit.before_commit").await;
}

#[tokio::test]
async fn dying_after_the_commit_of_a_submission_is_found_out_by_the_repetition() {
    let world = World::new().await;
    let api = world
        .api("notes-1")
        .env("FAIL_POINTS", "submit.after_commit=crash@1");
    let mut api = started(api).await;
    world.post(&api.url(), "k", "a").await.unwrap_err();
    api.wait(LIMIT).await.unwrap();
    assert_eq!(world.count("select count(*) from notes.message").await, 1);
    api.set_env("FAIL_POINTS", "");
    api.start_again().await;
    ready(&api).await;
    let again = world.post(&api.url(), "k", "a").await.unwrap();
    assert_eq!(again.status, StatusCode::ACCEPTED);
    let _worker = started(world.worker("worker-1")).await;
    world.state(&api.url(), again.id(), "saved").await;
    world.saved_once(1).await;
}

#[tokio::test]
async fn dying_between_confirm_and_mark_publishes_twice_and_saves_once() {
    die_at("relay.after_confirm").await;
}

#[tokio::test]
async fn dying_before_the_commit_of_an_effect_saves_it_later() {
    die_at("consumer.before_commit").await;
}

#[tokio::test]
async fn dying_between_the_effect_and_the_ack_has_it_delivered_again_and_saved_once() {
    let (_world, _api, worker) = die_at("settle.before_ack").await;
    let known = worker
        .metric("unacked_messages_duplicate_total")
        .await
        .unwrap();
    assert!(known >= 1.0, "{known}");
}
