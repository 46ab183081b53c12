//! The load of the console: at most one, offered through the gateway as `lab load` does it, and on record like any other run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use daemon::clock;
use daemon::lifecycle::Lifecycle;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ground::Ground;
use crate::audit::ledger::Ledger;
use crate::load::{self, Counts, Plan, Progress, length};
use crate::run::{Meta, RunDir, RunId};

/// How long the end of a load may take: what is on its way has some seconds to be answered.
const END_LIMIT: Duration = Duration::from_secs(20);

/// How the load is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadNow {
    pub run: RunId,
    pub rate: String,
    /// How long it was to take, as people write it.
    #[serde(rename = "for")]
    pub length: String,
    /// Of each text, in bytes.
    pub size: usize,
    /// How many requests are poison.
    pub poison: u64,
    /// When it ends by itself, in milliseconds since 1970.
    pub until: i64,
    pub offered: u64,
    pub accepted: u64,
    pub stopping: bool,
}

struct Going {
    now: LoadNow,
    stop: CancellationToken,
}

/// Who offers. Clones share everything.
#[derive(Clone)]
pub struct Loads {
    life: Lifecycle,
    going: Arc<Mutex<Option<Going>>>,
    ended: watch::Sender<()>,
    /// So that two changes at once follow each other.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Loads {
    /// A load ends with the process.
    pub fn new(life: Lifecycle) -> Self {
        Self {
            life,
            going: Arc::default(),
            ended: watch::Sender::new(()),
            changing: Arc::default(),
        }
    }

    fn going(&self) -> MutexGuard<'_, Option<Going>> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is; none: there is none.
    pub fn now(&self) -> Option<LoadNow> {
        self.going().as_ref().map(|going| going.now.clone())
    }

    /// Begins one. Another one that goes on ends first: that is how a load is changed.
    pub async fn start(
        &self,
        ground: &Ground,
        root: &std::path::Path,
        plan: Plan,
    ) -> Result<LoadNow> {
        let _alone = self.changing.lock().await;
        let sight = ground.sight().await?;
        self.end().await?;
        let id = RunId::new();
        let mut meta = Meta::new(id.clone(), "load", plan.seed, &sight.gateway);
        meta.load = Some(plan.clone());
        meta.elsewhere = ground.flags();
        meta.stack = sight.facts().await;
        meta.ledger = Ledger::identity_at(&sight.auditor_url).await;
        let run = RunDir::create(root, id.clone(), &meta)?;
        let lasts = plan.schedule()?.length();
        let until = clock::now().timestamp_millis() + i64::try_from(lasts.as_millis())?;
        let now = LoadNow {
            run: id.clone(),
            rate: plan.rate.to_string(),
            length: length::show(plan.length.unwrap_or(lasts)),
            size: plan.size,
            poison: plan.poison,
            until,
            offered: 0,
            accepted: 0,
            stopping: false,
        };
        let stop = self.life.stopping().child_token();
        let going = Going {
            now: now.clone(),
            stop: stop.clone(),
        };
        *self.going() = Some(going);
        let loads = self.clone();
        self.life.spawn_once("load", async move {
            let show = |progress: &Progress| loads.see(progress.counts);
            let done = load::run(&plan, &sight, &run, show, stop.cancelled()).await;
            if let Err(error) = done {
                tracing::error!(run = %run.id(), "the load ended: {error:#}");
            }
            *loads.going() = None;
            loads.ended.send_replace(());
            Ok(())
        });
        Ok(now)
    }

    fn see(&self, counts: Counts) {
        if let Some(going) = self.going().as_mut() {
            going.now.offered = counts.offered;
            going.now.accepted = counts.accepted;
        }
    }

    /// Ends it early, if there is one, and says how it was.
    pub async fn stop(&self) -> Result<Option<LoadNow>> {
        let _alone = self.changing.lock().await;
        self.end().await
    }

    async fn end(&self) -> Result<Option<LoadNow>> {
        let mut ended = self.ended.subscribe();
        let last = match self.going().as_mut() {
            None => return Ok(None),
            Some(going) => {
                going.now.stopping = true;
                going.stop.cancel();
                going.now.clone()
            }
        };
        let begun = Instant::now();
        while self.now().is_some() {
            let left = END_LIMIT.saturating_sub(begun.elapsed());
            let waited = tokio::time::timeout(left, ended.changed()).await;
            waited.context("the load does not end")??;
        }
        Ok(Some(last))
    }
}
