//! What became of the runs whose dead letters were sent back: their verdicts on file, and new audits of them.
//!
//! An audit is asked for by a person, and is the same as `lab audit --run`: it watches until nothing of the run is on its way,
//! judges, and puts the verdict into the folder of the run. A console that dies meanwhile leaves the verdict of before.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use daemon::lifecycle::Lifecycle;
use serde::Serialize;
use tokio::task::spawn_blocking;
use web::Error;

use crate::audit::anew::{self, Wanted};
use crate::audit::ledger::Ledger;
use crate::audit::{self, Verdict};
use crate::console::ground::Ground;
use crate::experiment::journal;
use crate::report;
use crate::run::{RunDir, RunId};

/// A run, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct OfRun {
    pub(super) run: String,
    /// Whether the load's own record of it is here: without it nothing can be judged.
    pub(super) on_record: bool,
    /// How far the audit is that goes on.
    pub(super) going: Option<String>,
    /// Why the last audit that was asked for could not be made.
    pub(super) failed: Option<String>,
    /// Of the last audit on file.
    pub(super) verdict: Option<Verdict>,
    pub(super) reasons: Vec<String>,
    pub(super) audited_at: Option<DateTime<Utc>>,
    /// The last audit was made when the redrive was over.
    pub(super) after: bool,
    /// Where the page of the run is.
    pub(super) report: Option<String>,
}

impl OfRun {
    /// What is on file of this run.
    fn read(root: &Path, run: String, ended: Option<DateTime<Utc>>) -> Self {
        let mut known = Self {
            run,
            on_record: false,
            going: None,
            failed: None,
            verdict: None,
            reasons: Vec::new(),
            audited_at: None,
            after: false,
            report: None,
        };
        let id: Option<RunId> = known.run.parse().ok();
        let Some(dir) = id.and_then(|id| RunDir::open(root, &id).ok()) else {
            return known;
        };
        known.on_record = true;
        if dir.path(report::PAGE).is_file() {
            known.report = Some(format!("/lab/runs/{}/{}", known.run, report::PAGE));
        }
        match on_file(&dir) {
            Ok(Some((verdict, report))) => {
                known.verdict = Some(verdict);
                // It reads the ledger as it is when it begins.
                let read_at = report.audited_at - Duration::from_millis(report.took_ms);
                known.after = ended.is_some_and(|ended| read_at > ended);
                known.audited_at = Some(report.audited_at);
                known.reasons = report.reasons;
            }
            Ok(None) => {}
            Err(error) => known.failed = Some(format!("{error:#}")),
        }
        known
    }
}

/// The verdict that counts, and the audit that it is of. That of an experiment knows its limits too.
fn on_file(run: &RunDir) -> Result<Option<(Verdict, audit::Report)>> {
    if let Some(journal) = journal::read(run)? {
        return Ok(Some((journal.verdict(), journal.audit)));
    }
    let report: Option<audit::Report> = run.read(audit::report::FILE)?;
    Ok(report.map(|report| (report.verdict, report)))
}

/// Of one that was asked for here.
enum Asked {
    /// How far it is.
    Going(String),
    /// It could not be made.
    Failed(String),
}

/// Who audits. Clones share everything.
#[derive(Clone)]
pub struct Audits {
    root: PathBuf,
    ground: Arc<Ground>,
    life: Lifecycle,
    asked: Arc<Mutex<BTreeMap<String, Asked>>>,
    /// One at a time: each reads all of a run.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Audits {
    /// Of runs in this folder, on this stack.
    pub fn new(root: &Path, ground: Ground, life: &Lifecycle) -> Self {
        Self {
            root: root.to_owned(),
            ground: Arc::new(ground),
            life: life.clone(),
            asked: Arc::default(),
            turn: Arc::default(),
        }
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<String, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of these runs. `ended`: when the redrive was over.
    pub(super) async fn of(
        &self,
        runs: Vec<String>,
        ended: Option<DateTime<Utc>>,
    ) -> Result<Vec<OfRun>, Error> {
        let root = self.root.clone();
        let read = move || -> Vec<OfRun> {
            let read = |run| OfRun::read(&root, run, ended);
            runs.into_iter().map(read).collect()
        };
        let mut all = spawn_blocking(read).await.map_err(Error::internal)?;
        let asked = self.asked();
        for one in &mut all {
            match asked.get(&one.run) {
                Some(Asked::Going(how)) => one.going = Some(how.clone()),
                Some(Asked::Failed(why)) => one.failed = Some(why.clone()),
                None => {}
            }
        }
        Ok(all)
    }

    /// Begins one, unless it goes on already.
    pub(super) fn begin(&self, run: &str) {
        let waits = Asked::Going("it waits for its turn".to_owned());
        match self.asked().entry(run.to_owned()) {
            Entry::Occupied(there) if matches!(there.get(), Asked::Going(_)) => return,
            Entry::Occupied(mut there) => drop(there.insert(waits)),
            Entry::Vacant(free) => drop(free.insert(waits)),
        }
        let (audits, run) = (self.clone(), run.to_owned());
        self.life.spawn_once("audit", async move {
            let stopping = audits.life.stopping();
            let audited = stopping.run_until_cancelled(audits.audit(&run)).await;
            match audited {
                Some(Err(error)) => {
                    let why = format!("{error:#}");
                    tracing::warn!(run, "no audit: {why}");
                    audits.asked().insert(run, Asked::Failed(why));
                }
                Some(Ok(())) | None => drop(audits.asked().remove(&run)),
            }
            Ok(())
        });
    }

    fn tell(&self, run: &str, how: &str) {
        let how = how.trim().to_owned();
        self.asked().insert(run.to_owned(), Asked::Going(how));
    }

    async fn audit(&self, run: &str) -> Result<()> {
        let _turn = self.turn.lock().await;
        let dir = RunDir::open(&self.root, &run.parse()?)?;
        let sight = self.ground.sight().await?;
        let ledger = Ledger::new(&sight.auditor_url)?;
        let here = ledger.identity().await?;
        ensure!(
            dir.meta()?.ledger.is_none_or(|theirs| theirs == here),
            "its messages are in another ledger than this one"
        );
        let wanted = Wanted {
            unhealed: anew::unhealed(&self.ground.notes()),
            ..Wanted::default()
        };
        self.tell(run, "it begins");
        let tell = &mut |line: &str| self.tell(run, line);
        let made = anew::audit(&sight, &ledger, &dir, wanted, tell).await?;
        ensure!(
            made.report.saw(),
            "it saw nothing: {}",
            made.report.reasons.join("; ")
        );
        made.page.context("the page of the run is not up to date")
    }
}
