//! What an audit found, for people and for scripts.

use std::fmt::Write as _;

use anyhow::{Error, Result};
use chrono::{DateTime, Utc};
use daemon::clock;
use serde::{Deserialize, Serialize};

use super::class::Class;
use super::culprits::Culprit;
use super::facts::Requests;
use super::figures::Figures;
use super::verdict::{Circumstances, Counts, Verdict};
use crate::run::{RunDir, RunId};
use crate::say::{grouped, time};
use crate::stack::dir::write_secret;

/// Its name in the folder of a run.
pub const FILE: &str = "audit.json";

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub run: RunId,
    pub verdict: Verdict,
    /// One line each; empty for PASS.
    pub reasons: Vec<String>,
    pub circumstances: Circumstances,
    /// `load`, or the name of an experiment.
    pub kind: String,
    /// Guarantees that were switched off.
    pub without: Vec<String>,
    pub requests: Requests,
    pub classes: Counts,
    pub figures: Figures,
    pub culprits: Vec<Culprit>,
    pub audited_at: DateTime<Utc>,
    pub took_ms: u64,
}

/// How text looks: on a terminal with colours, else without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn verdict(self, verdict: Verdict) -> String {
        let code = match verdict {
            Verdict::Pass => "1;32",
            Verdict::Fail => "1;31",
            Verdict::Inconclusive => "1;33",
        };
        self.with(code, &verdict.to_string())
    }

    fn class(self, class: Class, text: &str) -> String {
        match class {
            class if class.fails() => self.with("31", text),
            Class::Pending => self.with("33", text),
            _ => text.to_owned(),
        }
    }
}

impl Report {
    /// Of a run whose records could not be read.
    pub fn unseen(run: &RunDir, mut circumstances: Circumstances, error: &Error) -> Result<Self> {
        let meta = run.meta()?;
        let why = format!("{error:#}");
        if !circumstances.doubts.contains(&why) {
            let why = format!("the audit could not be made: {why}");
            circumstances.doubts.push(why);
        }
        Ok(Self {
            run: run.id().clone(),
            verdict: Verdict::Inconclusive,
            reasons: circumstances.doubts.clone(),
            circumstances,
            kind: meta.kind,
            without: meta.stack.without,
            requests: Requests::default(),
            classes: Counts::default(),
            figures: Figures::default(),
            culprits: Vec::new(),
            audited_at: clock::now(),
            took_ms: 0,
        })
    }

    /// Whether it could read anything of the run.
    pub fn saw(&self) -> bool {
        self.requests != Requests::default()
    }

    /// Puts it into the folder of its run. One that saw nothing does not take the place of one that did, which is returned.
    pub fn write(&self, run: &RunDir) -> Result<Option<Self>> {
        if !self.saw() {
            let there: Option<Self> = run.read(FILE).ok().flatten();
            if let Some(there) = there.filter(Self::saw) {
                return Ok(Some(there));
            }
        }
        // as a whole: others read it meanwhile
        write_secret(&run.path(FILE), &serde_json::to_string_pretty(self)?)?;
        Ok(None)
    }

    /// The verdict in one line, then why, then everything else.
    pub fn text(&self, paint: Paint) -> String {
        let mut text = format!("{}  {}\n", paint.verdict(self.verdict), self.headline());
        for reason in &self.reasons {
            let _ = writeln!(text, "  - {reason}");
        }
        if !self.without.is_empty() {
            let _ = writeln!(text, "  Switched off: {}", self.without.join(", "));
        }
        if !self.saw() && self.classes.is_empty() {
            // no table of nothing
            return text.trim_end().to_owned();
        }
        text += "\n";
        text += &self.table(paint);
        text += "\n";
        text += &self.figures();
        if !self.culprits.is_empty() {
            let named: u64 = self.culprits.len() as u64;
            let all: u64 = self
                .classes
                .iter()
                .filter(|(class, _)| class.fails() || **class == Class::Pending)
                .map(|(_, count)| count.messages)
                .sum();
            let _ = match all {
                all if all > named => {
                    writeln!(
                        text,
                        "\nThe first {named} of {} messages, with their history (UTC):",
                        grouped(all)
                    )
                }
                _ => writeln!(text, "\nThe messages, with their history (UTC):"),
            };
            for culprit in &self.culprits {
                text += "\n";
                for (place, line) in culprit.lines().iter().enumerate() {
                    let line = if place == 0 {
                        paint.class(culprit.class, line)
                    } else {
                        line.clone()
                    };
                    let _ = writeln!(text, "{line}");
                }
            }
        }
        text.trim_end().to_owned()
    }

