//! The role that takes notes and shows them.
//!
//! [`save`] takes a note from a program, [`form`] from a person; [`messaging::send::accept`] stores it with its outbox row in
//! one commit, and the relay publishes it. [`home`] shows what is saved, as JSON or as a page, and [`one`] where one note is. A
//! node may die at any line, and any other takes over what it has accepted.

pub mod app;
pub mod config;
pub mod form;
pub mod home;
pub mod one;
pub mod programs;
pub mod save;

use std::{process::ExitCode, sync::Arc};

use axum::{
    Router,
    middleware::from_fn,
    routing::{get, post},
};
use broker_part::sending::{Sending, send};
use daemon::{lifecycle::Lifecycle, ops::Told, process::Process};
use messaging::{guarantee::Guarantee, watching::Watching};
use tokio::net::TcpListener;

use crate::{cache::Cache, list::Lists, migrators, note::KIND, numbers};

pub use app::App;
pub use config::Config;

/// What this role is called as a service.
const SERVICE: &str = "notes";
/// Where it is behind the port of all services.
const PREFIX: &str = "/notes";

/// Runs an API node until a signal, and gives its exit code: 0 clean, 1 failed, 2 a wrong setting.
pub fn main_with(config: &Config) -> ExitCode {
    let start = |listener, ops_listener, lifecycle: &Lifecycle| {
        run(config, listener, ops_listener, lifecycle)
    };
    config
        .process
        .run(&config.listen, &config.ops_listen, start)
}

/// Starts an API node on the lifecycle. Servers that are away are waited for in the background.
///
/// # Errors
/// A wrong setting.
pub fn run(
    config: &Config,
    listener: TcpListener,
    ops_listener: TcpListener,
    lifecycle: &Lifecycle,
) -> anyhow::Result<()> {
    let process = config.process.begin(SERVICE)?;
    numbers::register_api();
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
    let prefix = &config.process.redis.redis_prefix;
    let sessions =
        web::session::Sessions::new(redis.clone(), parts.part("redis"), &config.sessions)
            .with_prefix(prefix);
    let cache = Cache::new(redis, prefix, &config.cache);

    database.migrate_until_done(migrators(), lifecycle);
    let (args, nobody) = (&config.sending, Watching::nobody());
    let Sending {
        submissions,
        depth,
        link,
    } = send(&process, broker, args, KIND, nobody, lifecycle);
    let app = Arc::new(App {
        lists: Lists::new(database.pool.clone(), parts.clone(), cache),
        database,
        depth,
        submissions,
        tally: Arc::default(),
    });
    let rabbitmq = broker_part::follow(parts.part("rabbitmq"), vec![link], lifecycle.stopping());
    lifecycle.spawn("broker state", rabbitmq);

    // Without RabbitMQ or Redis notes are still accepted.
    let mut off: Vec<_> = without.warnings();
    off.extend(config.cache.warning());
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
    let site = web::Site::from(web::About {
        node,
        parts,
        sessions,
        meanings: home::MEANINGS,
        guarantees_off: off,
    })
    .at("Notes", PREFIX, "/");
    let (pages, api) = routes(&app);
    let router = web::wrap(pages, api, site).layer(from_fn(programs::as_they_mean));
    daemon::http::serve(listener, router, lifecycle);
    Ok(())
}

/// At the root, as behind a port of its own, and under the name, as behind the gateway's.
fn routes(app: &Arc<App>) -> (Router, Router) {
    let home = || get(home::show).post(form::send);
    let pages = Router::new()
        .route("/", home())
        .route("/notes", home())
        .route("/notes/", home());
    let api = Router::new()
        .route("/save", post(save::save))
        .route("/notes/save", post(save::save))
        .route("/notes/{id}", get(one::show));
    (
        pages.with_state(Arc::clone(app)),
        api.with_state(Arc::clone(app)),
    )
}
