//! The whole road at a rate that does not slow down: through the gateway, from HTTP to the committed effect.
//!
//! What is searched is the highest rate that is held for the whole time with bounded latency (`highest.rs` has the steps).
//! Held means: every request was accepted; each message has exactly one effect; 99 of 100 are answered, and have their
//! effect after they were accepted, within a second; and when the last one was offered, everything is done within a second,
//! or within the same share of a shorter trial. A system that falls behind by a thirtieth of what comes cannot do that; one
//! that paused and made up for it can. Times from accepted to effect are of the database's clock.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;

use super::accept::ARRAY;
use super::highest::{Next, Search};
use super::offer::{Pace, What, offer};
use super::sheet::{Unit, real};
use super::stage::{Scene, fast};
use super::{Course, Scenario, WAIT};
use crate::load::Latency;
use crate::run::RunId;
use crate::say::grouped;

const CONNECTIONS: usize = 256;

/// One message a request, and arrays.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    batch: u32,
    role: &'static str,
    name: &'static str,
}

/// One message a request.
pub(super) const SINGLE: Mode = Mode {
    batch: 1,
    role: "pipeline",
    name: "one message a request",
};

const MODES: [Mode; 2] = [
    SINGLE,
    Mode {
        batch: ARRAY,
        role: "pipeline-arrays",
        name: "arrays of 100",
    },
];

/// Both modes.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let (senders, receivers) = (course.senders, course.receivers);
    let note = format!("{senders} senders, {receivers} receivers, {CONNECTIONS} connections");
    course.sheet.note(Scenario::Pipeline, note);
    for mode in MODES {
        let mut scene = course.stage.scene(senders, receivers, fast()).await?;
        let begun = Instant::now();
        let held = Box::pin(highest(course, &mut scene, mode)).await?;
        put(course, mode, "highest rate held", &held);
        course.sheet.role(mode.role, course.round, held.rate);
        let (rate, length) = (held.rate / 2.0, course.size.half);
        let half = trial(&mut scene, mode, rate, length, course.size.text).await?;
        if let Some(why) = &half.fell {
            bail!("at half of the highest rate, {why}");
        }
        put(course, mode, "half of it", &half);
        let rate = Unit::PerSecond.show(held.rate);
        course.said(begun, &format!("pipeline, {}: {rate}", mode.name));
    }
    Ok(())
}

