//! All settings of those who send the mails: `--help` is the reference.

use daemon::{WrongSetting, process::ProcessArgs, settings::AllSettings};
use messaging::{
    connection::{Broker, BrokerArgs},
    receive::{
        retry::{RetryArgs, RetryBy},
        window::InboxArgs,
    },
};

use super::smtp::SmtpArgs;
use crate::ROAD;

/// Takes welcome mails from RabbitMQ and sends them by SMTP
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "signup welcome", version)]
// A mail server that says "later" means it: back at once would only ask it again.
#[command(mut_arg("retry", |retry| retry.default_value("ladder")))]
pub struct Config {
    /// All that follow, to be told on the ops port.
    #[command(flatten)]
    pub all: AllSettings,
    /// Address of health, metrics and, with LAB_OPS, fail points and settings; not for the public
    #[arg(long, env = "OPS_LISTEN", default_value = "127.0.0.1:9088")]
    pub ops_listen: String,
    #[command(flatten)]
    pub smtp: SmtpArgs,
    #[command(flatten)]
    pub broker: BrokerArgs,
    /// Mails in hand at most, not yet settled
    #[arg(long, env = "PREFETCH", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub prefetch: u16,
    /// Times that a mail server may say "later" to one mail, or nothing when it has it whole, after which it is given up on
    #[arg(long, env = "WORK_MAX_FAILURES", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=800))]
    pub work_max_failures: u32,
    /// Deliveries, beside those whose work failed, after which a mail is given up on. Mails that wait for a mail server are
    /// delivered again each half hour, and whenever a connection is lost, so a small number gives up on innocent ones, and
    /// 1000 on those whose mail server is away for three weeks
    #[arg(long, env = "MAX_DELIVERIES", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_deliveries: u32,
    #[command(flatten)]
    pub retry: RetryArgs,
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
        self.process.check("signup-welcome")?;
        self.smtp.server()?;
        self.broker("signup-welcome").map(drop)
    }

    /// The broker, for the node of this name.
    pub(crate) fn broker(&self, node: &str) -> Result<Broker, WrongSetting> {
        let broker = broker_part::broker(&self.broker, node)?.on(ROAD);
        Ok(match self.retry.retry {
            RetryBy::Requeue => broker,
            RetryBy::Ladder => broker.with_ladder(self.retry.retry_ladder_ms.as_slice()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use clap::Parser;

    use super::*;

    #[test]
    fn a_mail_that_failed_climbs_the_ladder_unless_the_settings_say_otherwise() {
        let given = [
            "x",
            "--amqp-url",
            "a",
            "--database-url",
            "b",
            "--redis-url",
            "c",
            "--smtp-url",
            "d",
        ];
        let read = |more: &[&str]| {
            let all = given.iter().chain(more).map(OsStr::new);
            Config::try_parse_from(all).unwrap().retry.retry
        };
        assert_eq!(read(&[]), RetryBy::Ladder);
        assert_eq!(read(&["--retry", "requeue"]), RetryBy::Requeue);
    }
}
