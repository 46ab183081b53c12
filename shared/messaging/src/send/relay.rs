//! Sees every outbox row to its end.
//!
//! A *publisher session* is one connection, two [`Publisher`]s in turn and one lease id. The accepting
//! code hands its committed rows straight over while a session is open ([`Handover`]); everything else
//! (rows of dead nodes, rows whose back-off is over, rows accepted while the broker was away) is
//! claimed from the table. The lease is renewed only as long as the session is open, and only for rows
//! that are in hand: a row whose claim or commit was answered into the void becomes free again.
//!
//! What the broker said goes to a marker that outlives sessions and repeats a failed mark until it
//! succeeds. Meanwhile this node claims nothing, since the rows that it would find first are those.
//!
//! Between two lines: die before the publish: the lease ends, another node publishes. Die between
//! publish and confirm, or between confirm and mark: the same, and the broker has the message twice
//! under one id. The link breaks: everything without a word from the broker is freed at once, or, if
//! Postgres is away too, when its lease ends.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chaos::FailPoints;
use futures::{Stream, pin_mut};
use lapin::{Connection, Event};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::{
    outbox::{self, Claimed, LEASE, Outbox, Outcome, Published},
    publisher::Publisher,
};
use crate::{
    Error, bounded,
    connection::{self, Broker, Link},
    envelope::Envelope,
    topology::{self, Route},
};

/// How long a free row may lie unseen when nothing announces it.
const POLL: Duration = Duration::from_millis(500);
/// How long a session goes on while the queue refuses everything.
const REFUSED_LIMIT: Duration = Duration::from_secs(10);
/// How many batches may wait to be marked.
const MARKS: usize = 64;

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
    outbox: Outbox,
    open: watch::Receiver<Option<OpenSession>>,
    committed: Arc<Notify>,
}

#[derive(Clone)]
struct OpenSession {
    lease: Uuid,
    in_hand: InHand,
    rows: mpsc::Sender<Vec<Envelope>>,
}

/// The rows that a session is busy with, from the claim or the hand-over to the mark.
#[derive(Clone, Default)]
struct InHand(Arc<Mutex<HashSet<Uuid>>>);

impl InHand {
    fn take(&self, ids: impl Iterator<Item = Uuid>) {
        self.ids().extend(ids);
    }

    fn leave(&self, ids: impl Iterator<Item = Uuid>) {
        let mut held = self.ids();
        for id in ids {
            held.remove(&id);
        }
    }

    fn all(&self) -> Vec<Uuid> {
        self.ids().iter().copied().collect()
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue of an open session.
///
/// Store the rows under [`Reservation::lease`], commit, then [`Reservation::hand_over`]. Dropped without that: if the rows are there after all (a commit that
/// was not answered), nobody renews their lease, and they are claimed when it ends.
pub struct Reservation {
    lease: Uuid,
    in_hand: InHand,
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
        self.in_hand.take(rows.iter().map(|row| row.message_id));
        self.permit.send(rows);
    }
}

impl Handover {
    /// Adds rows for messages, in the transaction that stores the messages themselves. With a `lease`
    /// they are held by that publisher session at once; without, they are free for any.
    ///
    /// # Errors
    /// The database's.
    pub async fn append(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        envelopes: &[Envelope],
        lease: Option<Uuid>,
    ) -> Result<(), sqlx::Error> {
        self.outbox.append(tx, envelopes, lease).await
    }

