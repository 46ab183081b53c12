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

mod handover;
mod session;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chaos::FailPoints;
use futures::{StreamExt, stream, stream::BoxStream};
use lapin::{Connection, Event};
use sqlx::PgPool;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::{
    outbox::{self, Outbox, Outcome, Published},
    publisher::Publisher,
};
use crate::{
    Error, bounded,
    connection::{self, Broker, Link},
    receive::redrive::Lent,
    topology,
    watching::{Sight, Watching, What},
};
pub use handover::{Handover, Reservation};
use handover::{InHand, OpenSession};
use session::{Session, Source};

/// How long a free row may lie unseen when nothing announces it.
const POLL: Duration = Duration::from_millis(500);
/// How many batches may wait to be marked.
const MARKS: usize = 64;
/// How long they gather, unless somebody waits: each marking is a commit.
const GATHER: Duration = Duration::from_millis(20);

/// What the relay needs to run.
pub struct RelaySettings {
    /// Shown in the history of tries.
    pub node: String,
    /// Most messages published and not yet confirmed.
    pub window: usize,
    /// Who is told what the broker said, once it is marked.
    pub watching: Watching,
    /// Names its connection.
    pub role: &'static str,
    /// None: its connection is its own.
    pub lent: Option<Lent>,
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
            connection::supervise(self.settings.role, &self.link, &stop, || {
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
        if let Some(lent) = &self.settings.lent {
            let Some((connection, events)) = borrow(lent, stop).await else {
                return Ok(());
            };
            return self.session_on(&connection, events, stop, marks).await;
        }
        let (connection, events) = self.broker.connect(self.settings.role).await?;
        let result = self.session_on(&connection, events, stop, marks).await;
        connection::hang_up(&connection).await;
        result
    }

    async fn session_on(
        &self,
        connection: &Connection,
        events: BoxStream<'static, Event>,
        stop: &CancellationToken,
        marks: &mpsc::Sender<Mark>,
    ) -> Result<(), Error> {
        topology::declare(connection, &self.broker.topology).await?;
        let publishers = [
            self.publisher(connection).await?,
            self.publisher(connection).await?,
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
        if self.settings.lent.is_some() {
            give_back(&publishers).await;
        } else {
            if result.is_ok() {
                end(connection, &publishers).await;
            }
            // Before its rows are free: what it has not sent by now, it should not.
            connection::hang_up(connection).await;
        }
        flush(marks).await;
        self.free_stale().await;
        result
    }

    async fn publisher(&self, connection: &Connection) -> Result<Publisher, Error> {
        let (link, fail_points) = (self.watched(), self.fail_points.clone());
        let without = &self.broker.without;
        let route = self.broker.topology.road.route();
        Publisher::open(connection, route, without, link, fail_points).await
    }

    /// Tells when the broker blocks the connection.
    fn watched(&self) -> watch::Receiver<Link> {
        match &self.settings.lent {
            None => self.link.subscribe(),
            Some(lent) => lent.link.clone(),
        }
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
            if !gathered.iter().any(|mark| matches!(mark, Mark::Flush(_))) {
                tokio::time::sleep(GATHER).await;
            }
            while let Ok(mark) = marks.try_recv() {
                gathered.push(mark);
            }
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
                Ok(()) => {
                    self.tell(published);
                    break;
                }
                Err(error) => {
                    self.unmarked.store(true, Ordering::Relaxed);
                    warn!(%error, rows = published.len(), "published rows are not marked yet");
                    tokio::time::sleep(POLL).await;
                }
            }
        }
        self.unmarked.store(false, Ordering::Relaxed);
    }

    fn tell(&self, published: &[Published]) {
        for row in published {
            let what = match row.outcome {
                Outcome::Confirmed => What::Published,
                Outcome::Unroutable => What::Unroutable,
                Outcome::Refused => What::Refused,
            };
            let ms = u128::try_from(row.confirm_ms).unwrap_or(0);
            let tries = u32::try_from(row.tries).unwrap_or(0);
            let sight = Sight::new(what, row.message_id).attempt(tries).ms(ms);
            self.settings.watching.tell(&sight);
        }
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

/// The connection of somebody else, and a stream that ends with it; `None` at `stop`.
async fn borrow(
    lent: &Lent,
    stop: &CancellationToken,
) -> Option<(Arc<Connection>, BoxStream<'static, Event>)> {
    let mut there = lent.connection.clone();
    let connection = tokio::select! {
        found = there.wait_for(Option::is_some) => found.ok()?.clone()?,
        () = stop.cancelled() => return None,
    };
    let gone = stream::once(async move { drop(there.changed().await) });
    let events = gone.filter_map(async |()| None::<Event>).boxed();
    Some((connection, events))
}

/// Leaves the connection to its owner.
async fn give_back(publishers: &[Publisher]) {
    for publisher in publishers {
        let closing = publisher.channel().close(200, "bye".into());
        if let Err(error) = connection::within("close", closing).await {
            debug!(%error, "a channel was left behind");
        }
    }
}

async fn end(connection: &Connection, publishers: &[Publisher]) {
    let channels: Vec<_> = publishers.iter().map(Publisher::channel).collect();
    connection::close(connection, &channels).await;
}
