//! All settings of the API: `--help` is the reference.

use daemon::{WrongSetting, process::ProcessArgs, settings::AllSettings};
use messaging::{
    connection::{Broker, BrokerArgs},
    send::accept::SendArgs,
};
use web::session::SessionArgs;

use crate::{cache::CacheArgs, note::ROAD};

/// Takes notes over HTTP, publishes them to RabbitMQ, and shows what is saved
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "notes api", version)]
pub struct Config {
    /// All that follow, to be told on the ops port.
    #[command(flatten)]
    pub all: AllSettings,
    /// Address of the pages and the API
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8084")]
    pub listen: String,
    /// Address of health, metrics and, with LAB_OPS, fail points and settings; not for the public
    #[arg(long, env = "OPS_LISTEN", default_value = "127.0.0.1:9084")]
    pub ops_listen: String,
    #[command(flatten)]
    pub broker: BrokerArgs,
    #[command(flatten)]
    pub sessions: SessionArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
    #[command(flatten)]
    pub sending: SendArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
}

impl Config {
    /// Looks at the settings as a start does, and starts nothing.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub fn check(&self) -> Result<(), WrongSetting> {
        self.process.check(super::SERVICE)?;
        self.broker(super::SERVICE).map(drop)
    }

    /// The broker, for the node of this name.
    pub(crate) fn broker(&self, node: &str) -> Result<Broker, WrongSetting> {
        broker_part::broker(&self.broker, node).map(|broker| broker.on(ROAD))
    }
}
