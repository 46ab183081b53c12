//! One cell: the row's experiment on the column's stack, and what came of it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use messaging::guarantee::Guarantee;

use super::predicted::{self, Damage, Predicted, SHARE};
use super::result::Cell;
use super::{ROWS, column_name};
use crate::audit::class::Class;
use crate::audit::{Report, Verdict};
use crate::experiment::expect::{Expect, Figure};
use crate::experiment::file::Experiment;
use crate::experiment::journal::Journal;
use crate::experiment::runner::Play;
use crate::experiment::settings;
use crate::experiment::stage::Stage;
use crate::say::{Steps, Usage};
use crate::stack::node::Service;

const NODES_MAX: usize = 8;

/// A cell that is to be played.
#[derive(Debug, Clone)]
pub struct Plan {
    pub fault: &'static str,
    pub without: Option<Guarantee>,
    pub predicted: &'static Predicted,
    experiment: Experiment,
}

impl Plan {
    /// Of this row and column.
    pub fn new(fault: &str, without: Option<Guarantee>) -> Result<Self> {
        let predicted = predicted::of(fault, without);
        let predicted = predicted.context("predicted.csv does not have this cell")?;
        let (fault, text) = ROWS
            .into_iter()
            .find(|(name, _)| *name == fault)
            .context("there is no such row")?;
        let mut experiment = Experiment::parse(&format!("{fault}.yaml"), text, NODES_MAX)?;
        experiment.name = match without {
            None => format!("matrix: {fault}"),
            Some(guarantee) => format!("matrix: {fault} without {guarantee}"),
        };
        let setup = &mut experiment.safe;
        setup.without = without.into_iter().collect();
        if without == Some(Guarantee::Persistence) {
            // a quorum queue keeps transient messages too
            for settings in [&mut setup.settings, &mut setup.named] {
                settings.insert("QUEUE_TYPE".to_owned(), "classic".to_owned());
            }
        }
        settings::check(&Service::MAIN, &setup.settings, &setup.without.to_string())
            .map_err(Usage)?;
        setup.expect = expectation(&setup.expect, predicted);
        Ok(Self {
            fault,
            without,
            predicted,
            experiment,
        })
    }

    /// As people call it.
    pub fn name(&self) -> String {
        let column = self.without.map_or_else(
            || "with all guarantees".to_owned(),
            |guarantee| format!("without {guarantee}"),
        );
        format!("{} {column}", self.fault)
    }

    /// Plays it. What cannot be played is inconclusive, and what is left of it is healed.
    pub async fn play(&self, stage: &Stage, root: &Path, seed: u64) -> Played {
        let begun = Instant::now();
        let play = Play {
            experiment: &self.experiment,
            setup: &self.experiment.safe,
            twin: false,
            seed,
        };
        let played = Box::pin(play.run(stage, root, &Steps::new(&|_| {}))).await;
        let took = begun.elapsed();
        match played {
            Ok(played) => Played {
                cell: self.of(&played.journal, played.verdict, took),
                broker: played.journal.stack.broker_version,
            },
            Err(error) => {
                let mut reasons = vec![format!("{error:#}")];
                if let Err(error) = stage.injector().heal_all().await {
                    reasons.push(format!("what is active is unknown: {error:#}"));
                }
                Played {
                    cell: self.cell(Verdict::Inconclusive, reasons, took),
                    broker: None,
                }
            }
        }
    }

    fn of(&self, journal: &Journal, verdict: Verdict, took: Duration) -> Cell {
        let share = share(journal);
        let mut damage = damage(&journal.audit);
        if share.is_some_and(|(_, under)| under) {
            damage.insert(SHARE.to_owned());
        }
        let count = |class: Class| {
            let count = journal.audit.classes.get(&class);
            count.map_or(0, |count| count.messages)
        };
        let mut cell = Cell {
            lost: count(Class::Lost),
            duplicated: count(Class::Duplicated),
            unexpected: count(Class::Unexpected),
            stuck: count(Class::Stuck),
            given_up_wrongly: count(Class::GivenUpWrongly),
            smallest_share: share.map(|(share, _)| share),
            damage: damage.into_iter().collect(),
            run: Some(journal.run.clone()),
            ..self.cell(verdict, journal.audit.reasons.clone(), took)
        };
        cell.compare();
        cell
    }

