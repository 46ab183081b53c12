//! All settings of a sender: `--help` is the reference.

use daemon::{WrongSetting, process::ProcessArgs, settings::AllSettings};
use live::LiveArgs;
use messaging::{
    connection::{Broker, BrokerArgs},
    send::accept::SendArgs,
};
use web::session::SessionArgs;

/// Accepts messages over HTTP and publishes them to RabbitMQ
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "sender", version)]
pub struct Config {
    /// All that follow, to be told on the ops port.
    #[command(flatten)]
    pub all: AllSettings,
    /// Address of the pages and the API
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8081")]
    pub listen: String,
    /// Address of health, metrics and, with LAB_OPS, fail points and settings; not for the public
    #[arg(long, env = "OPS_LISTEN", default_value = "127.0.0.1:9081")]
    pub ops_listen: String,
    #[command(flatten)]
    pub broker: BrokerArgs,
    #[command(flatten)]
    pub sessions: SessionArgs,
    #[command(flatten)]
    pub sending: SendArgs,
    #[command(flatten)]
    pub live: LiveArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
}

impl Config {
    /// Looks at the settings as a start does, and starts nothing.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub fn check(&self) -> Result<(), WrongSetting> {
        self.process.check("sender")?;
        self.broker("sender").map(drop)
    }

    /// The broker, for the node of this name.
    pub(crate) fn broker(&self, node: &str) -> Result<Broker, WrongSetting> {
        broker_part::broker(&self.broker, node)
    }
}
