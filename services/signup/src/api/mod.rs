//! The role that people and programs meet: takes sign-ups and logins, and publishes the welcome mails.
//!
//! `create` and `login` are the deeds, `home` the page of an account; `store` commits an account with its mail,
//! `account` is its table. `token` says who somebody is, `password` whether they are, `limits` how
//! often they may try. An account is known by its token alone: no session, so neither Redis nor another node has to know
//! of anybody.

mod account;
mod answer;
mod app;
mod check;
pub mod config;
mod create;
mod home;
mod limits;
mod login;
mod numbers;
mod password;
mod store;
mod token;

use std::{process::ExitCode, sync::Arc};

use axum::{Router, middleware::from_fn, response::Redirect, routing::get};
use daemon::{lifecycle::Lifecycle, ops::Told, process::Process};
use messaging::{guarantee::Guarantee, receive, send::accept::DepthCounter, watching::Watching};
use tokio::net::TcpListener;

pub use config::Config;
pub use limits::LimitArgs;
pub use password::HashArgs;
pub use token::TokenArgs;

use app::App;

/// Where it is behind the port of all services.
const PREFIX: &str = "/signup";

/// Takes sign-ups until a signal, and gives the exit code: 0 clean, 1 failed, 2 a wrong setting.
pub fn main_with(config: &Config) -> ExitCode {
    let start = |listener, ops_listener, lifecycle: &Lifecycle| {
        run(config, listener, ops_listener, lifecycle)
    };
    config
        .process
        .run(&config.listen, &config.ops_listen, start)
}

/// Starts the role on the lifecycle. Servers that are away are waited for in the background.
///
/// # Errors
/// A wrong setting.
pub fn run(
    config: &Config,
    listener: TcpListener,
    ops_listener: TcpListener,
    lifecycle: &Lifecycle,
) -> anyhow::Result<()> {
    let process = config.process.begin("signup")?;
    messaging::numbers::register_outbox();
    web::numbers::register();
    numbers::register();
    let Process {
        node,
        parts,
        fail_points,
        database,
        redis,
        ..
    } = process.clone();
    let tokens = config.tokens.tokens()?;
    let broker = config.broker(&node.name)?;
    let without = &config.broker.without;
    let sessions = web::session::Sessions::new(redis, parts.part("redis"), &config.sessions);
    let limits = limits::Limits::new(&config.limits);
    let pool = database.pool.clone();

    // The receiving half's tables, also here: they have the outbox, and both roles share the schema.
    database.migrate_until_done(vec![receive::migrator(), sqlx::migrate!()], lifecycle);
    let watching = Watching::nobody();
    let (handover, link) =
        broker_part::sending::publish(&process, broker, &config.send, watching, lifecycle);
    let rabbitmq = broker_part::follow(parts.part("rabbitmq"), vec![link], lifecycle.stopping());
    lifecycle.spawn("broker state", rabbitmq);
    let (counter, depth) = DepthCounter::new(pool.clone());
    let stopping = lifecycle.stopping();
    lifecycle.spawn("outbox depth", async move {
        counter.run(stopping).await;
        Ok(())
    });
    let pruned = limits.clone();
    database.spawn_when_migrated("old tries and tokens", lifecycle, |stop| async move {
        pruned.prune(pool, stop).await;
        Ok(())
    });

    // Without RabbitMQ accounts are still created.
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
    let app = Arc::new(App {
        node: Arc::clone(&node),
        database,
        fail_points,
        handover,
        depth,
        outbox_max: config.send.outbox_max,
        tokens,
        hashes: password::Hashes::new(&config.hashes)?,
        limits,
        secure: config.sessions.session_secure,
    });
    let site = web::Site::from(web::About {
        node,
        parts,
        sessions,
        meanings: home::MEANINGS,
        guarantees_off: without.warnings(),
    })
    .at("Sign-up", PREFIX, "/");
    let routes = || {
        Router::new()
            .merge(home::routes())
            .merge(create::routes())
            .merge(login::routes())
    };
    // A slash too many is no other page.
    let slash = || async { Redirect::temporary(PREFIX) };
    let both = Router::new()
        .merge(routes())
        .nest(PREFIX, routes())
        .route("/signup/", get(slash))
        .with_state(app);
    let router = web::wrap(Router::new(), both, site).layer(from_fn(answer::answer_in_kind));
    daemon::http::serve(listener, router, lifecycle);
    Ok(())
}