    /// With nothing found yet.
    fn cell(&self, verdict: Verdict, reasons: Vec<String>, took: Duration) -> Cell {
        Cell {
            fault: self.fault.to_owned(),
            without: column_name(self.without).to_owned(),
            verdict,
            predicted: self.predicted.text.clone(),
            why: self.predicted.why.clone(),
            reasons,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            ..Cell::default()
        }
    }
}

/// What came of a cell.
#[derive(Debug)]
pub struct Played {
    pub cell: Cell,
    /// The version of its broker.
    pub broker: Option<String>,
}

/// What the cell's own report compares with. A report cannot say "either of these": where chance decides it says pass.
fn expectation(row: &Expect, predicted: &Predicted) -> Expect {
    let mut expect = row.clone();
    let Some(damage) = predicted.certain().filter(|damage| !damage.is_empty()) else {
        return expect;
    };
    expect.class = Class::ALL
        .into_iter()
        .find(|class| damage.contains(class.word()));
    expect.figure = damage.contains(SHARE).then_some(Figure::SmallestShare);
    expect.verdict = Verdict::Fail;
    expect
}

fn damage(audit: &Report) -> Damage {
    let failing = Class::ALL.into_iter().filter(|class| class.fails());
    let found = failing.filter(|class| {
        let count = audit.classes.get(class);
        count.is_some_and(|count| count.messages > 0)
    });
    found.map(|class| class.word().to_owned()).collect()
}

/// The smallest share in percent, and whether it is under its limit, where the row has one.
fn share(journal: &Journal) -> Option<(f64, bool)> {
    let mut all = journal.expectations.iter();
    let found = all.find(|one| one.what == Figure::SmallestShare.what())?;
    let share = found.found.trim_end_matches(" %").parse().ok()?;
    // where it is expected to be beyond, the limit stands there with a "not"
    Some((share, found.met == found.wanted.starts_with("not ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::harm::Harm;
    use crate::matrix::COLUMNS;

    fn plan(fault: &str, without: Option<Guarantee>) -> Plan {
        Plan::new(fault, without).unwrap()
    }

    #[test]
    fn every_cell_can_be_played() {
        for (row, _) in ROWS {
            for column in COLUMNS {
                let plan = plan(row, column);
                let setup = &plan.experiment.safe;
                assert_eq!(setup.without.iter().next(), column, "{}", plan.name());
                assert_eq!(setup.settings["HEARTBEAT_SECS"], "2", "{}", plan.name());
            }
        }
    }

    #[test]
    fn a_row_is_the_same_in_all_columns_but_for_what_is_off() {
        for (row, _) in ROWS {
            let first = plan(row, None).experiment.safe;
            for column in COLUMNS {
                let setup = plan(row, column).experiment.safe;
                assert_eq!(setup.load, first.load);
                assert_eq!(setup.harm, first.harm);
                let mut settings = setup.settings;
                if column == Some(Guarantee::Persistence) {
                    let kind = first.settings["QUEUE_TYPE"].clone();
                    settings.insert("QUEUE_TYPE".to_owned(), kind);
                }
                assert_eq!(settings, first.settings);
            }
        }
    }

    #[test]
    fn persistence_is_judged_beside_its_own_safe_partner() {
        let safe = plan("rabbitmq-kill", None).experiment.safe;
        let unsafe_one = plan("rabbitmq-kill", Some(Guarantee::Persistence))
            .experiment
            .safe;
        assert_eq!(safe.settings, unsafe_one.settings);
        assert_eq!(safe.settings["QUEUE_TYPE"], "classic");
    }

    #[test]
    fn a_cells_report_expects_what_is_predicted() {
        let expect = |fault: &str, without| plan(fault, without).experiment.safe.expect.to_string();
        assert_eq!(expect("poison", None), "PASS");
        assert_eq!(
            expect("poison", Some(Guarantee::DeadLettering)),
            "FAIL (lost)"
        );
        assert_eq!(
            expect("receiver-absent", Some(Guarantee::Prefetch)),
            "FAIL (smallest_share)"
        );
    }

    #[test]
    fn every_row_but_the_poisonous_one_has_a_fault() {
        for (row, _) in ROWS {
            let setup = plan(row, None).experiment.safe;
            let Harm::Faults(faults) = &setup.harm else {
                panic!("{row} is a storm");
            };
            assert_eq!(faults.is_empty(), setup.load.poison > 0, "{row}");
        }
    }
}
