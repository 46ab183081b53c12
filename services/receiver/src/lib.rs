//! A receiver: takes messages from the queue, works on them, and stores the effect of each once.
//!
//! [`process`] is the work, [`messaging::receive`] everything around it; [`received`] is the page. All
//! state is in Postgres and in the queue: a receiver may die at any line, and what it had in hand goes
//! to another.

pub mod app;
pub mod config;
pub mod dead_letters;
pub mod process;
pub mod processed;
pub mod received;
pub mod redrives;

use std::{process::ExitCode, sync::Arc, time::Duration};

use chaos::FailPoints;
use daemon::{database::Database, lifecycle::Lifecycle, ops::Told, process::Process, tally::Tally};
use messaging::{
    connection::Broker,
    guarantee::{Guarantee, Without},
    receive::{
        self,
        consumer::{Consumer, Deed},
        dead_letter::{self, Parking},
        history,
        ladder::ladder,
        manner::Manner,
        processor::{self, Policy},
        redrive::{Lent, Outgoing, Redriver, Redrives},
        retry::{Retry, RetryBy},
        window::Pruner,
    },
    topology,
};
use tokio::net::TcpListener;

pub use app::App;
pub use config::Config;

/// Runs a receiver until a signal, and gives its exit code: 0 clean, 1 failed, 2 a wrong setting.
pub fn main_with(config: &Config) -> ExitCode {
    let start = |listener, ops_listener, lifecycle: &Lifecycle| {
        run(config, listener, ops_listener, lifecycle)
    };
    config
        .process
        .run(&config.listen, &config.ops_listen, start)
}

/// Starts a receiver on the lifecycle. Servers that are away are waited for in the background.
///
/// # Errors
/// A wrong setting.
pub fn run(
    config: &Config,
    listener: TcpListener,
    ops_listener: TcpListener,
    lifecycle: &Lifecycle,
) -> anyhow::Result<()> {
    let process = config.process.begin("receiver")?;
    messaging::numbers::register_receiver();
    web::numbers::register();
    let Process {
        node,
        parts,
        fail_points,
        database,
        redis,
        ..
    } = process.clone();
    let broker = config.broker(&node.name)?;
    let without = &config.broker.without;
    let knobs = config.work.knobs()?;
    let sessions = web::session::Sessions::new(redis, parts.part("redis"), &config.sessions)
        .with_prefix(&config.process.redis.redis_prefix);
    let pool = database.pool.clone();
    let tally = Arc::<Tally>::default();

    let (history, recorder) = history::history(pool.clone(), node.name.clone());
    let work = Arc::new(process::Work {
        knobs: knobs.clone(),
        poison_prefix: config.work.work_poison_prefix.clone(),
        node: node.name.clone(),
        tally: Arc::clone(&tally),
    });
    let policy = Policy {
        max_failures: config.work_max_failures,
        max_deliveries: config.max_deliveries,
        retry: retry(config, &broker, &fail_points, lifecycle),
    };
    let (processor, looker, committer) = processor::processor(
        pool.clone(),
        node.name.clone(),
        Arc::clone(&work),
        policy,
        without,
        fail_points.clone(),
        history,
    );
    let held = processor.held();
    let pruner = Pruner::new(pool.clone(), &config.inbox);
    let (consumer, link) = Consumer::new(
        broker.clone(),
        "consumer",
        topology::MESSAGES,
        Manner::new(config.prefetch, without),
        fail_points.clone(),
        Arc::new(processor),
    );
    let outgoing = Outgoing {
        broker: broker.clone(),
        pool: pool.clone(),
        node: node.name.clone(),
        fail_points: fail_points.clone(),
        lent: lent(without, &consumer),
    };
    let redrives = Redrives::new(pool.clone(), Arc::clone(&work));
    let redriver = Redriver::new(&redrives, fail_points.clone());
    let parking = Parking::new(pool, node.name.clone(), work, fail_points.clone());
    let (dead_letters, parking_link) = Consumer::new(
        broker,
        "dead letters",
        topology::DEAD,
        Manner::safe(dead_letter::PREFETCH),
        fail_points.clone(),
        Arc::new(parking),
    );
    let (results, reader) = web::together();
    let pages_pool = database.pool.clone();
    let app = Arc::new(App {
        node: Arc::clone(&node),
        database: database.clone(),
        parts: parts.clone(),
        sessions: sessions.clone(),
        results,
        held,
        tally,
    });

    database.migrate_until_done(vec![receive::migrator(), sqlx::migrate!()], lifecycle);
    let stopping = lifecycle.stopping();
    lifecycle.spawn(
        "session index",
        sessions.clone().keep_index(stopping.clone()),
    );
    let links = vec![link, parking_link];
    let rabbitmq = broker_part::follow(parts.part("rabbitmq"), links, stopping);
    lifecycle.spawn("broker state", rabbitmq);
    // These end with the last delivery, which is after the stop.
    lifecycle.spawn_once("looks", async move {
        looker.run().await;
        Ok(())
    });
    lifecycle.spawn_once("effects", async move {
        committer.run().await;
        Ok(())
    });
    lifecycle.spawn_once("history", async move {
        recorder.run().await;
        Ok(())
    });
    // With the last page that could ask, which is after the stop.
    lifecycle.spawn_once("results", async move {
        reader.run(|| received::read(&pages_pool)).await;
        Ok(())
    });
    prune(lifecycle, database.clone(), pruner);
    redrive(lifecycle, database.clone(), redriver, outgoing);
    consume(lifecycle, "consumer", database.clone(), consumer);
    consume(lifecycle, "dead letters", database, dead_letters);

    let told = Told {
        ready_needs: &["postgres", "rabbitmq"],
        without: without.iter().map(Guarantee::name).collect(),
        knobs: Some(knobs),
        settings: config.all.clone(),
    };
    process.watch_and_tell(ops_listener, told, lifecycle);
    if without.has(Guarantee::Drain) {
        process.end_at_once(lifecycle);
    }
    without.tell();
    let redrives = redrives::api(redrives, config.redrive_token.as_deref());
    let pages = received::pages().with_state(Arc::clone(&app));
    let api = received::api().with_state(app).merge(redrives);
    let site = web::Site::from(web::About {
        node,
        parts,
        sessions,
        meanings: received::MEANINGS,
        guarantees_off: without.warnings(),
    });
    daemon::http::serve(listener, web::wrap(pages, api, site), lifecycle);
    Ok(())
}

