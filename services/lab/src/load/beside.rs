//! What a load does beside its requests: of notes it reads the list, of leases it leases and confirms.
//!
//! It begins before the first request and ends after the last: readers when they have seen all that they wait for, lessees
//! when their queue is empty.

use std::future::pending;
use std::time::Instant;

use anyhow::Result;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use uuid::Uuid;

use super::Plan;
use super::lessees::{Leases, Lessees};
use super::readers::{Readers, Reads};
use crate::run::sight::Sight;
use crate::run::{Job, RunDir};

/// How far the requests are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pace {
    Goes,
    /// All have their answers.
    Over,
    /// The same, and nobody wants to wait for anything.
    Stopped,
}

impl Pace {
    /// Comes back when nobody wants to wait any more.
    pub(super) async fn stopped(mut pace: watch::Receiver<Self>) {
        if pace.wait_for(|pace| *pace == Self::Stopped).await.is_err() {
            // nobody is left who could say so
            pending::<()>().await;
        }
    }
}

/// Who does it.
pub(super) enum Beside {
    Nobody,
    Readers(Readers),
    Lessees(Box<Lessees>),
}

/// What it came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) reads: Option<Reads>,
    pub(super) leases: Option<Leases>,
}

impl Beside {
    /// Makes what it needs. Who sends requests tells by the other end as what it was accepted.
    pub(super) async fn prepare(
        plan: &Plan,
        sight: &Sight,
        run: &RunDir,
    ) -> Result<(Self, Option<UnboundedSender<Uuid>>)> {
        match plan.to {
            Job::Notes if plan.readers > 0 => {
                let (heard, hears) = unbounded_channel();
                let readers = Readers::new(&sight.gateway, plan.readers, hears);
                Ok((Self::Readers(readers), Some(heard)))
            }
            Job::Leases => {
                let lessees = Lessees::prepare(plan, sight, run).await?;
                Ok((Self::Lessees(Box::new(lessees)), None))
            }
            _ => Ok((Self::Nobody, None)),
        }
    }

    /// Until its end. The load began at this moment.
    pub(super) async fn run(self, pace: watch::Receiver<Pace>, began: Instant) -> Result<Told> {
        let (mut reads, mut leases) = (None, None);
        match self {
            Self::Nobody => {}
            Self::Readers(readers) => reads = Some(readers.run(pace).await),
            Self::Lessees(lessees) => leases = Some(lessees.run(pace, began).await?),
        }
        Ok(Told { reads, leases })
    }
}
