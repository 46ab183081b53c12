//! What was measured: each figure once a round, with its median and spread; and the ratios of figures of the same round.

use serde::Serialize;

use super::Scenario;
use crate::load::Latency;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Unit {
    #[serde(rename = "1/s")]
    PerSecond,
    #[serde(rename = "ms")]
    Ms,
    #[serde(rename = "us")]
    Us,
    #[serde(rename = "MiB")]
    MiB,
    #[serde(rename = "KiB")]
    KiB,
    #[serde(rename = "1")]
    Share,
    #[serde(rename = "count")]
    Count,
}

impl Unit {
    /// A value with its unit, for people.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{}/s", digits(value)),
            Self::Ms => format!("{} ms", digits(value)),
            Self::Us => format!("{} us", digits(value)),
            Self::MiB => format!("{} MiB", digits(value)),
            Self::KiB => format!("{} KiB", digits(value)),
            Self::Share => format!("{value:.2}"),
            Self::Count => digits(value),
        }
    }
}

/// Three digits at least; no more after the point than say something.
fn digits(value: f64) -> String {
    if value >= 1_000.0 {
        crate::say::grouped(whole(value))
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The nearest whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are not negative, and a cast saturates"
)]
pub fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// A count as a number to calculate with.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a benchmark are far below 2^52"
)]
pub fn real(count: u64) -> f64 {
    count as f64
}

/// One thing that was measured, once a round or more often.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub scenario: Scenario,
    pub name: String,
    pub unit: Unit,
    pub values: Vec<f64>,
}

/// CPU time of one process for each message, or page, of one load.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    pub load: String,
    pub process: &'static str,
    pub values: Vec<f64>,
}

/// One scenario that could not be measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    pub scenario: Scenario,
    pub round: usize,
    pub why: String,
}

/// One figure through another one of the same round.
#[derive(Debug, Clone, PartialEq)]
pub struct Ratio {
    pub name: &'static str,
    pub what: &'static str,
    pub values: Vec<f64>,
}

/// Everything so far.
#[derive(Debug, Default)]
pub struct Sheet {
    pub figures: Vec<Figure>,
    pub budgets: Vec<Budget>,
    pub failures: Vec<Failure>,
    /// How something was measured, or was not; each once.
    pub notes: Vec<(Scenario, String)>,
    roles: Vec<(&'static str, usize, f64)>,
}

impl Sheet {
    /// One more value of a figure.
    pub fn add(&mut self, scenario: Scenario, name: &str, unit: Unit, value: f64) {
        let known = self
            .figures
            .iter_mut()
            .find(|figure| figure.scenario == scenario && figure.name == name);
        match known {
            Some(figure) => figure.values.push(value),
            None => self.figures.push(Figure {
                scenario,
                name: name.to_owned(),
                unit,
                values: vec![value],
            }),
        }
    }

    /// The four points of a distribution that are asked for.
    pub fn latency(&mut self, scenario: Scenario, name: &str, times: Option<Latency>) {
        let Some(times) = times else { return };
        for (point, us) in [
            ("p50", times.p50),
            ("p99", times.p99),
            ("p99.9", times.p99_9),
            ("max", times.max),
        ] {
            self.add(
                scenario,
                &format!("{name}, {point}"),
                Unit::Ms,
                real(us) / 1e3,
            );
        }
    }

    /// What a ratio is made of.
    pub fn role(&mut self, role: &'static str, round: usize, value: f64) {
        self.roles.push((role, round, value));
    }

