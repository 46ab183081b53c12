//! What is expected of an experiment: a verdict, the class or figure that decides it, and limits on figures.
//!
//! The verdict of an experiment is that of its audit, and FAIL also where a figure is beyond its limit. So a twin whose
//! harm is no wrong message but a long wait or an unfair share is convicted by a figure. Pure functions.

use std::fmt;
use std::time::Duration;

use crate::audit::class::Class;
use crate::audit::{Report, Verdict};
use crate::load::{Summary, length};

use super::journal::{BY_MESSAGES, Expectation, FaultRecord, Outcome, VERDICT, of_class};

/// What a figure is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Time,
    Percent,
    Count,
}

/// What a run may be measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    LongestSilence,
    ProcessedP99,
    ProcessedMax,
    AcceptedP99,
    AcceptedMax,
    Recovery,
    SmallestShare,
    Redelivered,
    Failures,
    Refused,
    Unknown,
    Retries,
    Stale,
    ReadsFailed,
    MailCopies,
}

impl Figure {
    pub const ALL: [Self; 15] = [
        Self::LongestSilence,
        Self::ProcessedP99,
        Self::ProcessedMax,
        Self::AcceptedP99,
        Self::AcceptedMax,
        Self::Recovery,
        Self::SmallestShare,
        Self::Redelivered,
        Self::Failures,
        Self::Refused,
        Self::Unknown,
        Self::Retries,
        Self::Stale,
        Self::ReadsFailed,
        Self::MailCopies,
    ];

    /// As in a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::LongestSilence => "longest_silence",
            Self::ProcessedP99 => "processed_p99",
            Self::ProcessedMax => "processed_max",
            Self::AcceptedP99 => "accepted_p99",
            Self::AcceptedMax => "accepted_max",
            Self::Recovery => "recovery",
            Self::SmallestShare => "smallest_share",
            Self::Redelivered => "redelivered",
            Self::Failures => "failures",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Retries => "retries",
            Self::Stale => "stale",
            Self::ReadsFailed => "reads_failed",
            Self::MailCopies => "mail_copies",
        }
    }

    /// In words.
    pub fn what(self) -> &'static str {
        match self {
            Self::LongestSilence => "longest time without an effect while messages waited",
            Self::ProcessedP99 => {
                "99 of 100 messages were processed, after they were accepted, within"
            }
            Self::ProcessedMax => "longest time from accepted to processed",
            Self::AcceptedP99 => "99 of 100 requests were accepted within",
            Self::AcceptedMax => "longest time until a request was accepted",
            Self::Recovery => "longest time from a heal until all nodes were ready",
            Self::SmallestShare => "smallest share of one receiver in the effects",
            Self::Redelivered => "effects of messages that had been delivered before",
            Self::Failures => "failures of the work",
            Self::Refused => "requests that were refused",
            Self::Unknown => "requests of which nobody learned what became of them",
            Self::Retries => "tries beyond the first ones",
            Self::Stale => "longest time for which a saved note was missing in the list",
            Self::ReadsFailed => "reads that failed",
            Self::MailCopies => "copies of mails under one Message-ID",
        }
    }

    pub fn unit(self) -> Unit {
        match self {
            Self::LongestSilence
            | Self::ProcessedP99
            | Self::ProcessedMax
            | Self::AcceptedP99
            | Self::AcceptedMax
            | Self::Recovery
            | Self::Stale => Unit::Time,
            Self::SmallestShare => Unit::Percent,
            Self::Redelivered
            | Self::Failures
            | Self::Refused
            | Self::Unknown
            | Self::Retries
            | Self::ReadsFailed
            | Self::MailCopies => Unit::Count,
        }
    }

    /// The one of this name.
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no figure {name:?}; there are: {names}")
        })
    }

    /// What it was: milliseconds, percent or a number; none: there is nothing to measure.
    fn of(self, found: &Found<'_>) -> Option<f64> {
        let figures = &found.audit.figures;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let number = |count: u64| count as f64;
        let ms = |us: u64| number(us) / 1_000.0;
        match self {
            Self::LongestSilence => u64::try_from(figures.longest_silence_ms).ok().map(number),
            Self::ProcessedP99 => figures.processed_us.map(|took| ms(took.p99)),
            Self::ProcessedMax => figures.processed_us.map(|took| ms(took.max)),
            Self::AcceptedP99 => found.load.accepted_us.map(|took| ms(took.p99)),
            Self::AcceptedMax => found.load.accepted_us.map(|took| ms(took.max)),
            Self::Recovery => {
                let each = found
                    .faults
                    .iter()
                    .map(|fault| Some(fault.recovered_ms? - fault.healed_ms?));
                let longest: Option<Vec<u64>> = each.collect();
                longest.map(|each| number(each.into_iter().max().unwrap_or(0)))
            }
            Self::SmallestShare => {
                let effects =
                    |name: &String| figures.nodes.get(name).map_or(0, |node| node.effects);
                let all: u64 = found.receivers.iter().map(effects).sum();
                let least = found.receivers.iter().map(effects).min()?;
                (all > 0).then(|| 100.0 * number(least) / number(all))
            }
            Self::Redelivered => Some(number(figures.redelivered)),
            Self::Failures => Some(number(figures.failures)),
            Self::Refused => Some(number(found.load.counts.refused)),
            Self::Unknown => Some(number(found.load.counts.unknown)),
            Self::Retries => Some(number(found.load.counts.retries)),
            Self::Stale => found.load.reads.map(|reads| number(reads.stale_ms)),
            Self::ReadsFailed => found.load.reads.map(|reads| number(reads.failed)),
            Self::MailCopies => figures.mail_copies.map(number),
        }
    }
}

