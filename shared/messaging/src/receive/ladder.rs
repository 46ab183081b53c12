//! Delayed retry: a message whose work failed waits in a queue with a time to live, a *rung*, and is
//! dead-lettered back into `messages` when its time is over. Each failure leads to the next rung.
//!
//! How it gets there: the receiver publishes it to the rung, on a connection of its own, and acks the
//! delivery only when the broker has confirmed that the rung has it. Until then the delivery is held.
//! So nothing is published here either that is not kept elsewhere until the confirm: not by an outbox
//! row, but by the delivery itself. Rejecting it into a rung would need no publish, but a queue has one
//! dead-letter target, and `messages` needs it for what is given up on.
//!
//! Between two lines: die, or lose the link, between confirm and ack: the message is in the rung and
//! is delivered again at once, under one id. Both copies are worked on, and the inbox lets one of them
//! have the effect. Its failures are counted as they happen, whichever copy they are of.
//!
//! On the ladder a message is a new one for the broker, which begins to count anew. The deliveries that
//! it had travel along (see [`Envelope::attempts`]), and failures are counted in Postgres as ever.

use std::{str::FromStr, time::Duration};

use chaos::FailPoints;
use futures::{pin_mut, stream::BoxStream};
use lapin::{Connection, Event};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info};

use crate::{
    Error,
    connection::{self, Backoff, Broker, Link},
    envelope::Envelope,
    numbers,
    send::{
        outbox::{Claimed, Outcome},
        publisher::Publisher,
    },
    topology::{self, Rung},
};

/// How long a delivery is held for the ladder before it goes back to the queue instead. Not longer: a
/// broker that is short of memory takes no publishes, and would never get rid of what it has if all
/// deliveries waited for that.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most messages in one batch.
const BATCH: usize = 500;
/// Longest time on one rung.
const LONGEST_MS: u64 = 3_600_000;
/// Most rungs: each is a queue and a channel.
const MOST_RUNGS: usize = 8;

/// The rungs of a ladder, the shortest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rungs(Vec<Rung>);

/// Not a ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "right is 1 to {MOST_RUNGS} times in milliseconds with commas between them, each longer than \
     the one before, from 1 to {LONGEST_MS}"
)]
pub struct NotRungs;

impl FromStr for Rungs {
    type Err = NotRungs;

    fn from_str(times: &str) -> Result<Self, NotRungs> {
        let times = times.split(',').map(|time| time.trim().parse::<u64>());
        let times = times.collect::<Result<Vec<_>, _>>().map_err(|_| NotRungs)?;
        let in_range = times.iter().all(|time| (1..=LONGEST_MS).contains(time));
        let rising = times.windows(2).all(|pair| pair[0] < pair[1]);
        if !in_range || !rising || times.len() > MOST_RUNGS {
            return Err(NotRungs);
        }
        let rung = |time| Rung(Duration::from_millis(time));
        Ok(Self(times.into_iter().map(rung).collect()))
    }
}

impl Rungs {
    /// The queues.
    pub fn as_slice(&self) -> &[Rung] {
        &self.0
    }

    /// The place of the rung after so many failures; from the last one nobody climbs higher.
    fn after(&self, failures: u32) -> usize {
        let step = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        step.min(self.0.len() - 1)
    }
}

/// Where messages are put onto the ladder.
pub struct Ladder {
    rungs: Rungs,
    requests: mpsc::Sender<Request>,
    /// Tells the climber that no more will come.
    _last: DropGuard,
}

struct Request {
    rung: usize,
    envelope: Envelope,
    /// Dropped: not this time.
    confirmed: oneshot::Sender<()>,
}

/// The loop that publishes them.
pub struct Climber {
    broker: Broker,
    rungs: Rungs,
    fail_points: FailPoints,
    requests: Mutex<mpsc::Receiver<Request>>,
    link: watch::Sender<Link>,
    done: CancellationToken,
}

/// Both ends. `broker` must declare the rungs ([`Broker::with_ladder`]).
pub fn ladder(broker: Broker, rungs: Rungs, fail_points: FailPoints) -> (Ladder, Climber) {
    let (sender, requests) = mpsc::channel(BATCH);
    let done = CancellationToken::new();
    let ladder = Ladder {
        rungs: rungs.clone(),
        requests: sender,
        _last: done.clone().drop_guard(),
    };
    let climber = Climber {
        broker,
        rungs,
        fail_points,
        requests: Mutex::new(requests),
        link: watch::channel(Link::Connecting).0,
        done,
    };
    (ladder, climber)
}

