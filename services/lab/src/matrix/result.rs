//! What a matrix came to, as it is written with `--json`.

use std::num::NonZero;
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::predicted::{self, Damage};
use super::{COLUMNS, ROWS, column_name};
use crate::audit::Verdict;
use crate::run::RunId;

/// All cells that were played.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matrix {
    pub started_at: DateTime<Utc>,
    pub seed: u64,
    pub rabbitmq: Option<String>,
    /// Its cores and their kind.
    pub machine: String,
    /// How many cells were played once more, since they had been inconclusive.
    #[serde(default)]
    pub again: usize,
    /// How many cells had not been played at first.
    #[serde(default)]
    pub added: usize,
    pub cells: Vec<Cell>,
}

/// One fault on one stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub fault: String,
    /// The guarantee that was off, or `none`.
    pub without: String,
    pub verdict: Verdict,
    pub lost: u64,
    pub duplicated: u64,
    pub unexpected: u64,
    pub stuck: u64,
    pub given_up_wrongly: u64,
    /// In percent, where the row has a limit for it.
    pub smallest_share: Option<f64>,
    /// What the verdict rests on; empty for PASS.
    #[serde(alias = "harms")]
    pub damage: Vec<String>,
    pub predicted: String,
    pub as_predicted: bool,
    /// Why that is predicted.
    pub why: String,
    pub reasons: Vec<String>,
    pub run: Option<RunId>,
    pub took_ms: u64,
}

impl Default for Cell {
    fn default() -> Self {
        Self {
            fault: String::new(),
            without: String::new(),
            verdict: Verdict::Inconclusive,
            lost: 0,
            duplicated: 0,
            unexpected: 0,
            stuck: 0,
            given_up_wrongly: 0,
            smallest_share: None,
            damage: Vec::new(),
            predicted: String::new(),
            as_predicted: false,
            why: String::new(),
            reasons: Vec::new(),
            run: None,
            took_ms: 0,
        }
    }
}

impl Cell {
    /// How much of one kind of damage there is, as text: a count, or a share in percent.
    pub fn amount(&self, damage: &str) -> String {
        match damage {
            "lost" => self.lost.to_string(),
            "duplicated" => self.duplicated.to_string(),
            "unexpected" => self.unexpected.to_string(),
            "stuck" => self.stuck.to_string(),
            "given-up-wrongly" => self.given_up_wrongly.to_string(),
            _ => format!("{:.0}%", self.smallest_share.unwrap_or(0.0)),
        }
    }

    /// A verdict, and what it rests on: `FAIL: lost 3, share 0%`.
    pub fn describe(&self) -> String {
        let each = self
            .damage
            .iter()
            .map(|damage| format!("{damage} {}", self.amount(damage)));
        let each: Vec<String> = each.collect();
        match self.verdict {
            Verdict::Fail => format!("FAIL: {}", each.join(", ")),
            verdict => verdict.to_string(),
        }
    }

    /// Compares it with what is predicted of it; what nobody predicts is never as predicted.
    pub fn compare(&mut self) {
        let column = COLUMNS
            .into_iter()
            .find(|one| column_name(*one) == self.without);
        let predicted = column.and_then(|column| predicted::of(&self.fault, column));
        let damage: Damage = self.damage.iter().cloned().collect();
        self.as_predicted =
            !self.inconclusive() && predicted.is_some_and(|one| one.allows(&damage));
        if let Some(predicted) = predicted {
            self.predicted.clone_from(&predicted.text);
            self.why.clone_from(&predicted.why);
        }
    }

    /// Whether chance decides which of several outcomes is right.
    pub fn by_chance(&self) -> bool {
        self.predicted.contains('|')
    }

    /// The lab could not observe, inject or heal.
    pub fn inconclusive(&self) -> bool {
        self.verdict == Verdict::Inconclusive
    }
}

impl Matrix {
    /// The cell of this row and column, if it was played.
    pub fn cell(&self, fault: &str, without: &str) -> Option<&Cell> {
        let mut cells = self.cells.iter();
        cells.find(|cell| cell.fault == fault && cell.without == without)
    }

    /// Puts a cell into its place, which another one may have, and counts it if the others were played earlier.
    pub fn put(&mut self, cell: Cell, later: bool) {
        let before = self.cells.len();
        self.cells
            .retain(|one| (&one.fault, &one.without) != (&cell.fault, &cell.without));
        if later && self.cells.len() < before {
            self.again += 1;
        } else if later {
            self.added += 1;
        }
        self.cells.push(cell);
    }

