//! All settings of a receiver: `--help` is the reference.

use daemon::{WrongSetting, process::ProcessArgs, settings::AllSettings};
use live::LiveArgs;
use messaging::{
    connection::{Broker, BrokerArgs},
    receive::{
        retry::{RetryArgs, RetryBy},
        window::InboxArgs,
    },
};
use web::session::SessionArgs;

use crate::process::WorkArgs;

/// Consumes messages from RabbitMQ, works on them, and stores one effect for each
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "receiver", version)]
pub struct Config {
    /// All that follow, to be told on the ops port.
    #[command(flatten)]
    pub all: AllSettings,
    /// Address of the pages and the API
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8082")]
    pub listen: String,
    /// Address of health, metrics and, with LAB_OPS, fail points, knobs and settings; not for the public
    #[arg(long, env = "OPS_LISTEN", default_value = "127.0.0.1:9082")]
    pub ops_listen: String,
    #[command(flatten)]
    pub broker: BrokerArgs,
    #[command(flatten)]
    pub sessions: SessionArgs,
    #[command(flatten)]
    pub work: WorkArgs,
    /// Deliveries in hand at most, not yet settled
    #[arg(long, env = "PREFETCH", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub prefetch: u16,
    /// Failures of the work after which a message is given up on
    #[arg(long, env = "WORK_MAX_FAILURES", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=800))]
    pub work_max_failures: u32,
    /// Deliveries, beside those whose work failed, after which a message is given up on: it may be what kills receivers.
    /// Lost connections count here, so a small number gives up on innocent ones
    #[arg(long, env = "MAX_DELIVERIES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_deliveries: u32,
    #[command(flatten)]
    pub retry: RetryArgs,
    #[command(flatten)]
    pub inbox: InboxArgs,
    /// The secret of who may send dead letters back or discard them, 12 characters or more, in the header X-Redrive-Token; without it nobody may
    #[arg(long, env = "REDRIVE_TOKEN", hide_env_values = true)]
    pub redrive_token: Option<String>,
    #[command(flatten)]
    pub live: LiveArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// A token that is guessed in a day is none, and nothing counts the guesses.
const TOKEN_MIN: usize = 12;

impl Config {
    /// Looks at the settings as a start does, and starts nothing.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub fn check(&self) -> Result<(), WrongSetting> {
        self.process.check("receiver")?;
        self.work.knobs(self.prefetch)?;
        self.redrive_token()?;
        self.broker("receiver").map(drop)
    }

    /// The secret of who may decide about dead letters, if anybody may.
    pub(crate) fn redrive_token(&self) -> Result<Option<&str>, WrongSetting> {
        let token = self.redrive_token.as_deref();
        if token.is_some_and(|token| token.chars().count() < TOKEN_MIN) {
            let right = format!("{TOKEN_MIN} characters or more, such as 32 random ones");
            return Err(WrongSetting::secret("REDRIVE_TOKEN", right));
        }
        Ok(token)
    }

    /// The broker, for the node of this name.
    pub(crate) fn broker(&self, node: &str) -> Result<Broker, WrongSetting> {
        let broker = broker_part::broker(&self.broker, node)?;
        Ok(match self.retry.retry {
            RetryBy::Requeue => broker,
            RetryBy::Ladder => broker.with_ladder(self.retry.retry_ladder_ms.as_slice()),
        })
    }
}
