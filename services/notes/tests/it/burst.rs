//! Many notes at once: they are accepted as ever, and wait for the workers.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use reqwest::StatusCode;
use testkit::wait_until;

use crate::world::{LIMIT, World, started};

#[tokio::test]
async fn a_burst_while_the_worker_is_paused_is_accepted_and_only_waits() {
    const NOTES: usize = 20_000;
    let world = World::new().await;
    let (api, worker) = world.both().await;
    let url = api.url();
    worker.pause();
    let times = stream::iter(0..NOTES)
        .map(|n| {
            let (world, url) = (&world, &url);
            async move {
                let began = Instant::now();
                let said = world
                    .post(url, &format!("k{n}"), &format!("note {n}"))
                    .await
                    .unwrap();
                assert_eq!(said.status, StatusCode::ACCEPTED, "{said:?}");
                began.elapsed()
            }
        })
        .buffer_unordered(64);
    let mut times: Vec<Duration> = times.collect().await;
    times.sort_unstable();
    let most = times[NOTES * 99 / 100];
    assert!(
        most < Duration::from_secs(2),
        "99 of 100 were answered within {most:?}"
    );
    assert_eq!(world.count("select count(*) from notes.processed").await, 0);
    let said = world.get(&url, "/").await;
    assert!(
        said.contents().is_empty(),
        "the API answers, and nothing is saved yet"
    );
    worker.resume();
    world.saved_once(NOTES).await;
}

#[tokio::test]
async fn two_of_each_role_share_the_work() {
    const NOTES: usize = 2_000;
    let world = World::new().await;
    let apis = [
        started(world.api("notes-1")).await,
        started(world.api("notes-2")).await,
    ];
    let _workers = [
        started(world.worker("worker-1")).await,
        started(world.worker("worker-2")).await,
    ];
    let urls = apis.each_ref().map(testkit::Process::url);
    stream::iter(0..NOTES)
        .for_each_concurrent(32, |n| {
            let (world, url) = (&world, &urls[n % 2]);
            async move {
                let said = world.post(url, &format!("k{n}"), "a").await.unwrap();
                assert_eq!(said.status, StatusCode::ACCEPTED, "{said:?}");
            }
        })
        .await;
    world.saved_once(NOTES).await;
    for table in ["message", "processed"] {
        let nodes = format!("select count(distinct node) from notes.{table}");
        assert_eq!(world.count(&nodes).await, 2, "{table}");
    }
}

#[tokio::test]
async fn the_database_sees_the_workers_own_rate() {
    const RATE: usize = 50;
    let world = World::new().await;
    let api = started(world.api("notes-1")).await;
    let url = api.url();
    let posted = AtomicUsize::new(0);
    stream::iter(0..200)
        .for_each_concurrent(32, |n| {
            let (world, url, posted) = (&world, &url, &posted);
            async move {
                world.post(url, &format!("k{n}"), "a").await.unwrap();
                posted.fetch_add(1, Ordering::Relaxed);
            }
        })
        .await;
    assert_eq!(posted.into_inner(), 200);
    let _worker = started(world.worker("worker-1").env("NOTES_PER_SECOND", RATE)).await;
    wait_until("some to be saved", LIMIT, async || {
        world.count("select count(*) from notes.processed").await >= 150
    })
    .await;
    // Counted by the times of the rows, of which the first second may have begun anywhere.
    let most = "select max(rows) from (select count(*) as rows from notes.processed as a
                  join notes.processed as b on b.processed_at >= a.processed_at
                                           and b.processed_at < a.processed_at + interval '1 s'
                 group by a.processed_id) as seconds";
    let most = world.count(most).await;
    assert!((40..=70).contains(&most), "{most} in a second");
}
