//! Audit: what became of every message of a run, and the verdict.
//!
//! Three records meet: the load's own (what each client was told), the sender's `message`, and the receiver's `processed`
//! and `dead_letter`; notes have the same in a schema of their own, accounts have mails instead of effects, and what became of
//! leases their lessees know (`source.rs`). It is read as of one moment, in the order of message ids, and merged (`merge.rs`); each message
//! finds its request by its key, and is added to what is known of it (`facts.rs`); then every request is judged in the
//! order of numbers (`verdict.rs`) by a table (`classes.csv`). Memory does not grow with the run.
//!
//! Order matters while a load still runs. Answers are read before the moment of the ledger: whatever was accepted by then
//! must be stored. Offers are read again after it: whatever is stored must have been offered.

pub mod anew;
pub mod class;
pub mod cli;
pub mod culprits;
pub mod drain;
pub mod facts;
pub mod figures;
pub mod leases;
pub mod ledger;
mod look;
mod mails;
pub mod merge;
mod pages;
pub mod report;
mod snapshot;
mod source;
pub mod timeline;
pub mod verdict;
mod watch;

#[cfg(test)]
mod made;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use daemon::clock;
use tokio::time::timeout;

use crate::run::RunDir;
use crate::run::requests::{self, Line};
use class::Class;
use culprits::{Suspects, Who};
use facts::{Requests, Scatter, Seen};
use figures::Gatherer;
use ledger::Ledger;
use merge::{EffectRow, Found, Sink};
pub use report::Report;
use source::Source;
pub use verdict::{Circumstances, Verdict};
use verdict::{Counts, Effects, Facts, Rows, Told};

/// Ten thousand messages a second would be slow.
const LIMIT: Duration = Duration::from_mins(15);

/// Judges a run by what is on record now.
pub async fn audit(ledger: &Ledger, run: &RunDir, circumstances: &Circumstances) -> Result<Report> {
    audit_behind(None, ledger, run, circumstances).await
}

/// The same of a stack whose gateway is this one now, and not where it was when the run was made.
pub async fn audit_behind(
    gateway: Option<&str>,
    ledger: &Ledger,
    run: &RunDir,
    circumstances: &Circumstances,
) -> Result<Report> {
    let audit = timeout(LIMIT, audit_now(gateway, ledger, run, circumstances));
    audit.await.context("the audit did not end in time")?
}

