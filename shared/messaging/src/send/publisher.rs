//! The only code that publishes: persistent, mandatory, confirmed (`manner.rs` has the how).
//!
//! A [`Publisher`] is one channel in confirm mode. It takes a batch, hands every message of it to the
//! library, and waits for **all** confirms of the batch before it says anything (a barrier). That is
//! needed: the library attaches a returned message to whichever confirm of the channel completes next,
//! not to its own. The broker sends a return before that message's confirm, so when all confirms of a
//! batch are in, all of its returns are attached to some of them, and the set of returned ids is exact.
//! Two publishers take turns, so the barrier does not drain the pipe.
//!
//! What can go wrong: the link dies (the confirms fail), freezes (no confirm comes: the watchdog), or
//! the broker blocks publishing (the watchdog stands still until it no longer does). In each case the
//! whole session ends and nothing is known of the batch; its rows stay and are published again.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use chaos::FailPoints;
use futures::{StreamExt, stream::FuturesUnordered};
use lapin::{Channel, Confirmation, Connection};
use tokio::{sync::watch, time::MissedTickBehavior};
use uuid::Uuid;

use super::{
    manner::Manner,
    outbox::{Claimed, Outcome, Published},
};
use crate::{
    Error,
    connection::{Link, within},
    envelope,
    guarantee::Without,
    numbers,
    topology::Route,
};

/// No confirm for so long, while some are outstanding, ends the session: a channel opened while a
/// quorum queue had no leader may never confirm, and a new one does at once.
pub const CONFIRM_STALL: Duration = Duration::from_secs(4);
/// A message not confirmed for so long ends the session, even if others are.
pub const CONFIRM_LIMIT: Duration = Duration::from_secs(30);

/// One channel in confirm mode.
pub struct Publisher {
    channel: Channel,
    route: Route,
    manner: Manner,
    link: watch::Receiver<Link>,
    fail_points: FailPoints,
}

impl Publisher {
    /// Opens a channel on the publishing connection. `link` tells when the broker blocks it.
    ///
    /// # Errors
    /// The link's.
    pub async fn open(
        connection: &Connection,
        route: Route,
        without: &Without,
        link: watch::Receiver<Link>,
        fail_points: FailPoints,
    ) -> Result<Self, Error> {
        let channel = within("open a channel", connection.create_channel()).await?;
        let manner = Manner::new(without);
        manner.prepare(&channel).await?;
        Ok(Self {
            channel,
            route,
            manner,
            link,
            fail_points,
        })
    }

    /// The channel, for an orderly end.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Publishes a batch and tells how each message of it went, in any order.
    ///
    /// # Errors
    /// Nothing is known of any of the batch; the session must end.
    pub async fn publish(&self, batch: &[Claimed]) -> Result<Vec<Published>, Error> {
        let started = Instant::now();
        let mut confirms: FuturesUnordered<_> = batch
            .iter()
            .map(|claimed| self.publish_one(claimed))
            .collect();
        let mut watchdog = Watchdog::new(self.link.clone());
        let mut returned = HashSet::new();
        let mut answered = HashMap::with_capacity(batch.len());
        while !confirms.is_empty() {
            let (message_id, confirmation) = tokio::select! {
                biased;
                Some(confirm) = confirms.next() => confirm?,
                limit = watchdog.expired() => {
                    return Err(Error::Stalled { outstanding: confirms.len(), limit });
                }
            };
            watchdog.progress();
            let refused = confirmation.is_nack();
            if let Some(message) = confirmation.take_message() {
                returned.extend(envelope::message_id(&message.delivery.properties));
            }
            answered.insert(message_id, (refused, started.elapsed()));
        }
        Ok(batch
            .iter()
            .filter_map(|claimed| {
                let message_id = claimed.envelope.message_id;
                let (refused, elapsed) = answered.get(&message_id)?;
                let outcome = outcome(*refused, returned.contains(&message_id));
                metrics::counter!(match outcome {
                    Outcome::Confirmed => numbers::CONFIRMED,
                    Outcome::Unroutable => numbers::UNROUTABLE,
                    Outcome::Refused => numbers::REFUSED,
                })
                .increment(1);
                Some(Published {
                    message_id,
                    redrive: claimed.envelope.redrive,
                    outcome,
                    tries: claimed.tries + 1,
                    at: started,
                    confirm_ms: i32::try_from(elapsed.as_millis()).unwrap_or(i32::MAX),
                })
            })
            .collect())
    }

