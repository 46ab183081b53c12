//! From accepted to processed: what the ledger knows of it when a load is over.
//!
//! The last messages may still be on their way then, so there is a wait for them, and it is short: what became of each
//! message is the audit's to say.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::Latency;
use crate::audit::ledger::{self, Ledger};
use crate::run::job::Books;
use crate::run::{Job, RunDir, RunId};

const WAIT: Duration = Duration::from_secs(10);
const EACH: Duration = Duration::from_millis(250);
/// Of all questions together, beyond the wait.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// How far the messages of a load are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Processed {
    /// To the first effect, by the database's clock; none: there is no effect.
    pub processed_us: Option<Latency>,
    pub stored: u64,
    /// Neither processed nor given up on.
    pub on_their_way: u64,
}

impl Processed {
    /// Waits until every stored message of the run is accounted for, for some seconds at most or until `stop`, and measures.
    /// None: the ledger cannot be read now.
    pub(super) async fn wait(
        url: &str,
        run: &RunDir,
        job: Job,
        stop: impl Future<Output = ()>,
    ) -> Option<Self> {
        // where the load itself has the effects, it has waited for them
        let books = job.books()?;
        if url.is_empty() {
            return None;
        }
        let patience = async {
            tokio::select! {
                () = stop => {}
                () = sleep(WAIT) => {}
            }
        };
        let found = timeout(WAIT + ASK_LIMIT, Self::find(url, run.id(), books, patience)).await;
        found.ok()?.ok()
    }

    async fn find(
        url: &str,
        run: &RunId,
        books: &Books,
        patience: impl Future<Output = ()>,
    ) -> Result<Self> {
        let mut connection = Ledger::new(url)?.connect().await?;
        let mut patience = std::pin::pin!(patience);
        let mut patient = true;
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        loop {
            let now = ledger::progress(&mut connection, books, run).await?;
            let stored = count(now.messages);
            let on_their_way = stored.saturating_sub(count(now.effects + now.parked));
            if on_their_way == 0 || !patient {
                return Ok(Self {
                    processed_us: ledger::processed_us(&mut connection, books, run).await?,
                    stored,
                    on_their_way,
                });
            }
            tokio::select! {
                () = &mut patience => patient = false,
                () = sleep(EACH) => {}
            }
        }
    }
}
