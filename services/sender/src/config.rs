//! All settings of a sender: `--help` is the reference.

use daemon::{
    WrongSetting, database::DatabaseArgs, node::NodeArgs, redis::RedisArgs,
    telemetry::TelemetryArgs,
};
use messaging::connection::BrokerArgs;
use web::session::SessionArgs;

/// Accepts messages over HTTP and publishes them to RabbitMQ
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "sender", version)]
pub struct Config {
    #[command(flatten)]
    pub node: NodeArgs,
    /// Address of the pages and the API
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8081")]
    pub listen: String,
    /// Address of health, metrics and, with LAB_OPS, fail points; not for the public
    #[arg(long, env = "OPS_LISTEN", default_value = "127.0.0.1:9081")]
    pub ops_listen: String,
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub broker: BrokerArgs,
    #[command(flatten)]
    pub redis: RedisArgs,
    #[command(flatten)]
    pub sessions: SessionArgs,
    /// Messages that may wait to be published; beyond that, none is accepted
    #[arg(long, env = "OUTBOX_MAX", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub outbox_max: u64,
    /// Messages published and not yet confirmed, at most
    #[arg(long, env = "PUBLISH_WINDOW", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(2..))]
    pub publish_window: u16,
    /// Seconds that a stop may take before what is still running is given up
    #[arg(long, env = "SHUTDOWN_SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub shutdown_secs: u64,
    /// Offer fail points on the ops port
    #[arg(long, env = "LAB_OPS", default_value_t = false, action = clap::ArgAction::Set)]
    pub lab_ops: bool,
    /// Fail points armed from the start, such as `relay.after_publish=crash@3`
    #[arg(long, env = "FAIL_POINTS", default_value = "")]
    pub fail_points: String,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl Config {
    pub(crate) fn fail_points(&self) -> Result<chaos::FailPoints, WrongSetting> {
        chaos::FailPoints::parse(&self.fail_points)
            .map_err(|error| WrongSetting::because("FAIL_POINTS", error.to_string()))
    }
}
