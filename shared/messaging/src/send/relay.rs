//! Sees every outbox row to its end.
//!
//! A *publisher session* is one connection, two [`Publisher`]s in turn and one lease id. The accepting
//! code hands its committed rows straight over while a session is open ([`Handover`]); everything else
//! (rows of dead nodes, rows whose back-off is over, rows accepted while the broker was away) is
//! claimed from the table. The lease is renewed only as long as the session is open.
//!
//! What the broker said goes to a marker that outlives sessions and repeats a failed mark until it
//! succeeds, so that a message confirmed while Postgres was away is not published again by this node.
//!
//! Between two lines: die before the publish: the lease ends, another node publishes. Die between
//! publish and confirm, or between confirm and mark: the same, and the broker has the message twice
//! under one id. The link breaks: everything without a word from the broker is freed at once, or, if
//! Postgres is away too, when its lease ends.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chaos::FailPoints;
use futures::{Stream, pin_mut};
use lapin::{Connection, Event};
use sqlx::PgPool;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::{
    outbox::{self, Claimed, LEASE, Outcome, Published},
    publisher::Publisher,
};
use crate::{
    Error, bounded,
    connection::{self, Backoff, Broker, Link},
    envelope::Envelope,
    topology,
};

/// How long a free row may lie unseen when nothing announces it.
const POLL: Duration = Duration::from_millis(500);
/// How long a session goes on while the queue refuses everything.
const REFUSED_LIMIT: Duration = Duration::from_secs(10);
/// How many handed-over groups may wait for the publishers; further ones are left to be claimed.
const HANDED_OVER: usize = 64;

/// What the relay needs to run.
pub struct RelaySettings {
    /// Shown in the history of tries.
    pub node: String,
    /// Most messages published and not yet confirmed.
    pub window: usize,
}

/// The accepting side's end: lets a commit hand its rows over without the detour through the table.
#[derive(Clone)]
pub struct Handover {
    open: watch::Receiver<Option<OpenSession>>,
    committed: Arc<Notify>,
}

#[derive(Clone)]
struct OpenSession {
    lease: Uuid,
    rows: mpsc::Sender<Vec<Envelope>>,
}

/// A place in the queue of an open session. Store the rows under [`Reservation::lease`], commit, then
/// [`Reservation::hand_over`]. Dropped without that (the commit failed): nothing happens.
pub struct Reservation {
    lease: Uuid,
    permit: mpsc::OwnedPermit<Vec<Envelope>>,
}

impl Reservation {
    /// The publisher session that will hold the rows.
    pub fn lease(&self) -> Uuid {
        self.lease
    }

    /// The rows are committed: publish them. Should the session have ended meanwhile, they are free
    /// again when their lease ends.
    pub fn hand_over(self, rows: Vec<Envelope>) {
        self.permit.send(rows);
    }
}

impl Handover {
    /// A place for one group of rows, if a session is open and has room.
    pub fn reserve(&self) -> Option<Reservation> {
        let OpenSession { lease, rows } = self.open.borrow().clone()?;
        Some(Reservation {
            lease,
            permit: rows.try_reserve_owned().ok()?,
        })
    }

    /// Rows were committed without a lease: claim them soon.
    pub fn announce(&self) {
        self.committed.notify_one();
    }
}

/// The loop.
pub struct Relay {
    broker: Broker,
    pool: PgPool,
    settings: RelaySettings,
    fail_points: FailPoints,
    link: watch::Sender<Link>,
    open: watch::Sender<Option<OpenSession>>,
    committed: Arc<Notify>,
    /// The lease of a session that ended, until it is known to be freed.
    stale: Mutex<Option<Uuid>>,
}

impl Relay {
    /// A relay that is not running yet, the accepting side's end, and the state of its link.
    pub fn new(
        broker: Broker,
        pool: PgPool,
        settings: RelaySettings,
        fail_points: FailPoints,
    ) -> (Self, Handover, watch::Receiver<Link>) {
        let (link, linked) = watch::channel(Link::Connecting);
        let (open, opened) = watch::channel(None);
        let committed = Arc::new(Notify::new());
        let handover = Handover {
            open: opened,
            committed: Arc::clone(&committed),
        };
        let stale = Mutex::new(None);
        (
            Self {
                broker,
                pool,
                settings,
                fail_points,
                link,
                open,
                committed,
                stale,
            },
            handover,
            linked,
        )
    }

