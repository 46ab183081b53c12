//! What an experiment put down: `journal.json` in the folder of its run.
//!
//! All times are milliseconds after the run's start, which is the load's.

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::audit::Verdict;
use crate::audit::class::Class;
use crate::run::{self, RunDir, RunId};
use crate::stack::dir::write_secret;
use crate::{audit, load};

/// Its name in the folder of a run.
pub const FILE: &str = "journal.json";

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    pub run: RunId,
    pub title: String,
    pub learn: String,
    /// Where the file was; none: it came with the lab.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// The file as it was run.
    pub file: String,
    /// With it and the file the same faults come in the same order.
    pub seed: u64,
    /// It was the unsafe twin.
    pub twin: bool,
    pub started_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
    pub stack: run::Facts,
    pub load: load::Summary,
    pub faults: Vec<FaultRecord>,
    pub samples: Vec<Sample>,
    pub audit: audit::Report,
    pub expectations: Vec<Expectation>,
    pub outcome: Outcome,
}

/// What an experiment came to, beside what was expected of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    AsExpected,
    NotAsExpected,
    /// The lab could not observe, inject or heal.
    Inconclusive,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AsExpected => "as expected",
            Self::NotAsExpected => "NOT as expected",
            Self::Inconclusive => "inconclusive",
        })
    }
}

/// One fault, from its plan to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRecord {
    pub fault: String,
    pub struck: Vec<String>,
    pub planned_ms: u64,
    pub injected_ms: Option<u64>,
    pub evidence: Option<String>,
    pub healed_ms: Option<u64>,
    pub heal_evidence: Option<String>,
    /// When all nodes were ready again after the heal.
    pub recovered_ms: Option<u64>,
    /// Why it cannot be said that it was done and undone.
    pub doubt: Option<String>,
}

/// Counts since the start, once a second; none: it could not be observed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub at_ms: u64,
    pub offered: u64,
    pub accepted: u64,
    pub processed: u64,
    pub failed: u64,
    pub redelivered: u64,
    /// The broker counts its queues every five seconds only.
    pub ready: Option<u64>,
    pub unacked: Option<u64>,
    pub outbox: Option<u64>,
}

/// Something that was expected, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    pub what: String,
    pub wanted: String,
    pub found: String,
    pub met: bool,
    /// A figure that is beyond its limit, be that wanted or not.
    #[serde(default)]
    pub beyond: bool,
}

/// What the expectations of a verdict are called.
pub const VERDICT: &str = "verdict";
pub const BY_MESSAGES: &str = "verdict by the messages alone";

/// What the expectation of a class is called.
pub fn of_class(class: Class) -> String {
    format!("messages of the class {class}")
}

/// The first expectation is always the verdict; that of the audit alone knows nothing of limits.
pub fn verdict(expectations: &[Expectation]) -> Option<Verdict> {
    let first = expectations.iter().find(|one| one.what == VERDICT)?;
    serde_json::from_value(first.found.clone().into()).ok()
}

/// The journal of a run as it counts now; none: it is no experiment, or did not come to its end.
///
/// That is with the audit that came since, if one did and could read the run. Whoever shows what an experiment came to has
/// it from here.
pub fn read(run: &RunDir) -> Result<Option<Journal>> {
    let Some(mut journal) = run.read::<Journal>(FILE)? else {
        return Ok(None);
    };
    let audit: Option<audit::Report> = run.read(audit::report::FILE)?;
    let counts = |audit: &audit::Report| audit.audited_at > journal.audit.audited_at && audit.saw();
    if let Some(audit) = audit.filter(counts) {
        journal.judge_again(audit);
    }
    Ok(Some(journal))
}

impl Journal {
    /// Its own, which knows its limits too; that of the messages alone where it has none.
    pub fn verdict(&self) -> Verdict {
        verdict(&self.expectations).unwrap_or(self.audit.verdict)
    }

    /// Puts it into the folder of its run.
    pub fn write(&self, run: &RunDir) -> Result<()> {
        // as a whole: others read it meanwhile
        write_secret(&run.path(FILE), &serde_json::to_string_pretty(self)?)
    }

    /// Takes a later audit instead of its own. Figures and their limits stay as they were measured.
    pub fn judge_again(&mut self, audit: audit::Report) {
        let verdict = match audit.verdict {
            Verdict::Pass if self.expectations.iter().any(|one| one.beyond) => Verdict::Fail,
            verdict => verdict,
        };
        for one in &mut self.expectations {
            let class = Class::ALL
                .into_iter()
                .find(|class| one.what == of_class(*class));
            let found = match (&*one.what, class) {
                (VERDICT, _) => verdict.to_string(),
                (BY_MESSAGES, _) => audit.verdict.to_string(),
                (_, Some(class)) => {
                    let count = audit.classes.get(&class).map_or(0, |count| count.messages);
                    one.met = count > 0;
                    one.found = count.to_string();
                    continue;
                }
                _ => continue,
            };
            one.met = one.wanted == found;
            one.found = found;
        }
        self.outcome = match verdict {
            Verdict::Inconclusive => Outcome::Inconclusive,
            _ if self.expectations.iter().all(|one| one.met) => Outcome::AsExpected,
            _ => Outcome::NotAsExpected,
        };
        self.audit = audit;
    }
}
