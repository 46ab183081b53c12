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

use std::{process::ExitCode, sync::Arc};

use broker_part::receiving::{self, ReceiveSettings, Receiving};
use chaos::Knobs;
use daemon::{
    database::Database,
    lifecycle::Lifecycle,
    ops::{Tell, Told},
    process::Process,
    tally::Tally,
};
use live::{Gauges, Kind, KnobReader, Listener, Live};
use messaging::{
    guarantee::{Guarantee, Without},
    receive::{
        self,
        consumer::{Consumer, Deed},
        processor::Policy,
        redrive::{Lent, Outgoing, Redriver, Redrives},
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

    let work = Arc::new(process::Work {
        knobs: knobs.clone(),
        poison_prefix: config.work.work_poison_prefix.clone(),
        node: node.name.clone(),
        tally: Arc::clone(&tally),
    });
    let policy = Policy {
        max_failures: config.work_max_failures,
        max_deliveries: config.max_deliveries,
        retry: receiving::retry(&process, &broker, &config.retry, lifecycle),
    };
    let settings = ReceiveSettings {
        broker: broker.clone(),
        road: Road::MESSAGES,
        prefetch: config.prefetch,
        policy,
        without,
        inbox: &config.inbox,
        watching: watching.clone(),
    };
    let mut receiving = Receiving::new(&process, &work, settings, lifecycle);
    receiving.consumer = receiving.consumer.turned_by(knobs.clone());
    let in_hand = receiving.consumer.in_hand();
    let held = receiving.held.clone();
    let held_by_work = held.clone();
    let links = receiving.links.clone();
    let outgoing = Outgoing {
        broker,
        pool: pool.clone(),
        node: node.name.clone(),
        fail_points: fail_points.clone(),
        lent: lent(without, &receiving.consumer),
        watching: watching.clone(),
    };
    let redrives = Redrives::new(pool, work);
    let redriver = Redriver::new(&redrives, fail_points).watched(watching);
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
        let (knobs, held, link) = (knobs.clone(), held_by_work, links[0].clone());
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
    let rabbitmq = broker_part::follow(parts.part("rabbitmq"), links, stopping);
    lifecycle.spawn("broker state", rabbitmq);
    // With the last page that could ask, which is after the stop.
    lifecycle.spawn_once("results", async move {
        reader.run(|| received::read(&pages_pool)).await;
        Ok(())
    });
    redrive(lifecycle, &database, redriver, outgoing);
    receiving.start(&process, lifecycle);

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
