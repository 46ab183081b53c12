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

use chaos::{FailPoints, Knobs};
use daemon::{
    database::Database,
    lifecycle::Lifecycle,
    ops::{Tell, Told},
    process::Process,
    tally::Tally,
};
use live::{Gauges, Kind, KnobReader, Listener, Live};
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
    topology::Road,
};
use serde_json::json;
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
    messaging::numbers::register_receiver(Road::MESSAGES);
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
    let knobs = config.work.knobs(config.prefetch)?;
    let redrive_token = config.redrive_token()?;
    let sessions = web::session::Sessions::new(redis, parts.part("redis"), &config.sessions)
        .with_prefix(&config.process.redis.redis_prefix);
    let redis_args = &config.process.redis;
    let Live {
        announcer,
        voice,
        listener: ears,
    } = config.live.open(&process, redis_args, lifecycle);
    let watching = broker_part::announced(announcer);
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
    let (processor, loops) = processor::processor(
        pool.clone(),
        node.name.clone(),
        Arc::clone(&work),
        policy,
        without,
        fail_points.clone(),
        history,
    );
    let processor = processor.watched(watching.clone());
    let held = processor.held();
    let held_by_work = held.clone();
    let pruner = Pruner::new(pool.clone(), &config.inbox);
    let (consumer, link) = Consumer::new(
        broker.clone(),
        "consumer",
        Road::MESSAGES.messages,
        Manner::new(config.prefetch, without),
        fail_points.clone(),
        Arc::new(processor),
    );
    let consumer = consumer.turned_by(knobs.clone());
    let in_hand = consumer.in_hand();
    let outgoing = Outgoing {
        broker: broker.clone(),
        pool: pool.clone(),
        node: node.name.clone(),
        fail_points: fail_points.clone(),
        lent: lent(without, &consumer),
        watching: watching.clone(),
    };
    let redrives = Redrives::new(pool.clone(), Arc::clone(&work));
    let redriver = Redriver::new(&redrives, fail_points.clone()).watched(watching.clone());
    let parking = Parking::new(pool, node.name.clone(), work, fail_points.clone());
    let parking = parking.watched(watching);
    let (dead_letters, parking_link) = Consumer::new(
        broker,
        "dead letters",
        Road::MESSAGES.dead,
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
        live: web::live::LivePage::new(lifecycle.stopping()),
        tally,
    });

    database.migrate_until_done(vec![receive::migrator(), sqlx::migrate!()], lifecycle);
    let stopping = lifecycle.stopping();
    lifecycle.spawn(
        "session index",
        sessions.clone().keep_index(stopping.clone()),
    );
    if let Some(voice) = voice {
        let (knobs, held, link) = (knobs.clone(), held_by_work, link.clone());
        let bounded = !without.has(Guarantee::Prefetch);
        voice.start(lifecycle, move || Gauges {
            in_hand: in_hand.now() as u64,
            prefetch: u64::from(knobs.now().prefetch) * u64::from(bounded),
            held: held.borrow().count as u64,
            connected: link.borrow().is_up(),
            blocked: link.borrow().is_blocked(),
            ..Gauges::default()
        });
    }
    let shared_knobs = share_knobs(config, &process, knobs.clone(), ears.clone(), lifecycle);
    let links = vec![link, parking_link];
    let rabbitmq = broker_part::follow(parts.part("rabbitmq"), links, stopping);
    lifecycle.spawn("broker state", rabbitmq);
    // These end with the last delivery, which is after the stop.
    lifecycle.spawn_once("looks", async move {
        loops.looks.run().await;
        Ok(())
    });
    lifecycle.spawn_once("failures", async move {
        loops.failures.run().await;
        Ok(())
    });
    lifecycle.spawn_once("effects", async move {
        loops.effects.run().await;
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
    prune(lifecycle, &database, pruner);
    redrive(lifecycle, &database, redriver, outgoing);
    consume(lifecycle, "consumer", &database, consumer);
    consume(lifecycle, "dead letters", &database, dead_letters);

    let told = Told {
        ready_needs: &["postgres", "rabbitmq"],
        without: without.iter().map(Guarantee::name).collect(),
        knobs: Some(knobs),
        shared_knobs: Some(shared_knobs),
        settings: config.all.clone(),
    };
    process.watch_and_tell(ops_listener, told, lifecycle);
    if without.has(Guarantee::Drain) {
        process.end_at_once(lifecycle);
    }
    without.tell();
    let redrives = redrives::api(redrives, redrive_token);
    let pages = received::pages().with_state(Arc::clone(&app));
    let api = received::api().with_state(Arc::clone(&app)).merge(redrives);
    let site = web::Site::from(web::About {
        node,
        parts,
        sessions,
        meanings: received::MEANINGS,
        guarantees_off: without.warnings(),
    });
    let drawn_for = site.clone();
    lifecycle.spawn("live page", async move {
        let draw = || received::drawn(&app, &drawn_for);
        app.live.clone().run(ears, Kind::Processed, draw).await;
        Ok(())
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

/// Keeps the knobs as all nodes are told; gives what says so on the ops port.
fn share_knobs(
    config: &Config,
    process: &Process,
    knobs: Knobs,
    ears: Listener,
    lifecycle: &Lifecycle,
) -> Tell {
    let prefix = &config.process.redis.redis_prefix;
    let (redis, name) = (process.redis.clone(), &process.node.name);
    let reader = KnobReader::new(redis, prefix, name, knobs, ears);
    let applied = reader.applied();
    let stopping = lifecycle.stopping();
    lifecycle.spawn("shared knobs", async move {
        reader.run(stopping).await;
        Ok(())
    });
    Arc::new(move || json!(*applied.borrow()))
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
    database: &Database,
    redriver: Redriver<process::Work>,
    outgoing: Outgoing,
) {
    database.spawn_when_migrated("redrives", lifecycle, |stop| async move {
        redriver.run(stop).await;
        Ok(())
    });
    database.spawn_when_migrated("redrive relay", lifecycle, |stop| async move {
        broker_part::ended(outgoing.run(stop).await)
    });
}

/// Keeps the inbox small as soon as there is one.
fn prune(lifecycle: &Lifecycle, database: &Database, pruner: Pruner) {
    database.spawn_when_migrated("inbox window", lifecycle, |stop| async move {
        pruner.run(stop).await;
        Ok(())
    });
}

/// Takes deliveries as soon as there are tables to store anything in.
fn consume<D: Deed + 'static>(
    lifecycle: &Lifecycle,
    name: &'static str,
    database: &Database,
    consumer: Consumer<D>,
) {
    database.spawn_when_migrated(name, lifecycle, |stop| async move {
        broker_part::ended(consumer.run(stop).await)
    });
}
