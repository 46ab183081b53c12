//! One publisher session: takes rows, publishes them batch after batch, and passes the broker's word on.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use chaos::FailPoints;
use futures::{Stream, pin_mut};
use lapin::Event;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::{Mark, POLL, Relay, handover::InHand};
use crate::{
    Error, bounded,
    connection::{self, Link},
    envelope::Envelope,
    send::{
        outbox::{self, Claimed, LEASE, Outcome},
        publisher::Publisher,
    },
};

/// How long a session goes on while the queue refuses everything.
const REFUSED_LIMIT: Duration = Duration::from_secs(10);

/// Where a session's rows come from.
pub(super) struct Source {
    handed_over: mpsc::Receiver<Vec<Envelope>>,
    /// Handed over and not yet in a batch.
    waiting: VecDeque<Claimed>,
    /// When to look into the table again, however much is handed over meanwhile.
    next_claim: Instant,
}

/// One connection, its two publishers and its lease.
pub(super) struct Session<'a> {
    pub(super) relay: &'a Relay,
    pub(super) lease: Uuid,
    pub(super) in_hand: InHand,
    pub(super) marks: &'a mpsc::Sender<Mark>,
    pub(super) source: tokio::sync::Mutex<Source>,
    /// Since when the queue has refused everything.
    pub(super) refused_since: Mutex<Option<Instant>>,
}

impl Session<'_> {
    pub(super) async fn run(
        &self,
        publishers: &[Publisher; 2],
        events: impl Stream<Item = Event>,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        pin_mut!(events);
        let pumps = async {
            tokio::try_join!(
                self.pump(&publishers[0], stop),
                self.pump(&publishers[1], stop)
            )
        };
        tokio::select! {
            result = pumps => result.map(|_| ()),
            error = connection::watch_events(events, &self.relay.link) => Err(error),
            () = self.renew() => Ok(()),
            error = self.blocked_at(stop) => Err(error),
        }
    }

    /// A blocked broker confirms nothing: a stop does not wait for it.
    async fn blocked_at(&self, stop: &CancellationToken) -> Error {
        stop.cancelled().await;
        let mut link = self.relay.watched();
        let blocked = link.wait_for(|link| matches!(link, Link::Blocked(_)));
        if blocked.await.is_err() {
            // A lent connection whose owner ended first: nobody will tell any more.
            std::future::pending::<()>().await;
        }
        Error::Blocked
    }

    /// One publisher's share: batch after batch, until `stop`.
    async fn pump(&self, publisher: &Publisher, stop: &CancellationToken) -> Result<(), Error> {
        while let Some(batch) = self.next_batch(stop).await {
            self.step(publisher, &batch).await?;
        }
        Ok(())
    }

    /// Publishes one batch and passes the broker's word on to the marker.
    async fn step(&self, publisher: &Publisher, batch: &[Claimed]) -> Result<(), Error> {
        let fail_points = &self.relay.fail_points;
        // An injected error here means: publish nothing, as if the link had broken at this point.
        hit(fail_points, "relay.before_publish").await?;
        let published = publisher.publish(batch).await?;
        hit(fail_points, "relay.after_confirm").await?;
        let only_refused = published.iter().all(|p| p.outcome == Outcome::Refused);
        // The marker's queue is bounded: with Postgres away this waits, and nothing more is published.
        let _ = self
            .marks
            .send(Mark::Published(published, self.in_hand.clone()))
            .await;
        self.judge_refusals(only_refused)
    }

    /// Ends the session when nothing but refusals came for a while.
    fn judge_refusals(&self, only_refused: bool) -> Result<(), Error> {
        let mut since = self
            .refused_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !only_refused {
            *since = None;
            return Ok(());
        }
        let refused_for = since.get_or_insert_with(Instant::now).elapsed();
        if refused_for < REFUSED_LIMIT {
            Ok(())
        } else {
            Err(Error::OnlyRefused(refused_for))
        }
    }

    /// The next rows to publish, half a window at most; `None` at `stop`.
    async fn next_batch(&self, stop: &CancellationToken) -> Option<Vec<Claimed>> {
        let most = (self.relay.settings.window / 2).max(1);
        let mut source = tokio::select! {
            source = self.source.lock() => source,
            () = stop.cancelled() => return None,
        };
        loop {
            if stop.is_cancelled() {
                return None;
            }
            if Instant::now() >= source.next_claim {
                source.next_claim = Instant::now() + POLL;
                self.claim(&mut source, most).await;
            }
            source.take_handed_over(most);
            if !source.waiting.is_empty() {
                let size = most.min(source.waiting.len());
                return Some(source.waiting.drain(..size).collect());
            }
            let next_claim = source.next_claim;
            tokio::select! {
                Some(rows) = source.handed_over.recv() => source.waiting.extend(claimed(rows)),
                () = self.relay.committed.notified() => source.next_claim = Instant::now(),
                () = tokio::time::sleep_until(next_claim) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Takes free rows from the table, unless they may be ones that only wait to be marked.
    async fn claim(&self, source: &mut Source, most: usize) {
        if self.relay.unmarked.load(Ordering::Relaxed) {
            return;
        }
        match bounded(outbox::claim(&self.relay.pool, self.lease, most)).await {
            Ok(rows) => {
                if rows.len() == most {
                    // there may be more
                    source.next_claim = Instant::now();
                }
                self.in_hand
                    .take(rows.iter().map(|row| row.envelope.message_id));
                source.waiting.extend(rows);
            }
            Err(error) => warn!(%error, "cannot look for rows to publish"),
        }
    }

    async fn renew(&self) {
        loop {
            tokio::time::sleep(LEASE / 4).await;
            if let Err(error) = bounded(outbox::renew(
                &self.relay.pool,
                self.lease,
                &self.in_hand.all(),
            ))
            .await
            {
                warn!(%error, "the lease on rows being published is not renewed");
            }
        }
    }
}

impl Source {
    pub(super) fn new(handed_over: mpsc::Receiver<Vec<Envelope>>) -> Self {
        Self {
            handed_over,
            waiting: VecDeque::new(),
            next_claim: Instant::now(),
        }
    }

    fn take_handed_over(&mut self, most: usize) {
        while self.waiting.len() < most {
            let Ok(rows) = self.handed_over.try_recv() else {
                break;
            };
            self.waiting.extend(claimed(rows));
        }
    }
}

fn claimed(rows: Vec<Envelope>) -> impl Iterator<Item = Claimed> {
    rows.into_iter()
        .map(|envelope| Claimed { envelope, tries: 0 })
}

async fn hit(fail_points: &FailPoints, name: &'static str) -> Result<(), Error> {
    fail_points
        .hit(name)
        .await
        .map_err(|_| Error::Injected(name))
}