async fn audit_now(
    gateway: Option<&str>,
    ledger: &Ledger,
    run: &RunDir,
    circumstances: &Circumstances,
) -> Result<Report> {
    let began = Instant::now();
    let meta = run.meta()?;
    let log = run.path(requests::FILE);
    let scatter = Scatter::new(&run.path("")).context("cannot write beside the run's files")?;
    let mut bench = Bench::new(scatter, circumstances)?;
    let length = length(&log)?;
    let lines = read_all(&log, &mut bench.scatter).context("cannot read the load's record")?;
    let mut source = Source::open(ledger, gateway, run, &meta, circumstances.drained).await?;
    if self::length(&log)? != length {
        read_offers(&log, lines, &mut bench.scatter).context("cannot read the load's record")?;
    }
    {
        let (messages, effects, dead) = source.streams(run.id());
        merge::merge(messages, effects, dead, &mut bench).await?;
    }
    let requests = bench.judge()?;
    let mut circumstances = bench.circumstances;
    if bench.scatter.damaged() > 0 {
        let lines = bench.scatter.damaged();
        circumstances.doubts.push(format!(
            "{lines} lines of the load's record contradict others"
        ));
    }
    if let Source::Held(held) = &mut source {
        circumstances.broken.append(&mut held.broken);
    }
    let (verdict, reasons) = verdict::verdict(&bench.counts, &circumstances);
    let still = (!circumstances.drained).then(|| source.taken_at().timestamp_micros());
    let mut figures = bench.gatherer.finish(still);
    figures.nodes = source.nodes(run.id()).await?.into_iter().collect();
    (figures.failures, figures.redeliveries) = source.causes(run.id()).await?;
    if let Source::Held(held) = &source {
        figures.mail_copies = held.mail_copies;
    }
    figures.never_stored = bench.never_stored;
    let culprits = culprits::describe(bench.suspects, &mut source, run, &meta).await?;
    Ok(Report {
        run: run.id().clone(),
        kind: meta.kind,
        without: meta.stack.without,
        verdict,
        reasons,
        circumstances,
        requests,
        classes: bench.counts,
        figures,
        culprits,
        audited_at: clock::now(),
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// What is judged, and what it came to so far.
struct Bench {
    scatter: Scatter,
    circumstances: Circumstances,
    counts: Counts,
    suspects: Suspects,
    gatherer: Gatherer,
    never_stored: u64,
}

impl Bench {
    fn new(scatter: Scatter, circumstances: &Circumstances) -> Result<Self> {
        Ok(Self {
            scatter,
            circumstances: circumstances.clone(),
            counts: Counts::default(),
            suspects: Suspects::default(),
            gatherer: Gatherer::new()?,
            never_stored: 0,
        })
    }

    /// Every message that was offered; those that were not are judged as they are found.
    fn judge(&mut self) -> Result<Requests> {
        let Self {
            scatter,
            circumstances,
            counts,
            suspects,
            gatherer: _,
            never_stored,
        } = self;
        let mut gravest = Class::Refused;
        let requests = scatter.each(|place, facts, last| {
            let rule = verdict::rule(&facts, circumstances);
            counts.entry(rule.class).or_default().messages += 1;
            let stored = !matches!(facts.rows, Rows::None | Rows::Others);
            *never_stored += u64::from(rule.class == Class::Lost && !stored);
            suspects.add(rule.class, &rule.why, Who::Offered(place));
            gravest = gravest.min(rule.class);
            if last {
                counts.entry(gravest).or_default().requests += 1;
                gravest = Class::Refused;
            }
        });
        let requests = requests.context("cannot read beside the run's files")?;
        verdict::allow(counts, circumstances.dead_max);
        if !counts.contains_key(&Class::GivenUpWrongly) {
            suspects.clear(Class::GivenUpWrongly);
        }
        Ok(requests)
    }
}

impl Sink for Bench {
    fn effect(&mut self, row: &EffectRow) {
        self.gatherer.effect(row);
    }

    fn found(&mut self, found: &Found) -> Result<()> {
        self.gatherer.found(found);
        let seen = Seen {
            effects: found.effects,
            parked: found.parked,
        };
        let stored = match found
            .message
            .and_then(|row| Some((row.number?, row.position)))
        {
            Some((number, position)) => self
                .scatter
                .store(number, position, seen)
                .context("cannot write beside the run's files")?,
            None => false,
        };
        if !stored {
            let facts = Facts {
                told: Told::Nobody,
                rows: if found.message.is_some() {
                    Rows::One
                } else {
                    Rows::None
                },
                effects: Effects::of(found.effects),
                parked: found.parked,
                poison: false,
            };
            let rule = verdict::rule(&facts, &self.circumstances);
            self.counts.entry(rule.class).or_default().messages += 1;
            self.suspects
                .add(rule.class, &rule.why, Who::Stray(found.id));
        }
        Ok(())
    }
}

fn length(log: &Path) -> io::Result<u64> {
    match fs::metadata(log) {
        Ok(data) => Ok(data.len()),
        // the load never began
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// The whole record so far; returns its length in lines.
fn read_all(log: &Path, scatter: &mut Scatter) -> io::Result<usize> {
    let mut count = 0;
    if log.exists() {
        for line in requests::read(log)? {
            scatter.line(&line?)?;
            count += 1;
        }
    }
    Ok(count)
}

/// What came since: offers only. An answer that came after the moment of the ledger says nothing about it.
fn read_offers(log: &Path, known: usize, scatter: &mut Scatter) -> io::Result<()> {
    if log.exists() {
        for line in requests::read(log)?.skip(known) {
            if let Line::Offered(offered) = line? {
                scatter.offer(&offered)?;
            }
        }
    }
    Ok(())
}
