//! The role that saves notes.
//!
//! `write` is the work and its effect, [`messaging::receive`] everything around it, [`pace`] how fast it may go. A worker may
//! die at any line, and what it had in hand goes to another.

pub mod config;
pub mod pace;
pub mod write;

use std::{process::ExitCode, sync::Arc, time::Duration};

use broker_part::receiving::{ReceiveSettings, Receiving};
use daemon::{lifecycle::Lifecycle, ops::Told};
use messaging::{
    guarantee::Guarantee,
    receive::{processor::Policy, retry::Retry},
    watching::Watching,
};
use tokio::{net::TcpListener, sync::watch};

use self::{pace::Pace, write::Write};
use crate::{cache::Changes, migrators, note::ROAD, numbers};

pub use config::Config;

/// What this role is called as a service.
const SERVICE: &str = "notes-worker";

/// The work fails for a content that may not be, which no repetition mends: it never comes to a second failure.
const MAX_FAILURES: u32 = 1;

/// Runs a worker until a signal, and gives its exit code: 0 clean, 1 failed, 2 a wrong setting.
pub fn main_with(config: &Config) -> ExitCode {
    let start = |ops_listener, lifecycle: &Lifecycle| run(config, ops_listener, lifecycle);
    config.process.run_unseen(&config.ops_listen, start)
}

/// Starts a worker on the lifecycle. Servers that are away are waited for in the background.
///
/// # Errors
/// A wrong setting.
pub fn run(
    config: &Config,
    ops_listener: TcpListener,
    lifecycle: &Lifecycle,
) -> anyhow::Result<()> {
    let process = config.process.begin(SERVICE)?;
    numbers::register_worker();
    messaging::numbers::register_receiver(ROAD);
    let node = &process.node;
    let broker = config.broker(&node.name)?;
    let without = &config.broker.without;
    let redis_args = &config.process.redis;
    let changes = Changes::new(process.redis.clone(), &redis_args.redis_prefix);
    let (committed, commits) = watch::channel(());
    let write = Arc::new(Write {
        node: node.name.clone(),
        pace: Pace::new(config.notes_per_second),
        committed,
    });
    let settings = ReceiveSettings {
        broker,
        road: ROAD,
        prefetch: config.prefetch,
        policy: Policy {
            max_failures: MAX_FAILURES,
            max_deliveries: config.max_deliveries,
            retry: Retry::Requeue(Duration::ZERO),
        },
        without,
        inbox: &config.inbox,
        watching: Watching::nobody(),
    };
    let receiving = Receiving::new(&process, &write, settings, lifecycle);
    process.database.migrate_until_done(migrators(), lifecycle);
    let (part, links) = (process.parts.part("rabbitmq"), receiving.links.clone());
    let rabbitmq = broker_part::follow(part, links, lifecycle.stopping());
    lifecycle.spawn("broker state", rabbitmq);
    // Ends with the last commit, which is after the stop.
    lifecycle.spawn_once("changes", async move {
        tell(changes, commits).await;
        Ok(())
    });
    receiving.start(&process, lifecycle);

    let told = Told {
        ready_needs: &["postgres", "rabbitmq"],
        without: without.iter().map(Guarantee::name).collect(),
        knobs: None,
        shared_knobs: None,
        settings: config.all.clone(),
    };
    process.watch_and_tell(ops_listener, told, lifecycle);
    if without.has(Guarantee::Drain) {
        process.end_at_once(lifecycle);
    }
    without.tell();
    Ok(())
}

/// Tells the cache of each commit, those of the same moment together. A commit during the telling is told of next.
async fn tell(changes: Changes, mut commits: watch::Receiver<()>) {
    while commits.changed().await.is_ok() {
        let outcome = if changes.tell().await { "done" } else { "lost" };
        metrics::counter!(numbers::INVALIDATIONS, "outcome" => outcome).increment(1);
    }
}
