//! All settings of a lease queue's node: `--help` is the reference. What a queue is like is no setting of a node: it is kept
//! with the queue, and changed over HTTP.

use daemon::{WrongSetting, process::ProcessArgs, settings::AllSettings};
use web::session::SessionArgs;

/// Keeps messages in queues, and leases them over HTTP to those who work on them
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "leases", version)]
pub struct Config {
    /// All that follow, to be told on the ops port.
    #[command(flatten)]
    pub all: AllSettings,
    /// Address of the queues and of their page
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8085")]
    pub listen: String,
    /// Address of health, metrics and, with LAB_OPS, fail points and settings; not for the public
    #[arg(long, env = "OPS_LISTEN", default_value = "127.0.0.1:9085")]
    pub ops_listen: String,
    #[command(flatten)]
    pub sessions: SessionArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
}

impl Config {
    /// Looks at the settings as a start does, and starts nothing.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub fn check(&self) -> Result<(), WrongSetting> {
        self.process.check("leases")
    }
}
