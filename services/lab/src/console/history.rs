//! The last fifteen minutes, second by second, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// So many seconds are kept.
pub const KEPT: usize = 15 * 60;

/// What one second brought.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Second {
    /// Seconds since 1970.
    pub t: i64,
    pub accepted: u64,
    pub published: u64,
    pub processed: u64,
    pub failed: u64,
    pub redelivered: u64,
    pub dead: u64,
    /// None: the broker did not say.
    pub ready: Option<u64>,
    pub unacked: Option<u64>,
    /// From accepted to processed, in milliseconds, of what was processed in this second.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    /// What was broken on purpose.
    pub faults: Vec<String>,
}

/// The second of a look that is made at this moment (ms since 1970), after one of that second.
///
/// Looks are a second apart, but one that took long is followed soon: then two would be of one second, and one of them
/// would be lost.
pub fn second(last: Option<i64>, at: i64) -> i64 {
    let now = at / 1_000;
    match last {
        // further ahead than looks can be: the clock was set back
        Some(last) if (now..now + 5).contains(&last) => last + 1,
        _ => now,
    }
}

/// All of them. Clones share one.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<VecDeque<Second>>>);

/// As the API shows it.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The first second; none: nothing is known yet.
    pub from: Option<i64>,
    pub seconds: Vec<Second>,
}

impl History {
    /// Adds one; the oldest goes.
    pub fn add(&self, second: Second) {
        let mut seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seconds.len() == KEPT {
            seconds.pop_front();
        }
        seconds.push_back(second);
    }

    /// All that is kept, oldest first. Seconds that nobody saw are missing.
    pub fn all(&self) -> Shown {
        let seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Shown {
            from: seconds.front().map(|first| first.t),
            seconds: seconds.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_looks_within_a_second_are_two_seconds() {
        let mut told = Vec::new();
        let mut last = None;
        for at in [
            10_900, 11_950, 13_020, 13_500, 14_500, 15_500, 17_000, 3_000,
        ] {
            let t = second(last, at);
            told.push(t);
            last = Some(t);
        }
        assert_eq!(told, [10, 11, 13, 14, 15, 16, 17, 3]);
    }

    #[test]
    fn fifteen_minutes_are_kept_and_no_more() {
        let history = History::default();
        for t in 0..1_000 {
            history.add(Second {
                t,
                ..Second::default()
            });
        }
        let all = history.all();
        assert_eq!((all.from, all.seconds.len()), (Some(100), KEPT));
        assert_eq!(all.seconds.last().map(|last| last.t), Some(999));
    }
}
