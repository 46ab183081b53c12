//! When each request of a load is due, known before anything begins.
//!
//! A rate is one of three:
//!
//! - `50`: 50 requests a second;
//! - `50..200`: from 50 to 200 a second, growing evenly (or falling) until the end;
//! - `100x3`: 100 a second, and after each four seconds one second with three times as many.
//!
//! Request `n` is due at the moment at which the rate, summed up from the start, reaches `n`. So the schedule does not
//! depend on how well the system does, and two loads of the same rate have the same one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::say::Usage;

const RATE_MAX: f64 = 100_000.0;
/// One in a quarter of an hour, about.
const LOWEST: f64 = 0.001;
/// Of the seconds of a burst's turn, those before the burst.
const QUIET: f64 = 4.0;

/// Requests a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Rate {
    Constant(f64),
    Ramp { from: f64, to: f64 },
    Burst { base: f64, factor: f64 },
}

impl FromStr for Rate {
    type Err = Usage;

    fn from_str(text: &str) -> Result<Self, Usage> {
        let number = |part: &str| {
            // f64 would also take `inf` and `1e9`
            let plain = part.bytes().all(|c| c.is_ascii_digit() || c == b'.');
            part.parse::<f64>().ok().filter(|_| plain)
        };
        let rate = if let Some((from, to)) = text.split_once("..") {
            number(from)
                .zip(number(to))
                .map(|(from, to)| Self::Ramp { from, to })
        } else if let Some((base, factor)) = text.split_once('x') {
            number(base)
                .zip(number(factor))
                .map(|(base, factor)| Self::Burst { base, factor })
        } else {
            number(text).map(Self::Constant)
        };
        let Some(rate) = rate else {
            return Err(Usage(format!(
                "{text:?} is no rate: right is 50, 50..200 (a ramp) or 100x3 (bursts of three times as many)"
            )));
        };
        if rate.peak() > RATE_MAX {
            return Err(Usage(format!(
                "a rate of {text} is too high: at most {RATE_MAX} requests a second"
            )));
        }
        let too_low = match rate {
            Self::Constant(rate) => rate < LOWEST,
            Self::Ramp { .. } => rate.peak() < LOWEST,
            Self::Burst { base, factor } => base < LOWEST || factor < LOWEST,
        };
        if too_low {
            return Err(Usage(format!(
                "a rate of {text} is too low: at least 0.001 requests a second"
            )));
        }
        Ok(rate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(rate) => write!(f, "{rate}"),
            Self::Ramp { from, to } => write!(f, "{from}..{to}"),
            Self::Burst { base, factor } => write!(f, "{base}x{factor}"),
        }
    }
}

impl TryFrom<String> for Rate {
    type Error = Usage;

    fn try_from(text: String) -> Result<Self, Usage> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl Rate {
    fn peak(self) -> f64 {
        match self {
            Self::Constant(rate) => rate,
            Self::Ramp { from, to } => from.max(to),
            Self::Burst { base, factor } => base.max(base * factor),
        }
    }

    /// About the longest time between two requests, where the rate is lowest.
    pub fn longest_gap(self) -> Duration {
        let lowest = match self {
            Self::Constant(rate) => rate,
            Self::Ramp { from, to } => from.min(to),
            Self::Burst { base, factor } => base.min(base * factor),
        };
        Duration::from_secs_f64(1.0 / lowest.max(LOWEST))
    }

    /// How many requests are due before this second; a ramp ends at `length`.
    fn sum(self, second: f64, length: f64) -> f64 {
        match self {
            Self::Constant(rate) => rate * second,
            Self::Ramp { from, to } => from * second + (to - from) / length * second * second / 2.0,
            Self::Burst { base, factor } => {
                let turn = (second / (QUIET + 1.0)).floor();
                let rest = second - turn * (QUIET + 1.0);
                let burst = (rest - QUIET).max(0.0);
                base * (turn * (QUIET + factor) + rest.min(QUIET) + burst * factor)
            }
        }
    }

    /// The second at which this many were due.
    fn reaches(self, sum: f64, length: f64) -> f64 {
        match self {
            Self::Constant(rate) => sum / rate,
            Self::Ramp { .. } if sum == 0.0 => 0.0,
            Self::Ramp { from, to } => {
                let growth = (to - from) / length;
                // the usual formula divides by the growth, which may be 0
                2.0 * sum / (from + (from * from + 2.0 * growth * sum).max(0.0).sqrt())
            }
            Self::Burst { base, factor } => {
                let whole = base * (QUIET + factor);
                let turn = (sum / whole).floor();
                let rest = (sum - turn * whole) / base;
                let burst = (rest - QUIET).max(0.0) / factor;
                turn * (QUIET + 1.0) + rest.min(QUIET) + burst
            }
        }
    }
}

/// The due times of one load.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    rate: Rate,
    /// In seconds; of a load without one, the time in which its total is reached.
    length: f64,
    count: u64,
}

impl Schedule {
    /// Ends with `length` or with `total`, whichever comes first; one of them is there.
    pub fn new(rate: Rate, length: Option<Duration>, total: Option<u64>) -> Self {
        let total = total.unwrap_or(u64::MAX);
        let length = length.map_or_else(
            || match rate {
                Rate::Ramp { from, to } => real(total) * 2.0 / (from + to),
                rate => rate.reaches(real(total), 0.0),
            },
            |length| length.as_secs_f64(),
        );
        let mut schedule = Self {
            rate,
            length,
            count: u64::MAX,
        };
        schedule.count = total.min(schedule.due_before_end());
        if total < u64::MAX && schedule.count < total && schedule.length_is_of(total) {
            // the rounding of the length is no reason to leave one out
            schedule.count = total;
        }
        schedule
    }

