//! All settings of a worker: `--help` is the reference.

use daemon::{WrongSetting, process::ProcessArgs, settings::AllSettings};
use messaging::{
    connection::{Broker, BrokerArgs},
    receive::window::InboxArgs,
};

use crate::note::ROAD;

/// Consumes notes from RabbitMQ and saves each once
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "notes worker", version)]
pub struct Config {
    /// All that follow, to be told on the ops port.
    #[command(flatten)]
    pub all: AllSettings,
    /// Address of health, metrics and, with LAB_OPS, fail points and settings; not for the public
    #[arg(long, env = "OPS_LISTEN", default_value = "127.0.0.1:9087")]
    pub ops_listen: String,
    #[command(flatten)]
    pub broker: BrokerArgs,
    /// Notes that are saved per second, at most; 0 for as many as it can
    #[arg(long, env = "NOTES_PER_SECOND", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub notes_per_second: u32,
    /// Deliveries in hand at most, not yet settled
    #[arg(long, env = "PREFETCH", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub prefetch: u16,
    /// Deliveries after which a note is given up on: it may be what kills workers. Lost connections count here, so a small
    /// number gives up on innocent ones
    #[arg(long, env = "MAX_DELIVERIES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_deliveries: u32,
    #[command(flatten)]
    pub inbox: InboxArgs,
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