impl Ladder {
    /// Puts a message onto the rung for so many failures. True when the rung has it; false if it was
    /// not to be had within [`PATIENCE`], or `stop` came. (It may get there yet: then it is there twice,
    /// under one id.)
    pub(super) async fn put(
        &self,
        envelope: &Envelope,
        failures: u32,
        stop: &CancellationToken,
    ) -> bool {
        let rung = self.rungs.after(failures);
        tokio::select! {
            () = self.put_on(rung, envelope) => {}
            () = tokio::time::sleep(PATIENCE) => return false,
            () = stop.cancelled() => return false,
        }
        let delay_ms = self.rungs.0[rung].0.as_millis();
        debug!(delay_ms, "waits on the ladder");
        metrics::counter!(numbers::DELAYED).increment(1);
        true
    }

    async fn put_on(&self, rung: usize, envelope: &Envelope) {
        let mut backoff = Backoff::default();
        loop {
            let (confirmed, answer) = oneshot::channel();
            let request = Request {
                rung,
                envelope: envelope.clone(),
                confirmed,
            };
            if self.requests.send(request).await.is_ok() && answer.await.is_ok() {
                return;
            }
            info!("the ladder does not take it; the delivery is held");
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }
}

impl Climber {
    /// Publishes until the ladder is gone.
    ///
    /// # Errors
    /// Only what another session would meet again.
    pub async fn run(self) -> Result<(), Error> {
        connection::supervise("retries", &self.link, &self.done, || self.session()).await
    }

    async fn session(&self) -> Result<(), Error> {
        let (connection, events) = self.broker.connect("retries").await?;
        let result = self.session_on(&connection, events).await;
        connection::hang_up(&connection).await;
        result
    }

    async fn session_on(
        &self,
        connection: &Connection,
        events: BoxStream<'static, Event>,
    ) -> Result<(), Error> {
        topology::declare(connection, &self.broker.topology).await?;
        let road = self.broker.topology.road;
        let mut publishers = Vec::new();
        for rung in self.rungs.as_slice() {
            let (link, fail_points) = (self.link.subscribe(), self.fail_points.clone());
            let without = &self.broker.without;
            let publisher =
                Publisher::open(connection, rung.route(road), without, link, fail_points);
            publishers.push(publisher.await?);
        }
        self.link.send_replace(Link::Open);
        pin_mut!(events);
        tokio::select! {
            result = self.pump(&publishers) => result?,
            error = connection::watch_events(events, &self.link) => return Err(error),
        }
        let channels: Vec<_> = publishers.iter().map(Publisher::channel).collect();
        connection::close(connection, &channels).await;
        Ok(())
    }

    async fn pump(&self, publishers: &[Publisher]) -> Result<(), Error> {
        let mut requests = self.requests.lock().await;
        let mut gathered = Vec::new();
        while requests.recv_many(&mut gathered, BATCH).await > 0 {
            // An error drops all that is gathered, which tells those who wait for it.
            for (rung, publisher) in publishers.iter().enumerate() {
                let mine = gathered.extract_if(.., |request| request.rung == rung);
                publish(publisher, mine.collect()).await?;
            }
        }
        Ok(())
    }
}

/// Publishes to one rung, and tells those who wait for a confirm of it.
async fn publish(publisher: &Publisher, requests: Vec<Request>) -> Result<(), Error> {
    if requests.is_empty() {
        return Ok(());
    }
    let batch: Vec<Claimed> = requests
        .iter()
        .map(|request| Claimed {
            envelope: request.envelope.clone(),
            tries: 0,
        })
        .collect();
    let published = publisher.publish(&batch).await?;
    if published
        .iter()
        .any(|one| one.outcome == Outcome::Unroutable)
    {
        return Err(Error::RungGone);
    }
    for request in requests {
        let id = request.envelope.message_id;
        let confirmed = (id, Outcome::Confirmed);
        if published
            .iter()
            .any(|one| (one.message_id, one.outcome) == confirmed)
        {
            let _ = request.confirmed.send(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Road;

    fn rungs(times: &str) -> Result<Vec<u128>, NotRungs> {
        let rungs: Rungs = times.parse()?;
        Ok(rungs
            .as_slice()
            .iter()
            .map(|rung| rung.0.as_millis())
            .collect())
    }

    #[test]
    fn a_ladder_is_a_list_of_rising_times() {
        assert_eq!(rungs("1000, 5000,25000"), Ok(vec![1_000, 5_000, 25_000]));
        for wrong in [
            "",
            "0",
            "x",
            "2,1",
            "5,5",
            "1,",
            "3600001",
            "1,2,3,4,5,6,7,8,9",
        ] {
            assert_eq!(rungs(wrong), Err(NotRungs), "{wrong}");
        }
    }

    #[test]
    fn each_failure_leads_to_the_next_rung_and_the_last_is_the_highest() {
        let rungs: Rungs = "1,2,3".parse().unwrap();
        let steps = [1, 2, 3, 4, 1_000].map(|failures| rungs.after(failures));
        assert_eq!(steps, [0, 1, 2, 2, 2]);
    }

    #[test]
    fn a_rung_is_named_by_its_time() {
        let name = Rung(Duration::from_secs(25)).name(Road::MESSAGES);
        assert_eq!(name, "messages.retry.25000");
    }
}