    fn length_is_of(&self, total: u64) -> bool {
        (self.rate.sum(self.length, self.length) - real(total)).abs() < 1e-6 * real(total)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "never negative, and a cast saturates"
    )]
    fn due_before_end(&self) -> u64 {
        let mut count = self.rate.sum(self.length, self.length).ceil() as u64;
        while count > 0 && self.second(count - 1) >= self.length {
            count -= 1;
        }
        count
    }

    fn second(&self, number: u64) -> f64 {
        self.rate.reaches(real(number), self.length)
    }

    /// How many requests there are: numbers 0 to one less.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// When this one is due, in microseconds after the start.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "never negative, and at most some days"
    )]
    pub fn due_us(&self, number: u64) -> u64 {
        (self.second(number).min(self.length) * 1e6).round() as u64
    }

    /// How long the load goes on: until the request after the last would be due, or its length.
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.second(self.count).min(self.length))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers of requests are far below 2^52"
)]
fn real(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: &str, length: Option<u64>, total: Option<u64>) -> Schedule {
        let length = length.map(Duration::from_secs);
        Schedule::new(rate.parse().unwrap(), length, total)
    }

    fn dues(schedule: &Schedule) -> Vec<u64> {
        (0..schedule.count()).map(|n| schedule.due_us(n)).collect()
    }

    #[test]
    fn a_rate_is_written_in_three_ways() {
        for (text, rate) in [
            ("50", Rate::Constant(50.0)),
            ("0.5", Rate::Constant(0.5)),
            (
                "50..200",
                Rate::Ramp {
                    from: 50.0,
                    to: 200.0,
                },
            ),
            (
                "0..10",
                Rate::Ramp {
                    from: 0.0,
                    to: 10.0,
                },
            ),
            (
                "100x3",
                Rate::Burst {
                    base: 100.0,
                    factor: 3.0,
                },
            ),
        ] {
            let read: Rate = text.parse().unwrap();
            assert_eq!((read, read.to_string().as_str()), (rate, text));
        }
        for wrong in [
            "0",
            "-1",
            "1e9",
            "1000000000",
            "inf",
            "nan",
            "",
            "x",
            "0..0",
            "1..",
            "5x0",
            "0x3",
            "100x2000",
            "50/s",
        ] {
            let error = wrong.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains(wrong) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_constant_rate_is_even_and_exact() {
        let half_minute = schedule("50", Some(30), None);
        assert_eq!(half_minute.count(), 1_500);
        assert_eq!(half_minute.length(), Duration::from_secs(30));
        let dues = dues(&half_minute);
        assert_eq!(dues[..3], [0, 20_000, 40_000]);
        assert_eq!(dues[1_499], 29_980_000);
        assert!(dues.windows(2).all(|pair| pair[1] - pair[0] == 20_000));
        // 3 a second for 10 s: a third is no exact number, the sum is
        assert_eq!(schedule("3", Some(10), None).count(), 30);
    }

    #[test]
    fn a_load_ends_with_its_time_or_its_total() {
        assert_eq!(schedule("50", Some(30), Some(100)).count(), 100);
        assert_eq!(
            schedule("50", Some(30), Some(100)).length(),
            Duration::from_secs(2)
        );
        assert_eq!(schedule("50", Some(30), Some(9_999)).count(), 1_500);
        for rate in ["7", "7..77", "77..7", "7x3", "0.3"] {
            for total in [1, 2, 10, 997, 100_000] {
                assert_eq!(schedule(rate, None, Some(total)).count(), total, "{rate}");
            }
        }
        assert_eq!(schedule("0.1", Some(1), None).count(), 1);
    }

    #[test]
    fn a_ramp_sums_up_to_its_mean_and_grows_evenly() {
        let ramp = schedule("50..200", Some(20), None);
        assert_eq!(ramp.count(), 20 * 125);
        let dues = dues(&ramp);
        assert!(dues.is_sorted());
        // each second has as many as its mean rate says: 53.75, 61.25, ..
        for second in 0..20_u64 {
            let within = second * 1_000_000..(second + 1) * 1_000_000;
            let count = dues.iter().filter(|due| within.contains(due)).count();
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let expected = 50.0 + 7.5 * (second as f64 + 0.5);
            assert!(
                (real(count as u64) - expected).abs() <= 1.0,
                "{second}: {count} of {expected}"
            );
        }
        let falling = schedule("200..50", Some(20), None);
        assert_eq!(falling.count(), 2_500);
        assert_eq!(falling.due_us(1), 5_000);
        let flat = schedule("50..50", Some(20), None);
        assert_eq!((flat.count(), flat.due_us(999)), (1_000, 19_980_000));
        let from_nothing = schedule("0..10", Some(10), None);
        assert_eq!((from_nothing.count(), from_nothing.due_us(0)), (50, 0));
    }

    #[test]
    fn a_burst_is_every_fifth_second() {
        let bursts = schedule("100x3", Some(10), None);
        assert_eq!(bursts.count(), 2 * (400 + 300));
        let dues = dues(&bursts);
        assert!(dues.is_sorted());
        let in_second = |second: u64| {
            dues.iter()
                .filter(|due| **due / 1_000_000 == second)
                .count()
        };
        let counts: Vec<usize> = (0..10).map(in_second).collect();
        for (second, expected) in [100, 100, 100, 100, 300, 100, 100, 100, 100, 300]
            .into_iter()
            .enumerate()
        {
            assert!(counts[second].abs_diff(expected) <= 1, "{counts:?}");
        }
    }
}
