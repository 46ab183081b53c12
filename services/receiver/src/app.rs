//! What every deed of a receiver shares.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use chrono::{DateTime, Utc};
use daemon::{clock, database::Database, node::Node, parts::Parts};
use messaging::receive::patience::Held;
use tokio::sync::watch;
use web::session::Sessions;

#[derive(Clone)]
pub struct App {
    pub node: Arc<Node>,
    pub database: Database,
    pub parts: Parts,
    pub sessions: Sessions,
    /// Deliveries held because Postgres does not do what it should.
    pub held: watch::Receiver<Held>,
    pub(crate) tally: Arc<Tally>,
}

/// What this process has processed since it started.
#[derive(Default)]
pub(crate) struct Tally {
    count: AtomicU64,
    last: Mutex<Option<DateTime<Utc>>>,
}

impl App {
    /// How many messages this node has processed since it started, and when the last.
    pub fn processed(&self) -> (u64, Option<DateTime<Utc>>) {
        let last = *self
            .tally
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (self.tally.count.load(Ordering::Relaxed), last)
    }
}

impl Tally {
    pub(crate) fn add(&self, effects: usize) {
        self.count.fetch_add(effects as u64, Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::now());
    }
}
