//! A lease queue over HTTP: messages are pushed, leased for a while, and confirmed.

pub mod config;

use std::process::ExitCode;

use axum::Router;
use daemon::{lifecycle::Lifecycle, ops::Told, process::Process};
use tokio::net::TcpListener;

pub use config::Config;

/// Runs a node until a signal, and gives its exit code: 0 clean, 1 failed, 2 a wrong setting.
pub fn main_with(config: &Config) -> ExitCode {
    let start = |listener, ops_listener, lifecycle: &Lifecycle| {
        run(config, listener, ops_listener, lifecycle)
    };
    config
        .process
        .run(&config.listen, &config.ops_listen, start)
}

/// Starts a node on the lifecycle. Servers that are away are waited for in the background.
///
/// # Errors
/// A wrong setting.
pub fn run(
    config: &Config,
    listener: TcpListener,
    ops_listener: TcpListener,
    lifecycle: &Lifecycle,
) -> anyhow::Result<()> {
    let process = config.process.begin("leases")?;
    web::numbers::register();
    let Process {
        node, parts, redis, ..
    } = process.clone();
    let sessions = web::session::Sessions::new(redis, parts.part("redis"), &config.sessions)
        .with_prefix(&config.process.redis.redis_prefix);
    let told = Told {
        ready_needs: &["postgres"],
        without: Vec::new(),
        knobs: None,
        shared_knobs: None,
        settings: config.all.clone(),
    };
    process.watch_and_tell(ops_listener, told, lifecycle);
    let site = web::Site::from(web::About {
        node,
        parts,
        sessions,
        meanings: &[],
        guarantees_off: Vec::new(),
    });
    let router = web::wrap(Router::new(), Router::new(), site);
    daemon::http::serve(listener, router, lifecycle);
    Ok(())
}