    /// The CPU time of a load, split by process.
    pub fn budget(&mut self, load: &str, split: &[(&'static str, f64)]) {
        for (process, us) in split {
            let known = self
                .budgets
                .iter_mut()
                .find(|budget| budget.load == load && budget.process == *process);
            match known {
                Some(budget) => budget.values.push(*us),
                None => self.budgets.push(Budget {
                    load: load.to_owned(),
                    process,
                    values: vec![*us],
                }),
            }
        }
    }

    /// Something worth knowing, told once however often it is said.
    pub fn note(&mut self, scenario: Scenario, text: impl Into<String>) {
        let note = (scenario, text.into());
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub fn fail(&mut self, scenario: Scenario, round: usize, why: String) {
        self.failures.push(Failure {
            scenario,
            round,
            why,
        });
    }

    /// Those that both sides of were measured.
    pub fn ratios(&self) -> Vec<Ratio> {
        let ratio = |(name, above, below, what): &(&'static str, &str, &str, &'static str)| {
            let values: Vec<f64> = self
                .roles
                .iter()
                .filter(|(role, _, _)| role == above)
                .filter_map(|(_, round, value)| Some((value, self.of_role(below, *round)?)))
                .filter(|(_, limit)| *limit > 0.0)
                .map(|(value, limit)| value / limit)
                .collect();
            (!values.is_empty()).then_some(Ratio { name, what, values })
        };
        RATIOS.iter().filter_map(ratio).collect()
    }

    /// What a round had for a role; what is measured once only counts for every round.
    fn of_role(&self, role: &str, round: usize) -> Option<f64> {
        let all: Vec<(usize, f64)> = self
            .roles
            .iter()
            .filter(|(known, _, _)| *known == role)
            .map(|(_, round, value)| (*round, *value))
            .collect();
        let same: Vec<f64> = all
            .iter()
            .filter(|(of, _)| *of == round)
            .map(|(_, value)| *value)
            .collect();
        if same.is_empty() {
            median(&all.iter().map(|(_, value)| *value).collect::<Vec<_>>())
        } else {
            median(&same)
        }
    }
}

/// Name, what stands above, what below, and how to read it.
const RATIOS: &[(&str, &str, &str, &str)] = &[
    (
        "pipeline/raw",
        "pipeline",
        "raw",
        "one message per request, against bare publishing and consuming at once, acks 100 at once",
    ),
    (
        "pipeline/raw-acks-one-by-one",
        "pipeline",
        "raw-acks-one-by-one",
        "the same, against acks one by one",
    ),
    (
        "pipeline-arrays/raw",
        "pipeline-arrays",
        "raw",
        "arrays of 100, against acks 100 at once",
    ),
    (
        "pipeline-arrays/raw-acks-one-by-one",
        "pipeline-arrays",
        "raw-acks-one-by-one",
        "the same, against acks one by one",
    ),
    (
        "drain/raw-consume",
        "drain",
        "raw-consume",
        "the best number of receivers, against bare consuming with acks 100 at once",
    ),
    (
        "drain/raw-consume-acks-one-by-one",
        "drain",
        "raw-consume-acks-one-by-one",
        "the same, against acks one by one",
    ),
    (
        "drain-most/drain",
        "drain-most",
        "drain",
        "the most receivers, against the best number",
    ),
    (
        "accept/commit",
        "accept",
        "commit",
        "the most connections, against one row per commit on one connection",
    ),
    (
        "accept/commit-500",
        "accept",
        "commit-500",
        "the same against 500 rows per commit",
    ),
    (
        "accept-arrays/commit-500",
        "accept-arrays",
        "commit-500",
        "arrays of 100, against 500 rows per commit",
    ),
    (
        "accept-alone-p50/commit-p50",
        "accept-alone-p50",
        "commit-p50",
        "time of one request of one client alone, against one bare commit: below is better",
    ),
    (
        "mission/theory",
        "mission",
        "mission-theory",
        "effects of the default settings, against what the receivers' slots could do",
    ),
    (
        "client/pipeline",
        "client",
        "pipeline",
        "what the load client can do, against what the pipeline took from it: far above 1, or the client is the limit",
    ),
    (
        "growth-accept",
        "accept-few",
        "accept-behind",
        "cost with the most rows behind, against the fewest: 1 is flat",
    ),
    (
        "growth-drain",
        "drain-few",
        "drain-behind",
        "the same of draining",
    ),
    (
        "growth-send-page",
        "home-few",
        "home-behind",
        "the same of the page of the senders",
    ),
    (
        "growth-results-page",
        "received-few",
        "received-behind",
        "the same of the page of the receivers",
    ),
    (
        "growth-audit",
        "audit-behind",
        "audit-few",
        "the same of an audit of one run",
    ),
    (
        "search-far",
        "search-far",
        "search-first",
        "time of the 1,000th page of what nine of ten messages have, against the first",
    ),
    (
        "growth-sessions",
        "sessions-few",
        "sessions-many",
        "cost of a page with the most sessions, against the fewest",
    ),
];

/// The middle one; of an even number the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len.is_multiple_of(2) => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        _ => Some(sorted[middle]),
    }
}

/// The least and the most.
pub fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    let most = values.iter().copied().max_by(f64::total_cmp)?;
    Some((least, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
        assert_eq!(spread(&[4.0, 1.0, 2.0]), Some((1.0, 4.0)));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn a_ratio_is_made_of_the_same_round() {
        let mut sheet = Sheet::default();
        // the machine was slow in the second round: the ratio hardly is
        for (round, raw, pipeline) in [(1, 10_000.0, 3_000.0), (2, 5_000.0, 1_600.0)] {
            sheet.role("raw", round, raw);
            sheet.role("pipeline", round, pipeline);
        }
        let ratios = sheet.ratios();
        assert_eq!(ratios.len(), 1);
        assert_eq!(ratios[0].name, "pipeline/raw");
        assert_eq!(ratios[0].values, [0.3, 0.32]);
    }

    #[test]
    fn a_limit_that_was_measured_once_counts_for_all_rounds() {
        let mut sheet = Sheet::default();
        sheet.role("client", 0, 30_000.0);
        sheet.role("pipeline", 1, 3_000.0);
        sheet.role("pipeline", 2, 3_000.0);
        let ratios = sheet.ratios();
        assert_eq!(
            (ratios[0].name, &*ratios[0].values),
            ("client/pipeline", &[10.0][..])
        );
    }

    #[test]
    fn there_is_no_ratio_without_its_limit() {
        let mut sheet = Sheet::default();
        sheet.role("pipeline", 1, 3_000.0);
        assert_eq!(sheet.ratios(), []);
        sheet.role("raw", 1, 0.0);
        assert_eq!(sheet.ratios(), []);
    }

    #[test]
    fn values_of_one_figure_are_kept_together() {
        let mut sheet = Sheet::default();
        sheet.add(Scenario::Raw, "publish", Unit::PerSecond, 1.0);
        sheet.add(Scenario::Commit, "publish", Unit::PerSecond, 2.0);
        sheet.add(Scenario::Raw, "publish", Unit::PerSecond, 3.0);
        assert_eq!(sheet.figures.len(), 2);
        assert_eq!(sheet.figures[0].values, [1.0, 3.0]);
        for us in [10.0, 20.0] {
            sheet.budget("pipeline", &[("sender", us), ("redis", 1.0)]);
        }
        assert_eq!(sheet.budgets.len(), 2);
        assert_eq!(sheet.budgets[0].values, [10.0, 20.0]);
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(Unit::PerSecond.show(15_234.4), "15,234/s");
        assert_eq!(Unit::PerSecond.show(434.0), "434/s");
        assert_eq!(Unit::Ms.show(12.345), "12.3 ms");
        assert_eq!(Unit::Ms.show(0.6123), "0.61 ms");
        assert_eq!(Unit::Share.show(0.30123), "0.30");
    }
}