    /// Runs until `stop`: then publishes no more, waits for the confirms that are under way, marks
    /// them and frees the rest.
    ///
    /// # Errors
    /// Only what another session would meet again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let (marks, marked) = mpsc::channel(HANDED_OVER);
        let sessions = async {
            let sender = marks;
            connection::supervise("publisher", &self.link, &stop, || {
                self.session(&stop, &sender)
            })
            .await
        };
        let (result, ()) = tokio::join!(sessions, self.mark(marked));
        result
    }

    async fn session(
        &self,
        stop: &CancellationToken,
        marks: &mpsc::Sender<Mark>,
    ) -> Result<(), Error> {
        let (connection, events) = self.broker.connect("publisher").await?;
        topology::declare(&connection, self.broker.queue_type).await?;
        let publishers = [
            Publisher::open(&connection, self.link.subscribe(), self.fail_points.clone()).await?,
            Publisher::open(&connection, self.link.subscribe(), self.fail_points.clone()).await?,
        ];
        let lease = Uuid::new_v4();
        let (rows, handed_over) = mpsc::channel(HANDED_OVER);
        let session = Session {
            relay: self,
            lease,
            marks,
            source: tokio::sync::Mutex::new(Source::new(handed_over)),
            refused_since: Mutex::new(None),
        };
        self.free_stale().await;
        self.link.send_replace(Link::Open);
        self.open.send_replace(Some(OpenSession { lease, rows }));
        let result = session.run(&publishers, events, stop).await;
        // From here on commits are not handed over, and what was is freed after the last mark.
        self.open.send_replace(None);
        self.set_stale(Some(lease));
        if result.is_ok() {
            end(&connection, &publishers).await;
        }
        drop(connection);
        flush(marks).await;
        self.free_stale().await;
        result
    }

    fn set_stale(&self, lease: Option<Uuid>) {
        *self.stale.lock().unwrap_or_else(PoisonError::into_inner) = lease;
    }

    /// Frees what the last session left. If that fails, its lease does the same a little later.
    async fn free_stale(&self) {
        let stale = *self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lease) = stale else { return };
        match bounded(outbox::release(&self.pool, lease)).await {
            Ok(()) => self.set_stale(None),
            Err(error) => debug!(%error, "rows of the last session stay leased for now"),
        }
    }

    /// Marks what the broker has said, many at a time, each until it succeeds.
    async fn mark(&self, mut marks: mpsc::Receiver<Mark>) {
        let mut gathered = Vec::new();
        while marks.recv_many(&mut gathered, HANDED_OVER).await > 0 {
            let mut flushed = Vec::new();
            let mut published = Vec::new();
            for mark in gathered.drain(..) {
                match mark {
                    Mark::Published(more) => published.extend(more),
                    Mark::Flush(done) => flushed.push(done),
                }
            }
            let mut backoff = Backoff::default();
            while !published.is_empty() {
                match bounded(outbox::mark(&self.pool, &self.settings.node, &published)).await {
                    Ok(()) => break,
                    Err(error) => {
                        warn!(%error, rows = published.len(), "published rows are not marked yet");
                        tokio::time::sleep(backoff.next_pause()).await;
                    }
                }
            }
            for done in flushed {
                let _ = done.send(());
            }
        }
    }
}

enum Mark {
    Published(Vec<Published>),
    Flush(oneshot::Sender<()>),
}

/// Waits until everything said so far is marked; not for long, since Postgres may be away.
async fn flush(marks: &mpsc::Sender<Mark>) {
    let (done, flushed) = oneshot::channel();
    let flush = async {
        if marks.send(Mark::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    };
    let _ = tokio::time::timeout(connection::RPC_LIMIT, flush).await;
}

async fn end(connection: &Connection, publishers: &[Publisher]) {
    let channels: Vec<_> = publishers.iter().map(Publisher::channel).collect();
    connection::close(connection, &channels).await;
}

struct Source {
    handed_over: mpsc::Receiver<Vec<Envelope>>,
    /// Handed over and not yet in a batch.
    waiting: VecDeque<Claimed>,
    /// When to look into the table again, however much is handed over meanwhile.
    next_claim: Instant,
}

struct Session<'a> {
    relay: &'a Relay,
    lease: Uuid,
    marks: &'a mpsc::Sender<Mark>,
    source: tokio::sync::Mutex<Source>,
    /// Since when the queue has refused everything.
    refused_since: Mutex<Option<Instant>>,
}

impl Session<'_> {
    async fn run(
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
        }
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
        let _ = self.marks.send(Mark::Published(published)).await;
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
            if Instant::now() >= source.next_claim {
                source.next_claim = Instant::now() + POLL;
                match bounded(outbox::claim(&self.relay.pool, self.lease, most)).await {
                    Ok(rows) => {
                        if rows.len() == most {
                            // there may be more
                            source.next_claim = Instant::now();
                        }
                        source.waiting.extend(rows);
                    }
                    Err(error) => warn!(%error, "cannot look for rows to publish"),
                }
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

    async fn renew(&self) {
        loop {
            tokio::time::sleep(LEASE / 4).await;
            if let Err(error) = bounded(outbox::renew(&self.relay.pool, self.lease)).await {
                warn!(%error, "the lease on rows being published is not renewed");
            }
        }
    }
}

impl Source {
    fn new(handed_over: mpsc::Receiver<Vec<Envelope>>) -> Self {
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
