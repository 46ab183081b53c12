//! `lab bench`: how fast the laboratory is, against the limits of what it stands on.
//!
//! On a private stack, servers once, each scenario with new nodes and a vhost and a database of its own. In each round the
//! scenarios follow one another, so limits and what is compared with them are measured in turn (A B A B), and a ratio is made
//! of figures of the same round: a machine that is slow for a while slows both. What is measured once comes after the rounds.
//!
//! A figure counts only the time when work was at hand, after a warm-up. A scenario that fails is told, the others go on, and
//! the exit code is 1. Nothing is quoted that was not measured in this very run.

mod accept;
mod book;
pub mod cli;
mod client;
mod commit;
pub mod cpu;
mod drain;
pub mod facts;
mod footprint;
mod growth;
pub mod highest;
mod http;
mod leases;
mod live;
mod mission;
mod offer;
mod page;
mod pipeline;
mod ratios;
mod raw;
mod release;
mod search;
pub mod sheet;
pub mod size;
mod stage;
pub mod table;
mod vacuum;

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use tokio::time::timeout;

use crate::say::Steps;
use sheet::Sheet;
use size::Size;
use stage::Stage;

/// A system that does nothing for so long is stuck.
const WAIT: Duration = Duration::from_secs(30);
/// Nothing takes so long but the vacuum run.
const SCENARIO_LIMIT: Duration = Duration::from_mins(20);

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// What the load clients can do
    Client,
    /// Bare publishing and consuming
    Raw,
    /// Bare commits
    Commit,
    /// Accepting messages
    Accept,
    /// Drawing pages
    Page,
    /// Working off what waits
    Drain,
    /// From HTTP to the committed effect
    Pipeline,
    /// With people who watch, and without
    Live,
    /// The default settings, against theory
    Mission,
    /// The same with much behind it
    Growth,
    /// Finding messages among many
    Search,
    /// The lease queue
    Leases,
    /// Start, memory, sizes
    Footprint,
    /// 30 minutes at half load; only with --long
    Vacuum,
}

impl Display for Scenario {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.pad(name.as_ref().map_or("", |name| name.get_name()))
    }
}

impl Scenario {
    /// In the order in which they are measured: a limit right before what is compared with it.
    pub const ALL: [Self; 14] = [
        Self::Client,
        Self::Commit,
        Self::Accept,
        Self::Page,
        Self::Raw,
        Self::Drain,
        Self::Pipeline,
        Self::Live,
        Self::Mission,
        Self::Growth,
        Self::Search,
        Self::Leases,
        Self::Footprint,
        Self::Vacuum,
    ];

    /// What must be measured in the same run.
    fn needs(self) -> &'static [Self] {
        match self {
            Self::Accept => &[Self::Commit],
            Self::Drain => &[Self::Raw],
            Self::Pipeline => &[Self::Raw, Self::Client],
            Self::Vacuum => &[Self::Pipeline, Self::Raw, Self::Client],
            _ => &[],
        }
    }

    /// Not in every round.
    fn once(self) -> bool {
        matches!(
            self,
            Self::Client
                | Self::Mission
                | Self::Growth
                | Self::Search
                | Self::Leases
                | Self::Footprint
                | Self::Vacuum
        )
    }
}

/// The chosen ones with all that they need, in order. Nothing chosen: all.
pub fn with_limits(chosen: &[Scenario], long: bool) -> Vec<Scenario> {
    let wanted = |scenario: &Scenario| {
        if chosen.is_empty() {
            return *scenario != Scenario::Vacuum || long;
        }
        chosen
            .iter()
            .any(|one| one == scenario || one.needs().contains(scenario))
    };
    Scenario::ALL.into_iter().filter(wanted).collect()
}

/// What a scenario has to work with.
pub struct Course<'a> {
    stage: &'a Stage,
    size: &'a Size,
    sheet: &'a mut Sheet,
    steps: &'a Steps<'a>,
    round: usize,
    rounds: usize,
    senders: usize,
    receivers: usize,
}

impl Course<'_> {
    fn said(&self, begun: Instant, what: &str) {
        self.steps.done(begun, what);
    }

    async fn measure(&mut self, scenario: Scenario) {
        let measured = async {
            match scenario {
                Scenario::Client => Box::pin(client::run(self)).await,
                Scenario::Raw => Box::pin(raw::run(self)).await,
                Scenario::Commit => Box::pin(commit::run(self)).await,
                Scenario::Accept => Box::pin(accept::run(self)).await,
                Scenario::Page => Box::pin(page::run(self)).await,
                Scenario::Drain => Box::pin(drain::run(self)).await,
                Scenario::Pipeline => Box::pin(pipeline::run(self)).await,
                Scenario::Live => Box::pin(live::run(self)).await,
                Scenario::Mission => Box::pin(mission::run(self)).await,
                Scenario::Growth => Box::pin(growth::run(self)).await,
                Scenario::Search => Box::pin(search::run(self)).await,
                Scenario::Leases => Box::pin(leases::run(self)).await,
                Scenario::Footprint => Box::pin(footprint::run(self)).await,
                Scenario::Vacuum => Box::pin(vacuum::run(self)).await,
            }
        };
        let limit = if scenario == Scenario::Vacuum {
            SCENARIO_LIMIT * 3
        } else {
            SCENARIO_LIMIT
        };
        let result: Result<()> = match timeout(limit, measured).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!(
                "it took more than {} min",
                limit.as_secs() / 60
            )),
        };
        if let Err(error) = result {
            let why = format!("{error:#}");
            self.steps.note(format!("{scenario} FAILED: {why}"));
            self.sheet.fail(scenario, self.round, why);
        }
    }

    /// All of it; says how many rounds there were.
    async fn run(&mut self, scenarios: &[Scenario]) -> usize {
        let begun = Instant::now();
        let mut done = 0;
        for scenario in scenarios.iter().filter(|one| **one == Scenario::Client) {
            self.measure(*scenario).await;
        }
        let mut longest = Duration::ZERO;
        for round in 0..self.rounds {
            let limit = self.size.rounds_limit;
            if round > 0 && begun.elapsed() + longest > limit {
                let minutes = limit.as_secs() / 60;
                self.steps.note(format!(
                    "round {} would end after {minutes} min: it is left out",
                    round + 1
                ));
                break;
            }
            self.round = round;
            let from = Instant::now();
            if self.rounds > 1 {
                let of = self.rounds;
                self.steps.note(format!("round {} of {of}", round + 1));
            }
            for scenario in scenarios.iter().filter(|one| !one.once()) {
                self.measure(*scenario).await;
            }
            longest = longest.max(from.elapsed());
            done += 1;
        }
        let last = |one: &&Scenario| one.once() && **one != Scenario::Client;
        for scenario in scenarios.iter().filter(last) {
            self.measure(*scenario).await;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_comes_with_its_limits() {
        use Scenario::{Accept, Client, Commit, Drain, Page, Pipeline, Raw, Vacuum};
        for (chosen, all) in [
            (vec![Page], vec![Page]),
            (vec![Accept], vec![Commit, Accept]),
            (vec![Drain, Raw], vec![Raw, Drain]),
            (vec![Pipeline], vec![Client, Raw, Pipeline]),
            (vec![Vacuum], vec![Client, Raw, Pipeline, Vacuum]),
        ] {
            assert_eq!(with_limits(&chosen, false), all, "{chosen:?}");
        }
        assert_eq!(with_limits(&[], false).len(), Scenario::ALL.len() - 1);
        assert_eq!(with_limits(&[], true).len(), Scenario::ALL.len());
    }
}
