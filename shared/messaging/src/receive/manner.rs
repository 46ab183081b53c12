//! How a consumer takes deliveries and answers them, chosen once, at start.
//!
//! The safe way, unless a guarantee is off (see [`crate::guarantee`]).

use futures::{StreamExt, stream, stream::BoxStream};
use lapin::message::Delivery;
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    guarantee::{Guarantee, Without},
};

/// How a consumer consumes.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Deliveries in hand at most; 0 for any number.
    pub(super) prefetch: u16,
    pub(super) answer: Answer,
    end: End,
}

/// When a delivery is answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// When all is done, as it turned out.
    AfterTheDeed,
    /// Acked as it comes in: whatever happens then, it does not come again.
    OnArrival,
}

/// What the end of the deliveries means.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The broker ended the consumer (its queue is gone or lost its leader), or the whole connection: a new session mends
    /// that.
    IsAFault,
    /// Nothing more to do: the process looks healthy, and takes nothing any more.
    IsIgnored,
}

impl Manner {
    /// The safe way.
    pub fn safe(prefetch: u16) -> Self {
        Self {
            prefetch,
            answer: Answer::AfterTheDeed,
            end: End::IsAFault,
        }
    }

    /// The safe way, but for what is off.
    pub fn new(prefetch: u16, without: &Without) -> Self {
        let mut manner = Self::safe(prefetch);
        if without.has(Guarantee::Prefetch) {
            manner.prefetch = 0;
        }
        if without.has(Guarantee::AckAfterCommit) {
            manner.answer = Answer::OnArrival;
        }
        if without.has(Guarantee::Reconsume) {
            manner.end = End::IsIgnored;
        }
        manner
    }

    /// The deliveries of a queue, and what their end means.
    pub(super) fn deliveries(
        self,
        consumer: lapin::Consumer,
        queue: &'static str,
    ) -> BoxStream<'static, Result<Delivery, Error>> {
        let deliveries = consumer.map(|delivery| Ok(delivery?));
        match self.end {
            End::IsAFault => {
                let ended = async move { Err(Error::ConsumerEnded(queue)) };
                deliveries.chain(stream::once(ended)).boxed()
            }
            End::IsIgnored => deliveries.chain(stream::pending()).boxed(),
        }
    }

    /// A session that was open has broken: what comes of it. Nobody who ignores that comes back before `stop`.
    pub(super) async fn broken(self, error: Error, stop: &CancellationToken) -> Result<(), Error> {
        match self.end {
            End::IsAFault => Err(error),
            End::IsIgnored => {
                stop.cancelled().await;
                Ok(())
            }
        }
    }
}
