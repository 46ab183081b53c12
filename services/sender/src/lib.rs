//! A sender: takes messages from people and programs, and sees them to the queue.
//!
//! [`messaging::send`] accepts and publishes; [`home`] is the page and [`form`] what it sends,
//! [`api`] the API for programs, [`session`] the reset of a session. All state is in Postgres: a
//! sender may die at any line, and any other takes over what it has accepted.

pub mod api;
pub mod app;
pub mod config;
pub mod form;
pub mod home;
pub mod message;
pub mod session;

use std::{process::ExitCode, sync::Arc};

use axum::Router;
use broker_part::sending::Sending;
use daemon::{lifecycle::Lifecycle, ops::Told, process::Process};
use live::{Gauges, Kind, Live};
use messaging::{guarantee::Guarantee, message::KIND, send};
use tokio::net::TcpListener;

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
    messaging::numbers::register_sender();
    web::numbers::register();
    let Process {
        node,
        parts,
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
    database.migrate_until_done(vec![send::migrator(), sqlx::migrate!()], lifecycle);
    let watching = broker_part::announced(announcer);
    let sending = &config.sending;
    let Sending {
        submissions,
        depth,
        link,
    } = broker_part::sending::send(&process, broker, sending, KIND, watching, lifecycle);
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
    // Ends when the last page that could ask is gone, which is after the stop.
    lifecycle.spawn_once("newest messages", async move {
        reader.run(|| home::newest(&pool)).await;
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
