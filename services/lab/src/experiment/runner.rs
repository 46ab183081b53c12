//! One experiment, from new nodes to a journal.
//!
//! Load and faults begin at the same moment and go on beside each other; both must end before anything is judged. What is
//! still active then is healed, the nodes get ready, the run is drained and audited. Whoever drops this future in between
//! leaves the faults' notes on disk: [`Stage::close`] heals by them.

use std::cell::Cell;
use std::future::pending;
use std::time::{Duration, Instant};

use anyhow::Result;
use daemon::clock;
use futures::future::join_all;

use super::expect::Found;
use super::file::{Experiment, Setup};
use super::harm::Harm;
use super::journal::{FaultRecord, Journal};
use super::sampler::Sampler;
use super::schedule::{Planned, Start, schedule};
use super::stage::Stage;
use super::strike::Striker;
use super::watch::{Phase, Seen, Watch};
use crate::audit::drain::{self, Bounds};
use crate::audit::ledger::Ledger;
use crate::audit::{self, Circumstances, Report, Verdict};
use crate::run::sight::Sight;
use crate::run::{Meta, RunDir, RunId};
use crate::say::Steps;
use crate::{load, report};

/// What is to be played.
#[derive(Debug, Clone, Copy)]
pub struct Play<'a> {
    pub experiment: &'a Experiment,
    pub setup: &'a Setup,
    pub twin: bool,
    pub seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Played {
    pub journal: Journal,
    pub verdict: Verdict,
    pub page: Option<std::path::PathBuf>,
}

