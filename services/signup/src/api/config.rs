//! All settings of the API: `--help` is the reference.

use daemon::{WrongSetting, process::ProcessArgs, settings::AllSettings};
use messaging::{
    connection::{Broker, BrokerArgs},
    send::accept::SendArgs,
};
use web::session::SessionArgs;

use super::{limits::LimitArgs, password::HashArgs, token::TokenArgs};
use crate::ROAD;

/// Takes sign-ups, stores the accounts, and publishes the welcome mails to RabbitMQ
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "signup api", version)]
pub struct Config {
    /// All that follow, to be told on the ops port.
    #[command(flatten)]
    pub all: AllSettings,
    /// Address of the pages and the API
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8086")]
    pub listen: String,
    /// Address of health, metrics and, with LAB_OPS, fail points and settings; not for the public
    #[arg(long, env = "OPS_LISTEN", default_value = "127.0.0.1:9086")]
    pub ops_listen: String,
    #[command(flatten)]
    pub tokens: TokenArgs,
    #[command(flatten)]
    pub hashes: HashArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub broker: BrokerArgs,
    #[command(flatten)]
    pub sessions: SessionArgs,
    #[command(flatten)]
    pub send: SendArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
}

impl Config {
    /// Looks at the settings as a start does, and starts nothing.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub fn check(&self) -> Result<(), WrongSetting> {
        self.process.check("signup")?;
        self.tokens.tokens()?;
        self.broker("signup").map(drop)
    }

    /// The broker, for the node of this name.
    pub(crate) fn broker(&self, node: &str) -> Result<Broker, WrongSetting> {
        Ok(broker_part::broker(&self.broker, node)?.on(ROAD))
    }
}