/// How a failed message comes back. The ladder ends with the last delivery, which is after the stop.
fn retry(
    config: &Config,
    broker: &Broker,
    fail_points: &FailPoints,
    lifecycle: &Lifecycle,
) -> Retry {
    match config.retry.retry {
        RetryBy::Requeue => Retry::Requeue(Duration::from_millis(config.retry.retry_hold_ms)),
        RetryBy::Ladder => {
            let rungs = config.retry.retry_ladder_ms.clone();
            let (ladder, climber) = ladder(broker.clone(), rungs, fail_points.clone());
            lifecycle.spawn_once(
                "ladder",
                async move { broker_part::ended(climber.run().await) },
            );
            Retry::Ladder(ladder)
        }
    }
}

/// The connection on which dead letters are sent back, if it is not one of their own.
fn lent<D: Deed>(without: &Without, consumer: &Consumer<D>) -> Option<Lent> {
    without
        .has(Guarantee::SeparateConnections)
        .then(|| consumer.lend())
}

/// Sends dead letters back, when somebody has ordered it.
fn redrive(
    lifecycle: &Lifecycle,
    database: Database,
    redriver: Redriver<process::Work>,
    outgoing: Outgoing,
) {
    let (stop, tables) = (lifecycle.stopping(), database.clone());
    lifecycle.spawn("redrives", async move {
        if stop.run_until_cancelled(tables.migrated()).await.is_some() {
            redriver.run(stop).await;
        }
        Ok(())
    });
    let stop = lifecycle.stopping();
    lifecycle.spawn("redrive relay", async move {
        if stop
            .run_until_cancelled(database.migrated())
            .await
            .is_none()
        {
            return Ok(());
        }
        broker_part::ended(outgoing.run(stop).await)
    });
}

/// Keeps the inbox small as soon as there is one.
fn prune(lifecycle: &Lifecycle, database: Database, pruner: Pruner) {
    let stop = lifecycle.stopping();
    lifecycle.spawn("inbox window", async move {
        if stop
            .run_until_cancelled(database.migrated())
            .await
            .is_some()
        {
            pruner.run(stop).await;
        }
        Ok(())
    });
}

/// Takes deliveries as soon as there are tables to store anything in.
fn consume<D: Deed + 'static>(
    lifecycle: &Lifecycle,
    name: &'static str,
    database: Database,
    consumer: Consumer<D>,
) {
    let stop = lifecycle.stopping();
    lifecycle.spawn(name, async move {
        if stop
            .run_until_cancelled(database.migrated())
            .await
            .is_none()
        {
            return Ok(());
        }
        broker_part::ended(consumer.run(stop).await)
    });
}