    /// Names of the rows that have a cell, in order.
    pub fn rows(&self) -> Vec<&'static str> {
        let has = |name: &&str| self.cells.iter().any(|cell| cell.fault == **name);
        ROWS.iter().map(|(name, _)| *name).filter(has).collect()
    }

    /// Names of the columns that have a cell, in order.
    pub fn columns(&self) -> Vec<&'static str> {
        let has = |name: &&str| self.cells.iter().any(|cell| cell.without == **name);
        let all = COLUMNS.into_iter().map(column_name);
        all.filter(has).collect()
    }

    /// Judged, and not as predicted.
    pub fn unpredicted(&self) -> impl Iterator<Item = &Cell> {
        let cells = self.cells.iter();
        cells.filter(|cell| !cell.as_predicted && !cell.inconclusive())
    }

    /// What could not be judged.
    pub fn open(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(|cell| cell.inconclusive())
    }

    /// How long all cells took.
    pub fn took(&self) -> Duration {
        Duration::from_millis(self.cells.iter().map(|cell| cell.took_ms).sum())
    }

    /// 0: all as predicted; 1: some is not; 3: some could not be judged.
    pub fn exit_code(&self) -> u8 {
        if self.unpredicted().next().is_some() {
            1
        } else if self.open().next().is_some() {
            3
        } else {
            0
        }
    }
}

/// A kind of damage in a word that fits into a cell.
pub fn short(damage: &str) -> &str {
    match damage {
        "duplicated" => "dup",
        "unexpected" => "odd",
        "given-up-wrongly" => "bad",
        "share" => "low",
        damage => damage,
    }
}

/// As in the caption: `2 cores, x86_64`.
pub fn machine() -> String {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let cores = if cores == 1 {
        "1 core".to_owned()
    } else {
        format!("{cores} cores")
    };
    format!("{cores}, {}", std::env::consts::ARCH)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A made-up cell.
    pub(crate) fn cell(fault: &str, without: &str, lost: u64, predicted: &str) -> Cell {
        let found = if lost > 0 { "lost" } else { "pass" };
        Cell {
            fault: fault.to_owned(),
            without: without.to_owned(),
            verdict: if lost > 0 {
                Verdict::Fail
            } else {
                Verdict::Pass
            },
            lost,
            damage: if lost > 0 {
                vec!["lost".to_owned()]
            } else {
                Vec::new()
            },
            predicted: predicted.to_owned(),
            as_predicted: predicted.split('|').any(|one| one == found),
            run: Some("r1".parse().unwrap()),
            took_ms: 20_000,
            ..Cell::default()
        }
    }

    /// A matrix of these.
    pub(crate) fn matrix(cells: Vec<Cell>) -> Matrix {
        Matrix {
            started_at: "2026-11-21T09:00:00Z".parse().unwrap(),
            seed: 7,
            rabbitmq: Some("3.10.8".to_owned()),
            machine: "2 cores, x86_64".to_owned(),
            again: 0,
            added: 0,
            cells,
        }
    }

    #[test]
    fn one_cell_that_was_not_predicted_decides_and_then_one_that_is_open() {
        let good = cell("poison", "none", 0, "pass");
        let wrong = cell("poison", "inbox", 2, "pass");
        let open = Cell {
            verdict: Verdict::Inconclusive,
            as_predicted: false,
            ..cell("poison", "outbox", 0, "pass")
        };
        let code = |cells: &[&Cell]| matrix(cells.iter().copied().cloned().collect()).exit_code();
        assert_eq!(code(&[&good]), 0);
        assert_eq!(code(&[&good, &open]), 3);
        assert_eq!(code(&[&good, &open, &wrong]), 1);
    }

    #[test]
    fn what_is_played_later_was_inconclusive_or_not_played_at_first() {
        let open = Cell {
            verdict: Verdict::Inconclusive,
            ..cell("poison", "outbox", 0, "pass")
        };
        let mut all = matrix(vec![open]);
        all.put(cell("poison", "none", 0, "pass"), false);
        assert_eq!((all.again, all.added, all.cells.len()), (0, 0, 2));
        all.put(cell("poison", "inbox", 0, "pass"), true);
        assert_eq!((all.again, all.added, all.cells.len()), (0, 1, 3));
        all.put(cell("poison", "outbox", 0, "pass"), true);
        assert_eq!((all.again, all.added, all.cells.len()), (1, 1, 3));
        assert_eq!(all.open().count(), 0);
    }

    #[test]
    fn an_old_result_is_compared_with_what_is_predicted_now() {
        let mut lost = cell("poison", "dead-lettering", 6, "pass");
        lost.compare();
        assert!(lost.as_predicted && lost.predicted == "lost" && !lost.why.is_empty());
        let mut passed = cell("poison", "dead-lettering", 0, "pass");
        passed.compare();
        assert!(!passed.as_predicted, "{passed:?}");
        let mut nowhere = cell("rain", "none", 0, "pass");
        nowhere.compare();
        assert!(!nowhere.as_predicted, "{nowhere:?}");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let all = matrix(vec![cell("poison", "dead-lettering", 6, "lost")]);
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Matrix>(&text).unwrap(), all);
        assert_eq!(all.rows(), ["poison"]);
        assert_eq!(all.columns(), ["dead-lettering"]);
        assert_eq!(all.cells[0].describe(), "FAIL: lost 6");
    }
}
