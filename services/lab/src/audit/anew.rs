//! An audit of a run that is on file, be it the first or one more: watched, judged, and put into the folder of the run.

use std::time::Duration;

use anyhow::Result;

use super::drain::{self, Bounds};
use super::ledger::Ledger;
use super::verdict::Circumstances;
use super::{Report, audit_behind as judge};
use crate::experiment::journal::{self, Journal};
use crate::faults::Active;
use crate::faults::active::Notes;
use crate::run::RunDir;
use crate::run::sight::Sight;

/// How long nothing of a run may move until it is stuck, where nobody says.
pub const WAIT_SECS: u64 = 60;

/// How it is to be audited.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Watch until the run is drained, or nothing of it has moved for so long; zero judges at once.
    pub wait: Duration,
    /// So many may be given up on although they are not poison; none: as its experiment allows, else 0.
    pub dead_max: Option<u64>,
    /// What is still broken on purpose, if anything is.
    pub unhealed: Option<String>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(WAIT_SECS),
            dead_max: None,
            unhealed: None,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Anew {
    pub report: Report,
    /// What stays on file instead, since this one saw nothing.
    pub earlier: Option<Report>,
    /// Whether the page of the run, if it has one, tells the verdict that counts.
    pub page: Result<()>,
}

/// Watches, judges, and writes it down. `tell` hears how far it is.
///
/// # Errors
/// The folder of the run cannot be read or written. A ledger that cannot be read is an audit without a verdict.
pub async fn audit(
    sight: &Sight,
    ledger: &Ledger,
    run: &RunDir,
    wanted: Wanted,
    tell: &mut (dyn FnMut(&str) + Send),
) -> Result<Anew> {
    let bounds = Bounds {
        recovery: wanted.wait,
        unhealed: wanted.unhealed,
    };
    let drain = drain::watch(sight, ledger, run, &bounds, tell).await;
    let of_experiment = of_experiment(run);
    let mut circumstances = Circumstances {
        drained: drain.drained,
        stuck: drain.stuck,
        dead_max: wanted.dead_max.unwrap_or(of_experiment.dead_max),
        ..of_experiment
    };
    circumstances.doubts.extend(drain.doubts);
    let gateway = Some(&*sight.gateway);
    let report = match judge(gateway, ledger, run, &circumstances).await {
        Ok(report) => report,
        Err(error) => Report::unseen(run, circumstances, &error)?,
    };
    let earlier = report.write(run)?;
    Ok(Anew {
        report,
        earlier,
        page: crate::report::renew(run),
    })
}

/// What stays as it was when the experiment of this run was played: what may be given up on, and which of its faults
/// nobody saw. Of a load nothing.
fn of_experiment(run: &RunDir) -> Circumstances {
    let Ok(Some(journal)) = run.read::<Journal>(journal::FILE) else {
        return Circumstances::default();
    };
    let doubts = journal.faults.into_iter();
    Circumstances {
        dead_max: journal.audit.circumstances.dead_max,
        doubts: doubts.filter_map(|fault| fault.doubt).collect(),
        ..Circumstances::default()
    }
}

/// Faults of a stack that are still active: nothing is stuck while something is broken on purpose.
pub fn unhealed(notes: &Notes) -> Option<String> {
    match notes.all() {
        Ok(active) if active.is_empty() => None,
        Ok(active) => {
            let names: Vec<String> = active.iter().map(Active::describe).collect();
            Some(names.join(", "))
        }
        // something is, and nobody knows what
        Err(error) => Some(format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::journal::FaultRecord;
    use crate::report::made::passed;
    use crate::run::tests::Root;

    #[test]
    fn a_fault_that_nobody_saw_is_a_doubt_in_every_audit_of_its_experiment() {
        let root = Root::new();
        let run = root.run("r1");
        assert_eq!(of_experiment(&run), Circumstances::default());
        let mut journal = passed();
        let doubt = "receiver-kill: it was not seen".to_owned();
        journal.audit.circumstances.dead_max = 3;
        journal.faults.push(FaultRecord {
            doubt: Some(doubt.clone()),
            ..FaultRecord::default()
        });
        journal.write(&run).unwrap();
        let known = of_experiment(&run);
        assert_eq!((known.dead_max, known.doubts), (3, vec![doubt]));
    }
}
