//! What is asked of a load, and whether it can be done; found out before anything begins.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::length;
use super::schedule::{Rate, Schedule};
use crate::run::Job;
use crate::say::Usage;

const TOTAL_MAX: u64 = 100_000_000;
const CONNECTIONS_MAX: usize = 1_000;
/// Of each text, in bytes.
pub const SIZE_MAX: usize = 10_000;
const BATCH_MAX: u32 = 1_000;
/// The gateway's limit of a request.
const BODY_MAX: usize = 1024 * 1024;
/// Whoever reads, or leases and confirms, has a connection of its own.
const BESIDE_MAX: usize = 100;
/// Where a lease queue gets lessees that nobody has counted.
const LESSEES: usize = 8;
const LEASE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_hours(12);
const PATIENCE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_hours(1);

/// How a lessee says which lease it confirms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confirm {
    /// By the token of its lease: only the holder can.
    #[default]
    Token,
    /// By the message's id alone: whoever knows it can, while a lease is live (unsafe).
    Id,
}

impl fmt::Display for Confirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Token => "token",
            Self::Id => "id",
        })
    }
}

impl FromStr for Confirm {
    type Err = Usage;

    fn from_str(word: &str) -> Result<Self, Usage> {
        match word {
            "token" => Ok(Self::Token),
            "id" => Ok(Self::Id),
            _ => Err(Usage(format!(
                "a lease is not confirmed by {word:?}; right is token or id"
            ))),
        }
    }
}

/// Reads `1/N`, one in so many; or `0`, none.
pub fn one_in(text: &str) -> Result<u64, Usage> {
    let number = match text.split_once('/') {
        Some(("1", number)) => number.parse().ok().filter(|number| *number > 0),
        None if text == "0" => Some(0),
        _ => None,
    };
    number.ok_or_else(|| {
        Usage(format!(
            "{text:?} is no share: right is 1/25, or 0 for none"
        ))
    })
}

/// A load to offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    pub to: Job,
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
    /// Of notes: how many read the list all the while.
    pub readers: usize,
    /// Of leases: how many lease and confirm; none: as many as usual.
    pub lessees: Option<usize>,
    /// Of leases: of each so many messages one is confirmed late, when somebody else holds it; 0: none.
    pub late: u64,
    pub confirm: Confirm,
    /// Of leases: how long one holds, and after how many a message is given up on (0: never).
    #[serde(with = "length::text")]
    pub lease: Duration,
    pub max_receives: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            to: Job::Messages,
            rate: Rate::Constant(50.0),
            length: None,
            total: None,
            connections: 200,
            size: 100,
            batch: 1,
            poison: 0,
            seed: 1,
            patience: Duration::from_secs(30),
            readers: 0,
            lessees: None,
            late: 0,
            confirm: Confirm::Token,
            lease: Duration::from_secs(1),
            max_receives: 20,
        }
    }
}

impl Plan {
    /// The due times. Wrong usage where it cannot be done.
    pub fn schedule(&self) -> Result<Schedule, Usage> {
        self.fits()?;
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

    /// How many lease and confirm.
    pub fn lessees(&self) -> usize {
        let usual = if self.to == Job::Leases { LESSEES } else { 0 };
        self.lessees.unwrap_or(usual)
    }

    /// What is asked for must have a meaning where the load goes.
    fn fits(&self) -> Result<(), Usage> {
        let to = self.to;
        let alien = |flag: &str, of: &str| {
            Err(Usage(format!("{flag} is for {of}; this load goes to {to}")))
        };
        let usual = Self::default();
        if to != Job::Messages && self.batch != 1 {
            return alien("--batch", "messages");
        }
        if !matches!(to, Job::Messages | Job::Leases) && self.poison > 0 {
            return alien("--poison", "messages and leases");
        }
        if to != Job::Notes && self.readers > 0 {
            return alien("--readers", "notes");
        }
        within("--readers", self.readers, 0, BESIDE_MAX)?;
        if to == Job::Leases {
            within("--lessees", self.lessees(), 1, BESIDE_MAX)?;
            within("--max-receives", self.max_receives, 0, 1_000)?;
            if !LEASE.contains(&self.lease) {
                let lease = length::show(self.lease);
                return Err(Usage(format!("--lease {lease}: right is 100ms to 12h")));
            }
            if self.poison > 0 && self.max_receives == 0 {
                let why = "--poison with --max-receives 0: nothing would ever give it up";
                return Err(Usage(why.to_owned()));
            }
            return Ok(());
        }
        let given = [
            (self.lessees.is_some(), "--lessees"),
            (self.late != usual.late, "--late"),
            (self.confirm != usual.confirm, "--confirm"),
            (self.lease != usual.lease, "--lease"),
            (self.max_receives != usual.max_receives, "--max-receives"),
        ];
        match given.into_iter().find(|(given, _)| *given) {
            Some((_, flag)) => alien(flag, "leases"),
            None => Ok(()),
        }
    }
}

fn within<N: Copy + PartialOrd + fmt::Display>(
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
    fn what_has_no_meaning_where_the_load_goes_is_refused() {
        let plan = |text: &str| serde_json::from_str::<Plan>(text).unwrap().schedule();
        for right in [
            r#"{"to":"leases","lessees":3,"late":10,"confirm":"id","lease":"500ms","max_receives":0}"#,
            r#"{"to":"leases","poison":3}"#,
            r#"{"to":"notes","readers":4}"#,
            r#"{"to":"signup"}"#,
        ] {
            plan(right).unwrap();
        }
        for (wrong, why) in [
            (
                r#"{"readers":4}"#,
                "--readers is for notes; this load goes to messages",
            ),
            (r#"{"to":"notes","batch":2}"#, "--batch is for messages"),
            (
                r#"{"to":"notes","poison":2}"#,
                "--poison is for messages and leases",
            ),
            (r#"{"to":"signup","lessees":2}"#, "--lessees is for leases"),
            (r#"{"to":"notes","lease":"2s"}"#, "--lease is for leases"),
            (r#"{"to":"leases","lessees":0}"#, "--lessees 0"),
            (r#"{"to":"leases","lease":"1ms"}"#, "--lease 1ms"),
            (
                r#"{"to":"leases","poison":1,"max_receives":0}"#,
                "--max-receives 0",
            ),
        ] {
            let said = plan(wrong).unwrap_err().0;
            assert!(said.contains(why), "{wrong}: {said}");
        }
        assert_eq!(Plan::default().lessees(), 0);
        assert_eq!((one_in("1/25"), one_in("0")), (Ok(25), Ok(0)));
        for wrong in ["", "25", "2/25", "1/0", "1/", "1/-1"] {
            assert!(one_in(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_plan_of_before_there_were_other_services_goes_to_messages() {
        let old: Plan = serde_json::from_str(r#"{"rate":"1","for":"1s","total":null}"#).unwrap();
        assert_eq!(old.to, Job::Messages);
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
