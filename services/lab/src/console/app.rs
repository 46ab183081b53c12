//! What every part of the console can reach.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use daemon::lifecycle::Lifecycle;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::balance::Balances;
use super::feed::Feed;
use super::ground::Ground;
use super::hear::Heard;
use super::history::History;
use super::knobs::Knobs;
use super::load::Loads;
use super::picture::{FaultNow, Healing, Picture};
use crate::faults::active::Active;
use crate::service::api::App as Experiments;
use crate::service::shown::Shown;

/// A page does not wait longer for Redis.
const LIMIT: Duration = Duration::from_millis(500);

/// All of it. Clones share it.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// What an [`App`] holds.
pub struct Inner {
    pub root: PathBuf,
    pub ground: Ground,
    pub pool: PgPool,
    pub knobs: Knobs,
    pub feed: Feed,
    pub heard: Heard,
    pub history: History,
    pub loads: Loads,
    pub healing: Healing,
    pub balances: watch::Receiver<Balances>,
    pub picture: watch::Receiver<Arc<Picture>>,
    pub experiments: Experiments,
    /// Why no experiment can be played here.
    pub no_experiments: Option<String>,
    pub stopping: CancellationToken,
    pub life: Lifecycle,
}

impl From<Inner> for App {
    fn from(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    /// How everything is now.
    pub fn picture(&self) -> Arc<Picture> {
        Arc::clone(&self.picture.borrow())
    }

    /// The same with what people do as it is at this moment: who has just turned or broken something sees it.
    pub async fn picture_now(&self) -> Picture {
        let mut now = (*self.picture()).clone();
        if let Ok(Ok(knobs)) = timeout(LIMIT, self.knobs.read()).await {
            now.knobs = knobs;
        }
        now.faults = self.faults();
        now.load = self.loads.now();
        now
    }

    /// What is broken on purpose.
    pub fn faults(&self) -> Vec<FaultNow> {
        let noted = self.ground.notes().all().unwrap_or_default();
        let with_end = |active: Active| FaultNow {
            until: self.healing.of(&active.id),
            ..FaultNow::from(active)
        };
        noted.into_iter().map(with_end).collect()
    }

    /// The run of an experiment that is going on.
    pub fn experiment(&self) -> Option<Shown> {
        let runs = self.experiments.book().all();
        let mut going = runs.into_iter().rev().filter(|run| run.state.is_ours());
        let mut run = going.next()?;
        // only what is told last: the page of the run has all
        let steps = run.steps.len().saturating_sub(5);
        run.steps.drain(..steps);
        Some(run)
    }
}