/// A figure may go so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    pub figure: Figure,
    /// As it was written: `< 20s`.
    pub text: String,
    how: How,
    than: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Limit {
    /// Reads `< 20s`, `>= 20 %`, `<= 0`.
    pub fn parse(figure: Figure, text: &str) -> Result<Self, String> {
        let example = match figure.unit() {
            Unit::Time => "< 20s",
            Unit::Percent => ">= 20 %",
            Unit::Count => "<= 10",
        };
        let name = figure.name();
        let wrong = || format!("{name} is {text:?}; right is something like {example:?}");
        let signs = [
            ("<=", How::AtMost),
            (">=", How::AtLeast),
            ("<", How::Less),
            (">", How::More),
        ];
        let (rest, how) = signs
            .into_iter()
            .find_map(|(sign, how)| Some((text.trim().strip_prefix(sign)?.trim(), how)))
            .ok_or_else(wrong)?;
        let plain = |text: &str| {
            let digits = text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
            text.parse::<f64>().ok().filter(|_| digits)
        };
        let than = match figure.unit() {
            Unit::Time => length::parse(rest)
                .ok()
                .map(|time| time.as_secs_f64() * 1_000.0),
            Unit::Percent => rest.strip_suffix('%').and_then(|rest| plain(rest.trim())),
            Unit::Count => plain(rest),
        };
        Ok(Self {
            figure,
            text: text.trim().to_owned(),
            how,
            than: than.ok_or_else(wrong)?,
        })
    }

    fn holds(&self, value: f64) -> bool {
        match self.how {
            How::Less => value < self.than,
            How::AtMost => value <= self.than,
            How::More => value > self.than,
            How::AtLeast => value >= self.than,
        }
    }

    fn show(&self, value: f64) -> String {
        match self.figure.unit() {
            Unit::Time => length::show(Duration::from_secs_f64(value.max(0.0) / 1_000.0)),
            Unit::Percent => format!("{value:.1} %"),
            Unit::Count => format!("{value}"),
        }
    }
}

/// What is expected.
#[derive(Debug, Clone, PartialEq)]
pub struct Expect {
    pub verdict: Verdict,
    pub dead_max: u64,
    /// There must be messages of this class.
    pub class: Option<Class>,
    /// This figure must be beyond its limit.
    pub figure: Option<Figure>,
    pub limits: Vec<Limit>,
}

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    pub audit: &'a Report,
    pub load: &'a Summary,
    pub faults: &'a [FaultRecord],
    /// Names of all who work: receivers, or those who are that of another job.
    pub receivers: &'a [String],
}

/// Which class or figure, if one is wanted.
impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        if let Some(class) = self.class {
            write!(f, " ({class})")?;
        }
        if let Some(figure) = self.figure {
            write!(f, " ({})", figure.name())?;
        }
        Ok(())
    }
}

impl Expect {
    /// The verdict of the experiment, each expectation with what was found, and the outcome.
    pub fn judge(&self, found: &Found<'_>) -> (Verdict, Vec<Expectation>, Outcome) {
        let limits: Vec<(&Limit, Option<f64>)> = self
            .limits
            .iter()
            .map(|limit| (limit, limit.figure.of(found)))
            .collect();
        let beyond =
            |(limit, value): &(&Limit, Option<f64>)| value.is_some_and(|value| !limit.holds(value));
        let verdict = match found.audit.verdict {
            Verdict::Pass if limits.iter().any(beyond) => Verdict::Fail,
            verdict => verdict,
        };
        let mut all = vec![Expectation {
            what: VERDICT.to_owned(),
            wanted: self.verdict.to_string(),
            found: verdict.to_string(),
            met: verdict == self.verdict,
            beyond: false,
        }];
        if let Some(class) = self.class {
            let count = found
                .audit
                .classes
                .get(&class)
                .map_or(0, |count| count.messages);
            all.push(Expectation {
                what: of_class(class),
                wanted: "> 0".to_owned(),
                found: count.to_string(),
                met: count > 0,
                beyond: false,
            });
        } else if self.figure.is_some() {
            // else the figure would convict what something else has harmed
            let by_messages = found.audit.verdict;
            all.push(Expectation {
                what: BY_MESSAGES.to_owned(),
                wanted: Verdict::Pass.to_string(),
                found: by_messages.to_string(),
                met: by_messages == Verdict::Pass,
                beyond: false,
            });
        }
        for (limit, value) in limits {
            let wanted_beyond = self.figure == Some(limit.figure);
            // that of a twin is there to be broken; the others say nothing about it
            if self.verdict == Verdict::Fail && !wanted_beyond {
                continue;
            }
            let within = value.map(|value| limit.holds(value));
            all.push(Expectation {
                what: limit.figure.what().to_owned(),
                wanted: if wanted_beyond {
                    format!("not {}", limit.text)
                } else {
                    limit.text.clone()
                },
                found: value.map_or_else(|| "not measured".to_owned(), |value| limit.show(value)),
                met: within == Some(!wanted_beyond),
                beyond: within == Some(false),
            });
        }
        let outcome = match verdict {
            Verdict::Inconclusive => Outcome::Inconclusive,
            _ if all.iter().all(|one| one.met) => Outcome::AsExpected,
            _ => Outcome::NotAsExpected,
        };
        (verdict, all, outcome)
    }
}

#[cfg(test)]
#[path = "expect_tests.rs"]
mod tests;