    /// A place for one group of rows, if a session is open and has room.
    pub fn reserve(&self) -> Option<Reservation> {
        let OpenSession {
            lease,
            in_hand,
            rows,
        } = self.open.borrow().clone()?;
        Some(Reservation {
            lease,
            in_hand,
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
    outbox: Outbox,
    pool: PgPool,
    settings: RelaySettings,
    fail_points: FailPoints,
    link: watch::Sender<Link>,
    open: watch::Sender<Option<OpenSession>>,
    committed: Arc<Notify>,
    /// The lease of a session that ended, until it is known to be freed.
    stale: Mutex<Option<Uuid>>,
    /// Whether something that the broker confirmed could not be marked yet.
    unmarked: AtomicBool,
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
        let outbox = Outbox::new(&broker.without);
        let handover = Handover {
            outbox,
            open: opened,
            committed: Arc::clone(&committed),
        };
        let stale = Mutex::new(None);
        (
            Self {
                broker,
                outbox,
                pool,
                settings,
                fail_points,
                link,
                open,
                committed,
                stale,
                unmarked: AtomicBool::new(false),
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
        let (marks, marked) = mpsc::channel(MARKS);
        let sessions = async {
            let sender = marks;
            connection::supervise("publisher", &self.link, &stop, || {
                self.session(&stop, &sender)
            })
            .await
        };
        let (result, ()) = tokio::join!(sessions, self.mark(marked, &stop));
        result
    }

    async fn session(
        &self,
        stop: &CancellationToken,
        marks: &mpsc::Sender<Mark>,
    ) -> Result<(), Error> {
        let (connection, events) = self.broker.connect("publisher").await?;
        topology::declare(&connection, &self.broker.topology).await?;
        let publishers = [
            self.publisher(&connection).await?,
            self.publisher(&connection).await?,
        ];
        let lease = Uuid::new_v4();
        let in_hand = InHand::default();
        let (rows, handed_over) = mpsc::channel(self.outbox.places());
        let session = Session {
            relay: self,
            lease,
            in_hand: in_hand.clone(),
            marks,
            source: tokio::sync::Mutex::new(Source::new(handed_over)),
            refused_since: Mutex::new(None),
        };
        self.free_stale().await;
        self.link.send_replace(Link::Open);
        self.open.send_replace(Some(OpenSession {
            lease,
            in_hand,
            rows,
        }));
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

    async fn publisher(&self, connection: &Connection) -> Result<Publisher, Error> {
        let (link, fail_points) = (self.link.subscribe(), self.fail_points.clone());
        let without = &self.broker.without;
        Publisher::open(connection, Route::messages(), without, link, fail_points).await
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

    /// Marks what the broker has said, many at a time, each until it succeeds; after `stop` not for
    /// long, since what is not marked is only published once more.
    async fn mark(&self, mut marks: mpsc::Receiver<Mark>, stop: &CancellationToken) {
        let mut gathered = Vec::new();
        while marks.recv_many(&mut gathered, MARKS).await > 0 {
            let mut flushed = Vec::new();
            let mut sessions = Vec::new();
            let mut published = Vec::new();
            for mark in gathered.drain(..) {
                match mark {
                    Mark::Published(more, in_hand) => {
                        published.extend(more);
                        sessions.push(in_hand);
                    }
                    Mark::Flush(done) => flushed.push(done),
                }
            }
            let given_up = async {
                stop.cancelled().await;
                tokio::time::sleep(connection::RPC_LIMIT).await;
            };
            tokio::select! {
                () = self.mark_all(&published) => {}
                () = given_up => warn!(rows = published.len(), "published rows stay unmarked"),
            }
            for in_hand in sessions {
                in_hand.leave(published.iter().map(|row| row.message_id));
            }
            for done in flushed {
                let _ = done.send(());
            }
        }
    }

    async fn mark_all(&self, published: &[Published]) {
        while !published.is_empty() {
            match bounded(outbox::mark(&self.pool, &self.settings.node, published)).await {
                Ok(()) => break,
                Err(error) => {
                    self.unmarked.store(true, Ordering::Relaxed);
                    warn!(%error, rows = published.len(), "published rows are not marked yet");
                    tokio::time::sleep(POLL).await;
                }
            }
        }
        self.unmarked.store(false, Ordering::Relaxed);
    }
}

enum Mark {
    Published(Vec<Published>, InHand),
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
    in_hand: InHand,
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
            error = self.blocked_at(stop) => Err(error),
        }
    }

    /// A blocked broker confirms nothing: a stop does not wait for it.
    async fn blocked_at(&self, stop: &CancellationToken) -> Error {
        stop.cancelled().await;
        let mut link = self.relay.link.subscribe();
        let blocked = link.wait_for(|link| matches!(link, Link::Blocked(_)));
        // The sender lives in the relay, so this never errs.
        let _ = blocked.await;
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