impl Play<'_> {
    /// As it is called among runs.
    pub fn kind(&self) -> String {
        let name = &self.experiment.name;
        if self.twin {
            format!("{name} (twin)")
        } else {
            name.clone()
        }
    }

    /// Plays it on this stage. Its folder is in `root`.
    pub async fn run(
        &self,
        stage: &Stage,
        root: &std::path::Path,
        steps: &Steps<'_>,
    ) -> Result<Played> {
        self.run_as(RunId::new(), stage, root, steps, &|_| {}).await
    }

    /// The same as the run of this name, while somebody watches.
    pub async fn run_as(
        &self,
        id: RunId,
        stage: &Stage,
        root: &std::path::Path,
        steps: &Steps<'_>,
        watch: Watch<'_>,
    ) -> Result<Played> {
        let begun = Instant::now();
        watch(Seen::Phase(Phase::Starting));
        let sight = Box::pin(stage.set(self.setup, &id)).await?;
        steps.done(
            begun,
            format!("nodes are ready; run {id}, seed {}", self.seed),
        );
        let mut meta = Meta::new(id.clone(), &self.kind(), self.seed, &sight.gateway);
        meta.stack = sight.facts_of(self.setup.load.to).await;
        meta.mails.clone_from(&sight.mails);
        meta.ledger = Ledger::identity_at(&sight.auditor_url).await;
        meta.elsewhere = stage.elsewhere_flags().to_owned();
        meta.stack.settings.extend(self.setup.named.clone());
        let run = RunDir::create(root, id, &meta)?;
        let (load, faults, samples, mut circumstances) =
            self.course(stage, &sight, &run, steps, watch).await?;
        watch(Seen::Phase(Phase::Judging));

        circumstances.dead_max = self.setup.expect.dead_max;
        let ledger = Ledger::new(&sight.auditor_url)?;
        let gateway = Some(&*sight.gateway);
        let audit = match audit::audit_behind(gateway, &ledger, &run, &circumstances).await {
            Ok(report) => report,
            Err(error) => Report::unseen(&run, circumstances, &error)?,
        };
        audit.write(&run)?;
        let receivers: Vec<String> = sight
            .nodes
            .iter()
            .filter(|node| self.setup.load.to.works() == Some(node.service))
            .map(|node| node.name.clone())
            .collect();
        let found = Found {
            audit: &audit,
            load: &load,
            faults: &faults,
            receivers: &receivers,
        };
        let (verdict, expectations, outcome) = self.setup.expect.judge(&found);
        let meta = run.meta()?;
        let now = clock::now();
        let journal = Journal {
            run: run.id().clone(),
            title: self.experiment.title.clone(),
            learn: self.experiment.learn.clone(),
            path: self.experiment.path.clone(),
            file: self.experiment.text.clone(),
            seed: self.seed,
            twin: self.twin,
            started_at: meta.started_at.unwrap_or(now),
            ended_at: now,
            stack: meta.stack,
            load,
            faults,
            samples,
            audit,
            expectations,
            outcome,
        };
        journal.write(&run)?;
        let page = match report::write(&journal, &run) {
            Ok(page) => Some(page),
            // what was found out stands in the journal
            Err(error) => {
                steps.note(format!("no report could be written: {error:#}"));
                None
            }
        };
        stage.clear().await?;
        Ok(Played {
            journal,
            verdict,
            page,
        })
    }

    /// Load and faults, then all that it takes until the run can be judged.
    async fn course(
        &self,
        stage: &Stage,
        sight: &Sight,
        run: &RunDir,
        steps: &Steps<'_>,
        watch: Watch<'_>,
    ) -> Result<(
        load::Summary,
        Vec<FaultRecord>,
        Vec<super::journal::Sample>,
        Circumstances,
    )> {
        let (sampler, zero) = (Sampler::default(), Instant::now());
        let mut plan = self.setup.load.clone();
        plan.seed = self.seed;
        let over = Cell::new(false);
        let striker = Striker {
            stage,
            nodes: &sight.nodes,
            zero,
            load_over: &over,
            recovery: self.setup.recovery,
            steps,
        };
        watch(Seen::Phase(Phase::Loading));
        let course = async {
            let load = async {
                let summary = load::run(
                    &plan,
                    sight,
                    run,
                    |progress| sampler.note(progress),
                    pending(),
                )
                .await;
                over.set(true);
                let summary = summary?;
                let (accepted, offered) = (summary.counts.accepted, summary.counts.offered);
                steps.done(
                    zero,
                    format!("load over: {accepted} of {offered} requests accepted"),
                );
                Ok::<_, anyhow::Error>(summary)
            };
            let (load, faults) = tokio::join!(load, self.harm(&striker));
            let load = load?;
            watch(Seen::Phase(Phase::Draining));
            let circumstances = self.drained(stage, sight, run, &faults, steps).await?;
            Ok::<_, anyhow::Error>((load, faults, circumstances))
        };
        let sampling = sampler.run(sight, stage.client(), zero, &plan, watch);
        let (load, faults, circumstances) = tokio::select! {
            course = course => course?,
            () = sampling => unreachable!("it has no end"),
        };
        Ok((load, faults, sampler.take(), circumstances))
    }

    /// Everything that is planned, in its time.
    async fn harm(&self, striker: &Striker<'_>) -> Vec<FaultRecord> {
        let plan = schedule(self.setup, self.seed);
        match &self.setup.harm {
            Harm::Faults(_) => {
                let length = self.setup.load.length;
                let each = plan.iter().map(|planned| {
                    let (Start::At(at) | Start::Pause(at)) = planned.start;
                    let under_load = length.is_some_and(|length| at < length);
                    striker.strike(planned, at, under_load)
                });
                join_all(each).await
            }
            Harm::Storm(storm) => storm_of(&plan, storm.faults.len(), storm.length, striker).await,
        }
    }

    /// Heals what is left, waits until nothing is on its way, and says what cannot be known.
    async fn drained(
        &self,
        stage: &Stage,
        sight: &Sight,
        run: &RunDir,
        faults: &[FaultRecord],
        steps: &Steps<'_>,
    ) -> Result<Circumstances> {
        let begun = Instant::now();
        let mut doubts: Vec<String> = faults
            .iter()
            .filter_map(|fault| fault.doubt.clone())
            .collect();
        for (active, healed) in stage.injector().heal_all().await? {
            // each was tried before, and is a doubt already
            if let Err(error) = healed {
                steps.note(format!("{}: {error:#}", active.describe()));
            }
        }
        if let Err(why) = stage.ready(&sight.nodes, self.setup.recovery).await {
            doubts.push(format!("not everything was right again: {why}"));
        }
        let left: Vec<String> = stage
            .injector()
            .active()?
            .iter()
            .map(crate::faults::Active::describe)
            .collect();
        let bounds = Bounds {
            recovery: self.setup.recovery,
            unhealed: (!left.is_empty()).then(|| left.join(", ")),
        };
        let ledger = Ledger::new(&sight.auditor_url)?;
        let drain = drain::watch(sight, &ledger, run, &bounds, &mut |_| {}).await;
        let how = match (drain.drained, drain.stuck) {
            (true, _) => "drained",
            (false, true) => "stuck",
            (false, false) => "not drained",
        };
        steps.done(begun, how);
        doubts.extend(drain.doubts);
        doubts.dedup();
        Ok(Circumstances {
            drained: drain.drained,
            stuck: drain.stuck,
            doubts,
            broken: Vec::new(),
            dead_max: 0,
        })
    }
}

/// One fault at a time, the next when everything is right again, until the time is over and every kind had its turn.
async fn storm_of(
    plan: &[Planned],
    kinds: usize,
    length: Duration,
    striker: &Striker<'_>,
) -> Vec<FaultRecord> {
    let mut records: Vec<FaultRecord> = Vec::new();
    for (place, planned) in plan.iter().enumerate() {
        let (Start::Pause(pause) | Start::At(pause)) = planned.start;
        let due = striker.zero.elapsed() + pause;
        if due > length && place >= kinds {
            break;
        }
        records.push(striker.strike(planned, due, place < kinds).await);
    }
    records
}