/// One trial.
struct Trial {
    /// Messages a second, as offered.
    rate: f64,
    accepted: Histogram<u64>,
    effect: Histogram<u64>,
    /// From when the last message was due until everything was processed.
    left: Duration,
    split: Vec<(&'static str, f64)>,
    wal_bytes: f64,
    commits: f64,
    /// Why it does not count as held.
    fell: Option<String>,
}

impl Trial {
    /// Whether it held: bounds for one in a hundred, and for what was left at the end.
    fn judge(&mut self, bound: Duration, bound_left: Duration) {
        if self.fell.is_none() {
            let answered = late("answered", &self.accepted, bound);
            self.fell = answered
                .or_else(|| late("processed", &self.effect, bound))
                .or_else(|| {
                    (self.left > bound_left).then(|| {
                        let (left, bound) = (self.left.as_millis(), bound_left.as_millis());
                        format!("it needed {left} ms more at the end, bound {bound} ms")
                    })
                });
        }
    }
}

async fn highest(course: &mut Course<'_>, scene: &mut Scene<'_>, mode: Mode) -> Result<Trial> {
    let size = *course.size;
    let saturated = overload(scene, mode, size.overload, size.text).await?.rate;
    course.sheet.add(
        Scenario::Pipeline,
        &format!("{}: offered all it can take", mode.name),
        Unit::PerSecond,
        saturated,
    );
    let (mut search, mut next) = Search::new(saturated, size.trials, size.holds);
    let mut last = None;
    loop {
        let (rate, length) = match next {
            Next::Try(rate) => (rate, size.trial),
            Next::Hold(rate) => (rate, size.hold),
            Next::Found(_) => return last.context("a rate that nobody tried was held"),
            Next::Nothing => {
                let why = last.and_then(|trial: Trial| trial.fell).unwrap_or_default();
                bail!("no rate was held; at the last one, {why}");
            }
        };
        let begun = Instant::now();
        // whoever falls behind does so in a short time as well, only less
        let bound_left = size
            .bound
            .mul_f64(length.div_duration_f64(size.hold).min(1.0));
        let mut trial = trial(scene, mode, rate, length, size.text).await?;
        trial.judge(size.bound, bound_left);
        let secs = length.as_secs_f64();
        let rate_said = Unit::PerSecond.show(rate);
        let how = trial.fell.as_deref().unwrap_or("held");
        course.said(begun, &format!("  {rate_said} for {secs:.0} s: {how}"));
        next = search.tried(rate, trial.fell.is_none());
        last = Some(trial);
    }
}

/// What the system takes.
pub(super) struct Taken {
    /// Effects a second.
    pub(super) rate: f64,
    /// Microseconds of CPU for each message.
    pub(super) split: Vec<(&'static str, f64)>,
}

/// As much is offered as the system takes.
pub(super) async fn overload(
    scene: &mut Scene<'_>,
    mode: Mode,
    length: Duration,
    text: usize,
) -> Result<Taken> {
    let run = RunId::new();
    let what = What::Messages {
        run: run.clone(),
        batch: mode.batch,
        size: text,
    };
    let (before, cpu) = (scene.processed().await?, scene.cpu());
    let pace = Pace::closed(CONNECTIONS / 4, Duration::ZERO, length);
    let outcome = offer(scene.gateway()?, &what, pace).await?.all_right()?;
    let accepted = outcome.right * u64::from(mode.batch);
    scene.until_processed(before + accepted, WAIT).await?;
    Ok(Taken {
        rate: scene.book.effects(&run, accepted).await?.rate(),
        split: scene.cpu().per(&cpu, accepted),
    })
}

async fn trial(
    scene: &mut Scene<'_>,
    mode: Mode,
    rate: f64,
    length: Duration,
    text: usize,
) -> Result<Trial> {
    let run = RunId::new();
    let what = What::Messages {
        run: run.clone(),
        batch: mode.batch,
        size: text,
    };
    let before = scene.processed().await?;
    let (cpu, written) = (scene.cpu(), scene.book.written().await?);
    let pace = Pace::open(CONNECTIONS, rate / f64::from(mode.batch), length);
    let begun = Instant::now();
    let outcome = offer(scene.gateway()?, &what, pace).await?;
    let accepted = outcome.right * u64::from(mode.batch);
    scene.until_processed(before + accepted, WAIT).await?;
    let left = begun.elapsed().saturating_sub(length);
    scene.until_published(WAIT).await?;
    let split = scene.cpu().per(&cpu, accepted);
    let now = scene.book.written().await?;
    if outcome.wrong == 0 {
        scene.book.effects(&run, accepted).await?;
    } else {
        // what was not answered may have been accepted, and must not be counted in the next trial
        scene.until_quiet(WAIT).await?;
    }
    let times = scene.book.latencies(&run).await?;
    let fell = (outcome.wrong > 0).then(|| {
        let why = outcome.why.clone().unwrap_or_default();
        format!("{} requests failed: {why}", grouped(outcome.wrong))
    });
    let each = |now: u64, before: u64| real(now - before) / real(accepted.max(1));
    Ok(Trial {
        rate,
        accepted: outcome.times,
        effect: times,
        left,
        split,
        wal_bytes: each(now.wal_bytes, written.wal_bytes),
        commits: each(now.commits, written.commits),
        fell,
    })
}

/// What is wrong with these times.
fn late(what: &str, times: &Histogram<u64>, bound: Duration) -> Option<String> {
    if times.is_empty() {
        return Some(format!("nothing was {what}"));
    }
    let p99 = Duration::from_micros(times.value_at_quantile(0.99));
    (p99 > bound).then(|| {
        format!(
            "one in a hundred was {what} after {} ms or more, bound {} ms",
            p99.as_millis(),
            bound.as_millis()
        )
    })
}

fn put(course: &mut Course<'_>, mode: Mode, what: &str, trial: &Trial) {
    let name = format!("{}: {what}", mode.name);
    let sheet = &mut *course.sheet;
    let scenario = Scenario::Pipeline;
    sheet.add(scenario, &name, Unit::PerSecond, trial.rate);
    let answered = format!("{name}, due to accepted");
    sheet.latency(scenario, &answered, Latency::of(&trial.accepted));
    let processed = format!("{name}, accepted to effect");
    sheet.latency(scenario, &processed, Latency::of(&trial.effect));
    sheet.add(
        scenario,
        &format!("{name}, log written for each message"),
        Unit::KiB,
        trial.wal_bytes / 1024.0,
    );
    sheet.add(
        scenario,
        &format!("{name}, commits for each message"),
        Unit::Share,
        trial.commits,
    );
    sheet.budget(&format!("pipeline, {name}"), &trial.split);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_may_be_later_than_the_bound() {
        let bound = Duration::from_millis(100);
        let mut times = Histogram::new(3).unwrap();
        assert!(late("answered", &times, bound).is_some());
        times.record_n(50_000, 995).unwrap();
        times.record_n(900_000, 5).unwrap();
        assert_eq!(late("answered", &times, bound), None);
        times.record_n(900_000, 15).unwrap();
        let why = late("answered", &times, bound).unwrap();
        assert!(
            why.contains("answered after 9") && why.contains("100 ms"),
            "{why}"
        );
    }
}
