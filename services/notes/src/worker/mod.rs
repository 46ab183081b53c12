//! The role that saves notes.

mod config;

use std::process::ExitCode;

use daemon::{lifecycle::Lifecycle, ops::Told};
use messaging::{guarantee::Guarantee, receive};
use tokio::net::TcpListener;

pub use config::Config;

/// What this role is called as a service.
const SERVICE: &str = "notes-worker";

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
    config.broker(&process.node.name)?;
    process
        .database
        .migrate_until_done(vec![receive::migrator(), sqlx::migrate!()], lifecycle);
    let without = &config.broker.without;
    let told = Told {
        ready_needs: &["postgres", "rabbitmq"],
        without: without.iter().map(Guarantee::name).collect(),
        knobs: None,
        shared_knobs: None,
        settings: config.all.clone(),
    };
    process.watch_and_tell(ops_listener, told, lifecycle);
    Ok(())
}
