//! Where an audit reads what became of a run: in the ledger, or, where a job has no books that say it, in the run's own
//! record together with what a service tells to anybody who asks.
//!
//! Both give the same three streams, so that there is one merge and one verdict. What a record gives is held in memory: a few
//! hundred bytes a message, for loads that people make by the thousand.

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt};
use uuid::Uuid;

use super::figures::{Cause, NodeCounts};
use super::ledger::Ledger;
use super::merge::{DeadRow, EffectRow, MessageRow};
use super::snapshot::Snapshot;
use super::{leases, mails};
use crate::run::{Job, Meta, RunDir, RunId};

/// One moment of all that is known of a run.
pub enum Source {
    Ledger(Snapshot),
    Held(Box<Held>),
}

/// Something that happened to a message.
pub(super) type Event = (Uuid, DateTime<Utc>, String);

/// Rows that were put together from a record.
pub struct Held {
    pub taken_at: DateTime<Utc>,
    pub messages: Vec<MessageRow>,
    pub effects: Vec<EffectRow>,
    pub dead: Vec<DeadRow>,
    /// Promises that were broken, whatever became of the messages.
    pub broken: Vec<String>,
    /// Copies of mails under one Message-ID; none: there are no mails.
    pub mail_copies: Option<u64>,
    pub nodes: Vec<(String, NodeCounts)>,
    pub events: Vec<Event>,
    /// What the ledger knows beside it.
    pub ledger: Option<Snapshot>,
}

/// The rows of a run, each stream in the order of message ids.
pub(super) type Streams<'a> = (
    BoxStream<'a, Result<MessageRow>>,
    BoxStream<'a, Result<EffectRow>>,
    BoxStream<'a, Result<DeadRow>>,
);

impl Source {
    /// This moment. `drained`: nothing is on its way any more. Without a gateway that of the run is asked.
    pub async fn open(
        ledger: &Ledger,
        gateway: Option<&str>,
        run: &RunDir,
        meta: &Meta,
        drained: bool,
    ) -> Result<Self> {
        let job = meta.job();
        let held = match (job, job.books()) {
            (Job::Signup, Some(books)) => {
                mails::hold(ledger.snapshot(books).await?, run, meta).await?
            }
            (_, Some(books)) => return Ok(Self::Ledger(ledger.snapshot(books).await?)),
            (_, None) => {
                let gateway = gateway.unwrap_or(&meta.gateway);
                leases::hold(gateway, run, meta, drained).await?
            }
        };
        Ok(Self::Held(Box::new(held.sorted())))
    }

    /// When it was.
    pub fn taken_at(&self) -> DateTime<Utc> {
        match self {
            Self::Ledger(snapshot) => snapshot.taken_at,
            Self::Held(held) => held.taken_at,
        }
    }

    pub fn streams<'a>(&'a mut self, run: &'a RunId) -> Streams<'a> {
        match self {
            Self::Ledger(snapshot) => {
                let (messages, effects, dead) = snapshot.streams(run);
                (messages.boxed(), effects.boxed(), dead.boxed())
            }
            Self::Held(held) => (
                given(&held.messages),
                given(&held.effects),
                given(&held.dead),
            ),
        }
    }

    /// What each node did.
    pub async fn nodes(&mut self, run: &RunId) -> Result<Vec<(String, NodeCounts)>> {
        match self {
            Self::Ledger(snapshot) => snapshot.nodes(run).await,
            Self::Held(held) => match &mut held.ledger {
                Some(snapshot) => snapshot.nodes(run).await,
                None => Ok(held.nodes.clone()),
            },
        }
    }

    /// How many failures of the work there were, and why deliveries ended without an effect.
    pub async fn causes(&mut self, run: &RunId) -> Result<(u64, Vec<Cause>)> {
        match self.ledger() {
            Some(snapshot) => snapshot.causes(run).await,
            None => Ok((0, Vec::new())),
        }
    }

    fn ledger(&mut self) -> Option<&mut Snapshot> {
        match self {
            Self::Ledger(snapshot) => Some(snapshot),
            Self::Held(held) => held.ledger.as_mut(),
        }
    }

    /// The messages that are stored under these keys or have these ids: id, key and position.
    pub async fn named(
        &mut self,
        run: &RunId,
        keys: &[String],
        ids: &[Uuid],
    ) -> Result<Vec<(Uuid, String, i32)>> {
        match self {
            Self::Ledger(snapshot) => {
                let mut rows = snapshot.of_keys(keys).await?;
                rows.append(&mut snapshot.of_ids(ids).await?);
                Ok(rows)
            }
            Self::Held(held) => {
                let all = held.messages.iter();
                let keyed =
                    all.filter_map(|row| Some((row.id, run.key(row.number?), row.position)));
                let wanted =
                    |(id, key, _): &(Uuid, String, i32)| keys.contains(key) || ids.contains(id);
                Ok(keyed.filter(wanted).collect())
            }
        }
    }

    /// Everything about these messages.
    pub async fn history(&mut self, ids: &[Uuid]) -> Result<Vec<Event>> {
        let mut events = match self.ledger() {
            Some(snapshot) => snapshot.history(ids).await?,
            None => Vec::new(),
        };
        if let Self::Held(held) = self {
            let theirs = held.events.iter().filter(|(id, ..)| ids.contains(id));
            events.extend(theirs.cloned());
        }
        Ok(events)
    }
}

fn given<T: Copy + Send + Sync + 'static>(rows: &[T]) -> BoxStream<'_, Result<T>> {
    stream::iter(rows.iter().map(|row| Ok(*row))).boxed()
}

impl Held {
    fn sorted(mut self) -> Self {
        self.messages.sort_by_key(|row| row.id);
        self.effects.sort_by_key(|row| row.id);
        self.dead.sort_by_key(|row| row.id);
        self
    }
}

/// A moment of a run's own record, in microseconds as the ledger has them.
pub(super) fn zero(meta: &Meta) -> Result<i64> {
    let began = meta.started_at.context("the load never began")?;
    Ok(began.timestamp_micros())
}

/// So many microseconds after that.
pub(super) fn after(zero: i64, us: u64) -> i64 {
    zero.saturating_add(i64::try_from(us).unwrap_or(i64::MAX))
}
