//! What every deed of a receiver shares.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use daemon::{database::Database, node::Node, parts::Parts, tally::Tally};
use messaging::receive::patience::Held;
use tokio::sync::watch;
use web::{Together, live::LivePage, session::Sessions};

use crate::received::Results;

pub struct App {
    pub node: Arc<Node>,
    pub database: Database,
    pub parts: Parts,
    pub sessions: Sessions,
    pub(crate) results: Together<Results>,
    /// Deliveries held because Postgres does not do what it should.
    pub held: watch::Receiver<Held>,
    pub(crate) live: LivePage,
    pub(crate) tally: Arc<Tally>,
}

impl App {
    /// How many messages this node has processed since it started, and when the last.
    pub fn processed(&self) -> (u64, Option<DateTime<Utc>>) {
        self.tally.read()
    }
}
