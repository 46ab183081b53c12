//! A sender: takes messages from people and programs, and sees them to the queue.
//!
//! [`submit`] accepts, [`messaging::send`] publishes; [`home`] is the page and [`form`] what it sends,
//! [`api`] the API for programs, [`session`] the reset of a session. All state is in Postgres: a
//! sender may die at any line, and any other takes over what it has accepted.

pub mod api;
pub mod app;
pub mod config;
pub mod form;
pub mod home;
pub mod message;
mod numbers;
pub mod session;
pub mod store;
pub mod submit;
pub mod text;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::Router;
use daemon::{lifecycle::Lifecycle, ops::Told, process::Process};
use live::{Gauges, Kind, Live};
use messaging::{
    Kept, bounded,
    guarantee::Guarantee,
    send::{
        self,
        outbox::{self, Depth},
        relay::{Relay, RelaySettings},
    },
};
use sqlx::PgPool;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

pub use app::App;
pub use config::Config;

/// Runs a sender until a signal, and gives its exit code: 0 clean, 1 failed, 2 a wrong setting.
pub fn main_with(config: &Config) -> ExitCode {
    let start = |listener, ops_listener, lifecycle: &Lifecycle| {
        run(config, listener, ops_listener, lifecycle)
    };
    config
        .process
        .run(&config.listen, &config.ops_listen, start)
}

/// Starts a sender on the lifecycle. Servers that are away are waited for in the background.
///
/// # Errors
/// A wrong setting.
pub fn run(
    config: &Config,
    listener: TcpListener,
    ops_listener: TcpListener,
    lifecycle: &Lifecycle,
) -> anyhow::Result<()> {
    let process = config.process.begin("sender")?;
    numbers::register();
    messaging::numbers::register_sender();
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
    let sessions = web::session::Sessions::new(redis, parts.part("redis"), &config.sessions)
        .with_prefix(&config.process.redis.redis_prefix);
    let pool = database.pool.clone();

    let redis_args = &config.process.redis;
    let Live {
        announcer,
        voice,
        listener: ears,
    } = config.live.open(&process, redis_args, lifecycle);
    let settings = RelaySettings {
        node: node.name.clone(),
        window: usize::from(config.publish_window),
        watching: broker_part::announced(announcer.clone()),
        role: "publisher",
        lent: None,
    };
    let (relay, handover, link) = Relay::new(broker, pool.clone(), settings, fail_points.clone());
    let (depth_sender, depth) = watch::channel(Depth::default());
    let since = Arc::new(AtomicI64::new(0));
    let (submissions, committer) = submit::submissions();
    let store = store::Store {
        connection: Kept::new(pool.clone()),
        node: node.name.clone(),
        outbox_max: config.outbox_max,
        handover,
        fail_points: fail_points.clone(),
        announcer,
        depth: depth.clone(),
        since: Arc::clone(&since),
    };
    let (newest, reader) = web::together();
    let app = Arc::new(App {
        node: Arc::clone(&node),
        database: database.clone(),
        parts: parts.clone(),
        sessions: sessions.clone(),
        newest,
        depth: depth.clone(),
        submissions,
        live: web::live::LivePage::new(lifecycle.stopping()),
        tally: Arc::default(),
    });

    database.migrate_until_done(vec![send::migrator(), sqlx::migrate!()], lifecycle);
    let stopping = lifecycle.stopping();
    lifecycle.spawn(
        "session index",
        sessions.clone().keep_index(stopping.clone()),
    );
    if let Some(voice) = voice {
        let (depth, link) = (depth.clone(), link.clone());
        voice.start(lifecycle, move || Gauges {
            waiting: u64::try_from(depth.borrow().waiting).unwrap_or(0),
            connected: link.borrow().is_up(),
            blocked: link.borrow().is_blocked(),
            ..Gauges::default()
        });
    }
    let rabbitmq = broker_part::follow(parts.part("rabbitmq"), vec![link], stopping.clone());
    lifecycle.spawn("broker state", rabbitmq);
    lifecycle.spawn(
        "outbox depth",
        watch_depth(pool.clone(), depth_sender, since, stopping.clone()),
    );
    database.spawn_when_migrated("relay", lifecycle, |stop| async move {
        broker_part::ended(relay.run(stop).await)
    });
    // These end when the last page that could ask is gone, which is after the stop.
    lifecycle.spawn_once("newest messages", async move {
        reader.run(|| home::newest(&pool)).await;
        Ok(())
    });
    lifecycle.spawn_once("store", async move {
        store.run(committer).await;
        Ok(())
    });

    // Without RabbitMQ or Redis a sender still accepts.
    let told = Told {
        ready_needs: &["postgres"],
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
    let pages = Router::new()
        .merge(home::routes())
        .merge(session::routes())
        .with_state(Arc::clone(&app));
    let site = web::Site::from(web::About {
        node,
        parts,
        sessions,
        meanings: home::MEANINGS,
        guarantees_off: without.warnings(),
    });
    let (drawn_by, drawn_for) = (Arc::clone(&app), site.clone());
    lifecycle.spawn("live page", async move {
        let live = drawn_by.live.clone();
        let draw = || home::drawn(&drawn_by, &drawn_for);
        live.run(ears, Kind::Accepted, draw).await;
        Ok(())
    });
    let api = api::routes().merge(home::live_routes()).with_state(app);
    daemon::http::serve(listener, web::wrap(pages, api, site), lifecycle);
    Ok(())
}

/// Counts the outbox, each second or less often when counting takes long.
async fn watch_depth(
    pool: PgPool,
    depth: watch::Sender<Depth>,
    since: Arc<AtomicI64>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let rounds = async {
        loop {
            let began = Instant::now();
            let before = since.load(Ordering::Relaxed);
            if let Ok(counted) = bounded(outbox::depth(&pool)).await {
                #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
                metrics::gauge!(numbers::OUTBOX).set(counted.waiting as f64);
                depth.send_replace(counted);
                // What was added before the count began is in it.
                since.fetch_sub(before, Ordering::Relaxed);
            }
            tokio::time::sleep((began.elapsed() * 20).max(Duration::from_secs(1))).await;
        }
    };
    stop.run_until_cancelled(rounds).await;
    Ok(())
}
