//! A seeded storm of cuts, pauses and kills over the whole road, with load all the while.
//!
//! `STORM_SECS` (60) and `STORM_SEED` set it: a long one is
//! `STORM_SECS=1200 cargo test -p lab --test it storm -- --nocapture` with the servers of `lab servers`.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use testkit::Direction;
use uuid::Uuid;

use crate::{
    load::post,
    world::{Linked, World, linked, ready},
};

/// A setting of the test run.
fn setting(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "tests have no config.rs")]
    std::env::var(name)
        .ok()
        .map_or(default, |value| value.parse().expect("a number"))
}

#[derive(Debug, Clone, Copy)]
enum Harm {
    CutRabbit,
    EndRabbit,
    CutPostgres,
    Silence(Direction),
    SilencePostgres,
    Pause,
    Kill,
}

const HARMS: [Harm; 8] = [
    Harm::CutRabbit,
    Harm::EndRabbit,
    Harm::CutPostgres,
    Harm::Silence(Direction::Down),
    Harm::Silence(Direction::Up),
    Harm::SilencePostgres,
    Harm::Pause,
    Harm::Kill,
];

#[tokio::test]
async fn a_storm_of_cuts_pauses_and_kills_loses_nothing_and_doubles_nothing() {
    let (secs, seed) = (setting("STORM_SECS", 60), setting("STORM_SEED", 7));
    let world = World::new().await;
    let mut nodes = Vec::new();
    for n in 1..=2 {
        let program = world.sender(&format!("sender-{n}"));
        nodes.push(linked(&world, program, &world.database.sender_url).await);
    }
    for n in 1..=3 {
        let program = world.receiver(&format!("receiver-{n}"));
        let program = program
            .env("WORK_DELAY_MAX_MS", 100)
            .env("WORK_FAIL_ONE_IN", 5);
        nodes.push(linked(&world, program, &world.database.receiver_url).await);
    }
    for linked in &nodes {
        ready(&linked.node).await;
    }
    let urls: Vec<String> = nodes[..2].iter().map(|linked| linked.node.url()).collect();
    let over = AtomicBool::new(false);
    let load = futures::future::join_all((0..8).map(|client| client_until(&urls, client, &over)));
    let storm = async {
        let end = Instant::now() + Duration::from_secs(secs);
        let mut random = StdRng::seed_from_u64(seed);
        let mut harms = 0;
        // Every kind at least once, then by chance.
        while Instant::now() < end || harms < HARMS.len() {
            let harm = HARMS
                .get(harms)
                .copied()
                .unwrap_or(HARMS[random.random_range(0..HARMS.len())]);
            let victim = random.random_range(0..nodes.len());
            strike(&mut nodes[victim], harm, &mut random).await;
            harms += 1;
        }
        over.store(true, Ordering::Relaxed);
        harms
    };
    let (accepted, harms) = tokio::join!(load, storm);
    let accepted: usize = accepted.into_iter().sum();
    let audit = world.drained(Duration::from_mins(2)).await;
    println!(
        "storm: seed {seed}, {secs} s, {harms} harms, {accepted} messages, none lost, none twice"
    );
    audit.assert_exactly_once(accepted);
}

/// One client: a message about every 200 ms, each repeated until some sender says yes.
async fn client_until(urls: &[String], client: usize, over: &AtomicBool) -> usize {
    let mut accepted = 0;
    while !over.load(Ordering::Relaxed) {
        let key = Uuid::new_v4().to_string();
        let mut turn = client;
        while !post(&urls[turn % urls.len()], &key, "in the storm")
            .await
            .is_ok_and(|a| a.status == 202)
        {
            turn += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        accepted += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    accepted
}

/// Does the harm for as long as the seed says, then undoes it.
async fn strike(victim: &mut Linked, harm: Harm, random: &mut StdRng) {
    let millis = |random: &mut StdRng, most| Duration::from_millis(random.random_range(100..most));
    match harm {
        Harm::CutRabbit => {
            victim.rabbitmq.cut_rst();
        }
        Harm::EndRabbit => {
            victim.rabbitmq.cut_fin();
        }
        Harm::CutPostgres => {
            victim.postgres.cut_rst();
        }
        Harm::Silence(direction) => {
            victim.rabbitmq.freeze(direction);
            tokio::time::sleep(millis(random, 8_000)).await;
            victim.rabbitmq.thaw();
        }
        Harm::SilencePostgres => {
            victim.postgres.freeze(Direction::Up);
            tokio::time::sleep(millis(random, 8_000)).await;
            victim.postgres.thaw();
        }
        // Longer than a lease and than two heartbeats, at times.
        Harm::Pause => {
            victim.node.pause();
            tokio::time::sleep(millis(random, 15_000)).await;
            victim.node.resume();
        }
        Harm::Kill => {
            victim.node.kill().await;
            tokio::time::sleep(millis(random, 3_000)).await;
            victim.node.start_again().await;
        }
    }
    tokio::time::sleep(millis(random, 1_500)).await;
}