    fn headline(&self) -> String {
        let messages = grouped(self.requests.messages);
        let run = &self.run;
        match self.verdict {
            Verdict::Pass => {
                let refused = self
                    .classes
                    .get(&Class::Refused)
                    .map_or(0, |count| count.messages);
                let stored = grouped(self.requests.messages - refused.min(self.requests.messages));
                format!("run {run}: each of {stored} accepted messages was dealt with exactly once")
            }
            Verdict::Fail => format!(
                "run {run}: of {messages} offered messages not all were dealt with exactly once"
            ),
            Verdict::Inconclusive if !self.saw() => {
                format!("run {run}: what became of its messages could not be seen")
            }
            Verdict::Inconclusive => {
                format!("run {run}: nothing wrong was found, but it cannot be said for sure")
            }
        }
    }

    fn table(&self, paint: Paint) -> String {
        let batches = self.requests.messages != self.requests.offered;
        let mut text = String::new();
        let head = if batches { "  requests" } else { "" };
        let _ = writeln!(text, "{:<18}{:>10}{head}", "class", "messages");
        for (class, count) in &self.classes {
            let word = class.word().replace('-', " ");
            let requests = if batches {
                format!("{:>10}", grouped(count.requests))
            } else {
                String::new()
            };
            let line = format!(
                "{word:<18}{:>10}{requests}  {}",
                grouped(count.messages),
                class.sentence()
            );
            let _ = writeln!(text, "{}", paint.class(*class, &line));
        }
        let told = &self.requests;
        let _ = writeln!(
            text,
            "\nClients were told of {} requests: {} accepted, {} refused, {} unknown",
            grouped(told.offered),
            grouped(told.accepted),
            grouped(told.refused),
            grouped(told.unknown)
        );
        text
    }

