//! All settings of a receiver: `--help` is the reference.

use daemon::process::ProcessArgs;
use messaging::connection::BrokerArgs;
use web::session::SessionArgs;

use crate::process::WorkArgs;

/// Consumes messages from RabbitMQ, works on them, and stores one effect for each
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "receiver", version)]
pub struct Config {
    /// Address of the pages and the API
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8082")]
    pub listen: String,
    /// Address of health, metrics and, with LAB_OPS, fail points; not for the public
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
    #[arg(long, env = "WORK_MAX_FAILURES", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub work_max_failures: u32,
    /// How long a failed message is held before it goes back to the queue, at most, in milliseconds
    #[arg(long, env = "RETRY_HOLD_MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub retry_hold_ms: u64,
    #[command(flatten)]
    pub process: ProcessArgs,
}
