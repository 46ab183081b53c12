//! Acks that wait to go out, and which of them may go together.
//!
//! An ack with the flag *multiple* answers every delivery of its channel up to its tag that has no answer yet. So it may only
//! be sent where all of those are to be acked: below the first delivery that is still in hand. What is done above that one is
//! acked by itself.
//!
//! A delivery that came in and was not begun is nobody's yet, and must not be answered either. Of one consumer they are begun in
//! the order of their tags, so those are above all that are done. While the deliveries of two consumers of one channel are taken
//! in turn, as after the bound was turned, they need not be, and every ack is one of its own.

use std::collections::BTreeSet;

use lapin::{Acker, types::DeliveryTag};

use super::settle::ack;
use crate::Error;

/// The deliveries of one channel that are not settled.
#[derive(Debug, Default)]
pub(super) struct Acks {
    in_hand: BTreeSet<DeliveryTag>,
    ready: Vec<Ready>,
}

#[derive(Debug)]
struct Ready {
    tag: DeliveryTag,
    acker: Acker,
}

/// How a delivery left the hand.
#[derive(Debug)]
pub(super) enum Left {
    /// It was answered.
    Settled,
    /// It is to be acked.
    ToAck(Acker),
}

impl Acks {
    /// A delivery is begun.
    pub(super) fn begin(&mut self, tag: DeliveryTag) {
        self.in_hand.insert(tag);
    }

    /// A delivery is done with.
    pub(super) fn end(&mut self, tag: DeliveryTag, left: Left) {
        self.in_hand.remove(&tag);
        if let Left::ToAck(acker) = left {
            self.ready.push(Ready { tag, acker });
        }
    }

    /// Deliveries in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.in_hand.len()
    }

    /// Sends the acks that are ready. `in_order`: nothing waits to be begun that is below a delivery which was begun.
    ///
    /// # Errors
    /// One was not sent, or nobody knows; the session must end.
    pub(super) async fn send(&mut self, in_order: bool) -> Result<(), Error> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.sort_unstable_by_key(|ready| ready.tag);
        let tags: Vec<_> = ready.iter().map(|ready| ready.tag).collect();
        let first_in_hand = self.in_hand.first().copied();
        let together = if in_order {
            together(&tags, first_in_hand)
        } else {
            0
        };
        let apart = ready.split_off(together);
        let count = ready.len();
        if let Some(last) = ready.pop() {
            ack(&last.acker, count).await?;
        }
        let one_by_one = apart.iter().map(|ready| ack(&ready.acker, 1));
        futures::future::try_join_all(one_by_one).await.map(drop)
    }
}

/// How many of these tags, which are sorted, are below the first in hand.
fn together(tags: &[DeliveryTag], first_in_hand: Option<DeliveryTag>) -> usize {
    first_in_hand.map_or(tags.len(), |first| tags.partition_point(|tag| *tag < first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_the_first_in_hand_goes_together() {
        assert_eq!(together(&[1, 2, 3], None), 3);
        assert_eq!(together(&[1, 2, 4, 5], Some(3)), 2);
        assert_eq!(together(&[2, 3], Some(1)), 0);
        assert_eq!(together(&[], Some(1)), 0);
    }
}
