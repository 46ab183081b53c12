//! The course of a run: what the charts show, over one axis of seconds since its start.

use crate::audit;
use crate::experiment::journal::{FaultRecord, Journal, Sample};
use crate::load::Summary;
use crate::run::Meta;

use super::recorded::Recorded;

/// Most points of a line.
const POINTS: usize = 400;

/// A line: its name, how it looks (a class of the style sheet), and its points in time. None: not observed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    pub name: &'static str,
    pub class: &'static str,
    pub points: Vec<(f64, Option<f64>)>,
}

/// A fault, for the timeline and as a shade behind every chart; seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Shade {
    pub fault: String,
    pub planned: f64,
    /// None: it was not injected.
    pub from: Option<f64>,
    /// None: it was not healed.
    pub to: Option<f64>,
    pub recovered: Option<f64>,
    pub sentence: String,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Course {
    /// How long it took, seconds.
    pub end: f64,
    /// Until when requests were offered, and until the last had its answer.
    pub offering: f64,
    pub answering: f64,
    pub faults: Vec<Shade>,
    /// Messages a second.
    pub rates: Vec<Series>,
    /// Messages.
    pub depth: Vec<Series>,
    /// A second.
    pub trouble: Vec<Series>,
    /// Microseconds, by when a request was due.
    pub latency: Vec<Series>,
}

impl Course {
    pub(super) fn of(
        meta: &Meta,
        load: Option<&Summary>,
        audit: Option<&audit::Report>,
        journal: Option<&Journal>,
        recorded: Option<&Recorded>,
    ) -> Self {
        let mut course = Self {
            offering: load.map_or(0.0, |load| load.offering_secs),
            answering: load.map_or(0.0, |load| load.answering_secs),
            ..Self::default()
        };
        let samples = journal.map_or(&[][..], |journal| &journal.samples);
        if let Some(journal) = journal {
            course.faults = journal.faults.iter().map(shade).collect();
        }
        if samples.len() > 1 {
            course.sampled(samples);
        } else {
            course.read_back(meta, audit, recorded);
        }
        if let Some(recorded) = recorded {
            course.latency = latency(recorded);
        }
        let series = [&course.rates, &course.depth, &course.latency];
        let ends = series
            .into_iter()
            .flatten()
            .filter_map(|series| Some(series.points.last()?.0));
        let faults = course
            .faults
            .iter()
            .filter_map(|fault| fault.recovered.or(fault.to).or(fault.from));
        course.end = ends.chain(faults).fold(course.answering, f64::max);
        course
    }

    fn sampled(&mut self, samples: &[Sample]) {
        let stride = (samples.len() - 1).div_ceil(POINTS);
        let ends: Vec<&Sample> = samples.iter().step_by(stride).collect();
        let rate = |name, class, count: fn(&Sample) -> u64| {
            let between = ends.windows(2).filter(|pair| pair[1].at_ms > pair[0].at_ms);
            let points = between.map(|pair| {
                let more = count(pair[1]).saturating_sub(count(pair[0]));
                let time = millis(pair[1].at_ms - pair[0].at_ms);
                (millis(pair[1].at_ms), Some(number(more) / time))
            });
            Series {
                name,
                class,
                points: points.collect(),
            }
        };
        self.rates = vec![
            rate("accepted", "accepted", |sample| sample.accepted),
            rate("processed", "processed", |sample| sample.processed),
            rate("offered", "offered", |sample| sample.offered),
        ];
        self.trouble = vec![
            rate("failures of the work", "failed", |sample| sample.failed),
            rate("redelivered", "redelivered", |sample| sample.redelivered),
        ];
        let gauge = |name, class, depth: fn(&Sample) -> Option<u64>| {
            // of several the deepest, so that no peak is lost
            let points = samples.chunks(stride).map(|few| {
                let deepest = few.iter().filter_map(depth).max();
                (millis(few[0].at_ms), deepest.map(number))
            });
            Series {
                name,
                class,
                points: points.collect(),
            }
        };
        self.depth = vec![
            gauge("ready", "ready", |sample| sample.ready),
            gauge("unacked", "unacked", |sample| sample.unacked),
            gauge("outbox", "outbox", |sample| sample.outbox),
        ];
    }

    /// Without samples: from the load's own record and from what the audit counted.
    fn read_back(
        &mut self,
        meta: &Meta,
        audit: Option<&audit::Report>,
        recorded: Option<&Recorded>,
    ) {
        if let Some(recorded) = recorded {
            let width = micros(recorded.slice_us);
            let line = |name, class, counts: &[u64]| Series {
                name,
                class,
                points: slices(
                    width,
                    0.0,
                    counts.iter().map(|count| number(*count) / width),
                ),
            };
            self.rates
                .push(line("accepted", "accepted", &recorded.accepted));
            self.rates
                .push(line("offered", "offered", &recorded.offered));
        }
        let rates = audit.map(|audit| &audit.figures.rates);
        if let (Some(rates), Some(start)) = (rates, meta.started_at)
            && rates.slice_ms > 0
        {
            // fine slices would be noise: at least as wide as those of the record
            let widest = recorded.map_or(1_000, |recorded| recorded.slice_us / 1_000);
            let widest = i64::try_from(widest).unwrap_or(i64::MAX);
            let few = usize::try_from((widest / rates.slice_ms).max(1)).unwrap_or(1);
            let width = seconds_of(rates.slice_ms) * number(few as u64);
            let from = seconds_of(rates.from_ms - start.timestamp_millis());
            let sums = rates
                .effects
                .chunks(few)
                .map(|counts| number(counts.iter().map(|count| u64::from(*count)).sum()) / width);
            let points = slices(width, from.max(0.0), sums);
            self.rates.insert(
                0,
                Series {
                    name: "processed",
                    class: "processed",
                    points,
                },
            );
        }
    }
}

/// A point in the middle of each slice.
fn slices(width: f64, from: f64, values: impl Iterator<Item = f64>) -> Vec<(f64, Option<f64>)> {
    let mut middle = from - width / 2.0;
    values
        .map(|value| {
            middle += width;
            (middle, Some(value))
        })
        .collect()
}

fn latency(recorded: &Recorded) -> Vec<Series> {
    let width = micros(recorded.slice_us);
    let line = |name, class, place: usize| {
        let values = recorded
            .latency
            .iter()
            .map(|times| times.map(|times| times[place]));
        let points = slices(width, 0.0, values.clone().map(|_| 0.0))
            .into_iter()
            .zip(values);
        Series {
            name,
            class,
            // below a microsecond there is nothing on a logarithmic scale
            points: points
                .map(|((at, _), us)| (at, us.map(|us| number(us.max(1)))))
                .collect(),
        }
    };
    vec![
        line("longest", "longest", 2),
        line("p99", "p99", 1),
        line("p50", "p50", 0),
    ]
}

fn shade(record: &FaultRecord) -> Shade {
    Shade {
        fault: record.fault.clone(),
        planned: millis(record.planned_ms),
        from: record.injected_ms.map(millis),
        to: record.healed_ms.map(millis),
        recovered: record.recovered_ms.map(millis),
        sentence: super::story::fault(record),
    }
}

fn millis(ms: u64) -> f64 {
    number(ms) / 1e3
}

fn micros(us: u64) -> f64 {
    number(us) / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "for a picture")]
fn seconds_of(ms: i64) -> f64 {
    ms as f64 / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "for a picture")]
fn number(count: u64) -> f64 {
    count as f64
}