    fn figures(&self) -> String {
        let figures = &self.figures;
        let mut text = String::new();
        if let Some(took) = &figures.processed_us {
            let cells = [took.p50, took.p90, took.p99, took.p99_9, took.max].map(time);
            let names = ["p50", "p90", "p99", "p99.9", "max"];
            let cells: Vec<String> = names
                .iter()
                .zip(cells)
                .map(|(name, time)| format!("{name} {time}"))
                .collect();
            let _ = writeln!(text, "From accepted to processed: {}", cells.join("  "));
        }
        let silence = u64::try_from(figures.longest_silence_ms).unwrap_or(0) * 1_000;
        let _ = writeln!(
            text,
            "Longest time without an effect while messages waited: {}",
            time(silence)
        );
        let attempts = figures.attempts.iter();
        let attempts: Vec<String> = attempts
            .map(|(attempt, count)| format!("{attempt}: {}", grouped(*count)))
            .collect();
        if !attempts.is_empty() {
            let _ = writeln!(text, "Attempts until the effect: {}", attempts.join("  "));
        }
        let _ = writeln!(
            text,
            "Effects of redelivered messages: {}. Failures of the work: {}",
            grouped(figures.redelivered),
            grouped(figures.failures)
        );
        if figures.twice_redelivered + figures.twice_unmarked > 0 {
            let _ = writeln!(
                text,
                "Ids with several effects: {} with a delivery that the broker marked as redelivered, {} without",
                grouped(figures.twice_redelivered),
                grouped(figures.twice_unmarked)
            );
        }
        for cause in &figures.redeliveries {
            let why = cause
                .cause
                .as_ref()
                .map_or_else(String::new, |why| format!(": {why}"));
            let _ = writeln!(
                text,
                "Deliveries without an effect: {:>10}  {}{why}",
                grouped(cause.deliveries),
                cause.outcome
            );
        }
        if figures.discarded > 0 {
            let _ = writeln!(
                text,
                "Given up on by a person too: {} of the parked are discarded",
                grouped(figures.discarded)
            );
        }
        if let Some(copies) = figures.mail_copies {
            let _ = writeln!(
                text,
                "Copies of mails under one Message-ID: {}. SMTP cannot be exactly once: a mail that the server took, and whose sender \
                 died before it wrote that down, goes out again, as the same mail",
                grouped(copies)
            );
        }
        for (node, counts) in &figures.nodes {
            let _ = writeln!(text, "{node}: {}", counts.text());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::verdict::{Count, verdict};
    use crate::run::tests::Root;

    fn report(classes: &[(Class, u64)]) -> Report {
        let counts: Counts = classes
            .iter()
            .map(|(class, n)| {
                (
                    *class,
                    Count {
                        messages: *n,
                        requests: *n,
                    },
                )
            })
            .collect();
        let circumstances = Circumstances {
            drained: true,
            ..Circumstances::default()
        };
        let messages = classes.iter().map(|(_, n)| n).sum();
        let (verdict, reasons) = verdict(&counts, &circumstances);
        Report {
            run: "r1".parse().unwrap(),
            verdict,
            reasons,
            circumstances,
            kind: "load".to_owned(),
            without: Vec::new(),
            requests: Requests {
                offered: messages,
                messages,
                accepted: messages,
                ..Requests::default()
            },
            classes: counts,
            figures: Figures::default(),
            culprits: Vec::new(),
            audited_at: "2026-11-21T09:15:59Z".parse().unwrap(),
            took_ms: 12,
        }
    }

    #[test]
    fn the_verdict_is_the_first_word_and_each_class_has_a_sentence() {
        let text = report(&[
            (Class::Ok, 1_490),
            (Class::Recovered, 2),
            (Class::Refused, 8),
        ])
        .text(Paint(false));
        let expected = "\
PASS  run r1: each of 1,492 accepted messages was dealt with exactly once

class               messages
recovered                  2  processed once, though its client never learned the outcome
ok                     1,490  accepted and processed once
refused                    8  not accepted, and nothing came of it, as it should be

Clients were told of 1,500 requests: 1,500 accepted, 0 refused, 0 unknown

Longest time without an effect while messages waited: 0.00 ms
Effects of redelivered messages: 0. Failures of the work: 0";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_failure_says_why_below_its_first_line() {
        let mut report = report(&[(Class::Lost, 3), (Class::Ok, 1)]);
        report.without = vec!["outbox".to_owned()];
        let text = report.text(Paint(false));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("FAIL  run r1: of 4 offered"), "{text}");
        assert!(lines[1].starts_with("  - 3 messages are lost: "), "{text}");
        assert_eq!(lines[2], "  Switched off: outbox");
        let coloured = report.text(Paint(true));
        assert!(
            coloured.starts_with("\x1b[1;31mFAIL\x1b[0m  run"),
            "{coloured}"
        );
        assert!(coloured.contains("\x1b[31mlost  "), "{coloured}");
    }

    #[test]
    fn an_audit_that_saw_nothing_says_so_and_replaces_none_that_did() {
        let root = Root::new();
        let run = root.run("r1");
        let error = Error::msg("refused").context("the ledger cannot be reached");
        let seen_by_the_watch = Circumstances {
            doubts: vec!["the ledger cannot be reached: refused".to_owned()],
            ..Circumstances::default()
        };
        let unseen = Report::unseen(&run, seen_by_the_watch, &error).unwrap();
        assert_eq!(
            unseen.text(Paint(false)),
            "INCONCLUSIVE  run r1: what became of its messages could not be seen\n  - the ledger cannot be reached: refused"
        );
        let on_file = || run.read::<Report>(FILE).unwrap().unwrap();
        assert_eq!(unseen.write(&run).unwrap(), None);
        assert_eq!(on_file(), unseen);
        let seen = report(&[(Class::Ok, 1)]);
        assert_eq!(seen.write(&run).unwrap(), None);
        assert_eq!(unseen.write(&run).unwrap(), Some(seen.clone()));
        assert_eq!(on_file(), seen);
    }

    #[test]
    fn the_json_can_be_read_again() {
        let report = report(&[(Class::GivenUpWrongly, 3), (Class::Ok, 1)]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["verdict"], "FAIL");
        assert_eq!(json["classes"]["given-up-wrongly"]["messages"], 3);
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }
}
