//! The consumer's answer to a delivery: exactly one.
//!
//! A delivery whose answer did not go out (its channel died, or no answer came in time) will come
//! again; the session that it belonged to is over, and its answer must not be sent on another.

use std::time::Duration;

use lapin::{
    Acker,
    message::Delivery,
    options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions},
};

use tokio_util::sync::CancellationToken;

use crate::{Error, connection::within, numbers};

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// It is dealt with: its effect is committed, was committed before, it is parked, or it waits on
    /// the ladder.
    Ack,
    /// Its work failed, or was never started: back to the queue, after this pause.
    Requeue(Duration),
    /// The same in another way, by basic.reject.
    RequeueByReject,
    /// The same by ending the session: everything in hand comes again, here or elsewhere.
    DropConnection,
    /// It is given up on: to the dead letters.
    DeadLetter,
}

/// Sends the answer; a pause before it ends at `stop`.
///
/// # Errors
/// The answer was not sent, or nobody knows; the session must end.
pub async fn settle(
    delivery: &Delivery,
    settle: Settle,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let sent = match settle {
        Settle::Ack => return ack(&delivery.acker, 1).await,
        Settle::Requeue(pause) => {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
            let options = BasicNackOptions {
                requeue: true,
                multiple: false,
            };
            within("nack", delivery.acker.nack(options)).await?
        }
        Settle::RequeueByReject => {
            let options = BasicRejectOptions { requeue: true };
            within("reject", delivery.acker.reject(options)).await?
        }
        Settle::DropConnection => return Err(Error::Dropped),
        Settle::DeadLetter => {
            within(
                "reject",
                delivery.acker.reject(BasicRejectOptions { requeue: false }),
            )
            .await?
        }
    };
    let counter = match settle {
        Settle::DeadLetter => numbers::DEAD_LETTERED,
        _ => numbers::REQUEUED,
    };
    count_sent(sent, counter, 1)
}

/// Acks `count` deliveries: the one of this acker and, if there are more, all before it that have no answer yet.
///
/// # Errors
/// As [`settle`].
pub(super) async fn ack(acker: &Acker, count: usize) -> Result<(), Error> {
    let options = BasicAckOptions {
        multiple: count > 1,
    };
    let sent = within("ack", acker.ack(options)).await?;
    count_sent(sent, numbers::ACKNOWLEDGED, count)
}

/// The library says false, not an error, when the channel is gone.
fn count_sent(sent: bool, counter: &'static str, count: usize) -> Result<(), Error> {
    if !sent {
        return Err(Error::NotSettled);
    }
    metrics::counter!(counter).increment(u64::try_from(count).unwrap_or(u64::MAX));
    Ok(())
}
