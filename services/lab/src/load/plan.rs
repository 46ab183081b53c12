//! What is asked of a load, and whether it can be done; found out before anything begins.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::length;
use super::schedule::{Rate, Schedule};
use crate::say::Usage;

const TOTAL_MAX: u64 = 100_000_000;
const CONNECTIONS_MAX: usize = 1_000;
/// Of each text, in bytes.
pub const SIZE_MAX: usize = 10_000;
const BATCH_MAX: u32 = 1_000;
/// The gateway's limit of a request.
const BODY_MAX: usize = 1024 * 1024;
const PATIENCE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_hours(1);

/// A load to offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    pub rate: Rate,
    /// How long; none: until `total`, and with neither 30 s.
    #[serde(rename = "for", with = "length::maybe")]
    pub length: Option<Duration>,
    /// How many requests at most.
    pub total: Option<u64>,
    /// Most requests in flight at once.
    pub connections: usize,
    /// Of each text, in bytes.
    pub size: usize,
    /// Messages in a request.
    pub batch: u32,
    /// How many requests are poison, with all of their messages.
    pub poison: u64,
    pub seed: u64,
    /// How long a request is repeated until it is answered for good.
    #[serde(with = "length::text")]
    pub patience: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            rate: Rate::Constant(50.0),
            length: None,
            total: None,
            connections: 200,
            size: 100,
            batch: 1,
            poison: 0,
            seed: 1,
            patience: Duration::from_secs(30),
        }
    }
}

impl Plan {
    /// The due times. Wrong usage where it cannot be done.
    pub fn schedule(&self) -> Result<Schedule, Usage> {
        within("--total", self.total.unwrap_or(1), 1, TOTAL_MAX)?;
        within("--connections", self.connections, 1, CONNECTIONS_MAX)?;
        within("--size", self.size, 1, SIZE_MAX)?;
        within("--batch", self.batch, 1, BATCH_MAX)?;
        if self.length.is_some_and(|length| length.is_zero()) {
            return Err(Usage("--for 0s: a load takes some time".to_owned()));
        }
        if !PATIENCE.contains(&self.patience) {
            let patience = length::show(self.patience);
            return Err(Usage(format!(
                "--patience {patience}: right is 100ms to 1h"
            )));
        }
        if (self.size + 20) * self.batch as usize > BODY_MAX {
            let (batch, size) = (self.batch, self.size);
            return Err(Usage(format!(
                "--batch {batch} with --size {size}: a request would be larger than 1 MiB"
            )));
        }
        let default = self.total.is_none().then_some(Duration::from_secs(30));
        let schedule = Schedule::new(self.rate, self.length.or(default), self.total);
        if schedule.count() > TOTAL_MAX {
            let count = schedule.count();
            return Err(Usage(format!(
                "these are {count} requests: at most {TOTAL_MAX}"
            )));
        }
        if self.poison > schedule.count() {
            let (poison, count) = (self.poison, schedule.count());
            return Err(Usage(format!(
                "--poison {poison}: there are {count} requests only"
            )));
        }
        Ok(schedule)
    }
}

fn within<N: Copy + PartialOrd + std::fmt::Display>(
    flag: &str,
    value: N,
    min: N,
    max: N,
) -> Result<(), Usage> {
    if (&min..=&max).contains(&&value) {
        Ok(())
    } else {
        Err(Usage(format!("{flag} {value}: right is {min} to {max}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_load_takes_half_a_minute() {
        assert_eq!(Plan::default().schedule().unwrap().count(), 1_500);
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_flag() {
        let plan = Plan::default;
        for (wrong, flag) in [
            (
                Plan {
                    total: Some(0),
                    ..plan()
                },
                "--total 0",
            ),
            (
                Plan {
                    connections: 0,
                    ..plan()
                },
                "--connections 0",
            ),
            (Plan { size: 0, ..plan() }, "--size 0"),
            (
                Plan {
                    size: 10_001,
                    ..plan()
                },
                "--size 10001",
            ),
            (Plan { batch: 0, ..plan() }, "--batch 0"),
            (
                Plan {
                    batch: 1_000,
                    size: 5_000,
                    ..plan()
                },
                "--batch 1000",
            ),
            (
                Plan {
                    length: Some(Duration::ZERO),
                    ..plan()
                },
                "--for 0s",
            ),
            (
                Plan {
                    patience: Duration::ZERO,
                    ..plan()
                },
                "--patience 0s",
            ),
            (
                Plan {
                    poison: 1_501,
                    ..plan()
                },
                "--poison 1501",
            ),
            (
                Plan {
                    rate: Rate::Constant(1e5),
                    length: Some(Duration::from_hours(2)),
                    ..plan()
                },
                "requests",
            ),
        ] {
            let error = wrong.schedule().unwrap_err().to_string();
            assert!(error.contains(flag) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_plan_is_written_as_people_write_it() {
        let text = r#"{"rate":"50..200","for":"10s","patience":"500ms"}"#;
        let plan: Plan = serde_json::from_str(text).unwrap();
        assert_eq!(plan.length, Some(Duration::from_secs(10)));
        assert_eq!(plan.schedule().unwrap().count(), 1_250);
        let again: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        assert_eq!(again, plan);
        for wrong in [r#"{"rates":"1"}"#, r#"{"rate":"0"}"#, r#"{"for":"10"}"#] {
            assert!(serde_json::from_str::<Plan>(wrong).is_err(), "{wrong}");
        }
    }
}
