//! How a message whose work failed comes back: at once, or after a time on the ladder.

use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::{
    ladder::{Ladder, Rungs},
    settle::Settle,
};
use crate::envelope::Envelope;

/// The settings of it.
#[derive(Debug, Clone, Args)]
pub struct RetryArgs {
    /// What becomes of a message whose work failed: back to the queue, or first into a queue in which
    /// it waits for a time that grows with its failures
    #[arg(long, env = "RETRY", value_enum, default_value = "requeue")]
    pub retry: RetryBy,
    /// With RETRY=requeue: how long a failed message is held before it goes back, at most, in milliseconds
    #[arg(long, env = "RETRY_HOLD_MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub retry_hold_ms: u64,
    /// With RETRY=ladder: the times in milliseconds, of the first failure, the second, and so on
    #[arg(long, env = "RETRY_LADDER_MS", default_value = "1000,5000,25000")]
    pub retry_ladder_ms: Rungs,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RetryBy {
    /// At once.
    Requeue,
    /// After a time.
    Ladder,
}

/// How a message comes back.
pub enum Retry {
    /// It is held for a part of this time, at random, and goes back to the queue.
    Requeue(Duration),
    /// It waits on the ladder.
    Ladder(Ladder),
}

impl Retry {
    /// Sees to it that a message comes back that failed so many times, and says how to settle its
    /// delivery.
    pub(super) async fn again(
        &self,
        envelope: &Envelope,
        attempt: u32,
        failures: u32,
        stop: &CancellationToken,
    ) -> Settle {
        match self {
            Self::Requeue(hold) => Settle::Requeue(hold.mul_f64(rand::random_range(0.5..=1.0))),
            Self::Ladder(ladder) => {
                let envelope = Envelope {
                    attempts: attempt,
                    ..envelope.clone()
                };
                if ladder.put(&envelope, failures, stop).await {
                    Settle::Ack
                } else {
                    Settle::Requeue(Duration::ZERO)
                }
            }
        }
    }
}
