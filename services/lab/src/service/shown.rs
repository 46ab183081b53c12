//! A run as the API shows it, and what it came to.

use chrono::{DateTime, Utc};
use daemon::clock;
use serde::Serialize;

use crate::audit::Verdict;
use crate::experiment::journal::{Outcome, Sample};
use crate::experiment::watch::Phase;
use crate::run::RunId;

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Servers and nodes start.
    Starting,
    /// Load and faults.
    Loading,
    /// What is left is healed, and what is on its way is waited for.
    Draining,
    /// The ledger is read.
    Judging,
    /// It was told to stop, or could not go on: faults are healed, everything is stopped.
    Stopping,
    /// There is a verdict.
    Done,
    /// The lab could not go on.
    Failed,
    /// It was stopped before its end.
    Interrupted,
    /// It left no verdict: another command is at it, or was killed.
    Unfinished,
    /// What it left cannot be read.
    Damaged,
}

impl State {
    /// Nothing more will come.
    pub fn is_over(self) -> bool {
        matches!(
            self,
            Self::Done | Self::Failed | Self::Interrupted | Self::Damaged
        )
    }

    /// This process is at it.
    pub fn is_ours(self) -> bool {
        !self.is_over() && self != Self::Unfinished
    }

    /// As in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Loading => "loading",
            Self::Draining => "draining",
            Self::Judging => "judging",
            Self::Stopping => "stopping",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Unfinished => "unfinished",
            Self::Damaged => "damaged",
        }
    }
}

impl From<Phase> for State {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Starting => Self::Starting,
            Phase::Loading => Self::Loading,
            Phase::Draining => Self::Draining,
            Phase::Judging => Self::Judging,
        }
    }
}

/// A run as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    pub run: RunId,
    pub experiment: String,
    pub title: String,
    pub twin: bool,
    pub seed: u64,
    pub state: State,
    pub created_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    /// Counts so far; none: nothing was counted.
    pub counts: Option<Sample>,
    pub verdict: Option<Verdict>,
    pub outcome: Option<Outcome>,
    /// Why it came to this.
    pub reasons: Vec<String>,
    /// Where its page is.
    pub report: Option<String>,
    /// What was told on the way.
    pub steps: Vec<String>,
}

impl Shown {
    /// Of a run that is about to begin.
    pub fn new(run: RunId, experiment: &str, title: &str, twin: bool, seed: u64) -> Self {
        Self {
            run,
            experiment: experiment.to_owned(),
            title: title.to_owned(),
            twin,
            seed,
            state: State::Starting,
            created_at: clock::now(),
            ended_at: None,
            counts: None,
            verdict: None,
            outcome: None,
            reasons: Vec::new(),
            report: None,
            steps: Vec::new(),
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct End {
    pub state: State,
    pub verdict: Verdict,
    pub outcome: Outcome,
    pub reasons: Vec<String>,
    pub report: Option<String>,
}

impl End {
    /// Without a verdict of the ledger: the lab could not observe, inject or heal.
    pub fn without(state: State, why: impl Into<String>) -> Self {
        Self {
            state,
            verdict: Verdict::Inconclusive,
            outcome: Outcome::Inconclusive,
            reasons: vec![why.into()],
            report: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_called_the_same_everywhere() {
        use State::{
            Damaged, Done, Draining, Failed, Interrupted, Judging, Loading, Starting, Stopping,
            Unfinished,
        };
        for state in [
            Starting,
            Loading,
            Draining,
            Judging,
            Stopping,
            Done,
            Failed,
            Interrupted,
            Unfinished,
            Damaged,
        ] {
            assert_eq!(state.is_ours(), !state.is_over() && state != Unfinished);
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
        }
    }
}