    async fn publish_one(&self, claimed: &Claimed) -> Result<(Uuid, Confirmation), Error> {
        let envelope = &claimed.envelope;
        let confirm = self
            .channel
            .basic_publish(
                self.route.exchange.clone(),
                self.route.key.clone(),
                self.manner.options(),
                &envelope.body,
                self.manner.properties(envelope),
            )
            .await?;
        let name = "relay.after_publish";
        self.fail_points
            .hit(name)
            .await
            .map_err(|_| Error::Injected(name))?;
        Ok((envelope.message_id, confirm.await?))
    }
}

/// A nack outweighs a return: some queue may have it, and it is published again either way.
fn outcome(refused: bool, returned: bool) -> Outcome {
    match (refused, returned) {
        (true, _) => Outcome::Refused,
        (false, true) => Outcome::Unroutable,
        (false, false) => Outcome::Confirmed,
    }
}

/// Counts the time without a confirm, in ticks: while the broker blocks publishing nothing counts,
/// and a process that was paused counts one tick for the whole pause, so that it reads what came
/// meanwhile before it judges.
struct Watchdog {
    link: watch::Receiver<Link>,
    ticks: tokio::time::Interval,
    clock: StallClock,
}

impl Watchdog {
    const TICK: Duration = Duration::from_millis(200);

    fn new(link: watch::Receiver<Link>) -> Self {
        let mut ticks =
            tokio::time::interval_at(tokio::time::Instant::now() + Self::TICK, Self::TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            link,
            ticks,
            clock: StallClock::default(),
        }
    }

    fn progress(&mut self) {
        self.clock.progress();
    }

    /// Resolves when a limit is passed, with that limit. Loses nothing when dropped and called again.
    async fn expired(&mut self) -> Duration {
        loop {
            self.ticks.tick().await;
            let blocked = matches!(*self.link.borrow(), Link::Blocked(_));
            if let Some(limit) = self.clock.tick(blocked) {
                return limit;
            }
        }
    }
}

/// The watchdog's count, a tick at a time.
#[derive(Debug, Default)]
struct StallClock {
    still: Duration,
    total: Duration,
}

impl StallClock {
    /// A tick has passed; gives the limit that it passed with it, if any.
    fn tick(&mut self, blocked: bool) -> Option<Duration> {
        if blocked {
            self.still = Duration::ZERO;
            return None;
        }
        self.still += Watchdog::TICK;
        self.total += Watchdog::TICK;
        match () {
            () if self.still >= CONFIRM_STALL => Some(CONFIRM_STALL),
            () if self.total >= CONFIRM_LIMIT => Some(CONFIRM_LIMIT),
            () => None,
        }
    }

    fn progress(&mut self) {
        self.still = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_message_counts_as_refused_even_if_it_was_also_returned() {
        assert_eq!(outcome(false, false), Outcome::Confirmed);
        assert_eq!(outcome(false, true), Outcome::Unroutable);
        assert_eq!(outcome(true, false), Outcome::Refused);
        assert_eq!(outcome(true, true), Outcome::Refused);
    }

    fn ticks(clock: &mut StallClock, duration: Duration, blocked: bool) -> Option<Duration> {
        let count = duration.as_millis() / Watchdog::TICK.as_millis();
        (0..count).find_map(|_| clock.tick(blocked))
    }

    #[test]
    fn the_watchdog_stands_still_while_the_broker_blocks() {
        let mut clock = StallClock::default();
        assert_eq!(ticks(&mut clock, Duration::from_hours(1), true), None);
        assert_eq!(
            ticks(
                &mut clock,
                CONFIRM_STALL.checked_sub(Watchdog::TICK).unwrap(),
                false
            ),
            None
        );
        assert_eq!(clock.tick(false), Some(CONFIRM_STALL));
    }

    #[test]
    fn progress_holds_the_stall_off_but_not_the_limit() {
        let mut clock = StallClock::default();
        for _ in 0..9 {
            assert_eq!(ticks(&mut clock, Duration::from_secs(3), false), None);
            clock.progress();
        }
        assert_eq!(
            ticks(&mut clock, Duration::from_secs(3), false),
            Some(CONFIRM_LIMIT)
        );
    }
}
