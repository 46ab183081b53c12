//! The last fifteen minutes, second by second, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// So many seconds are kept.
pub const KEPT: usize = 15 * 60;
/// What one look brought is shared by so many seconds at most.
const SHARED_MAX: u64 = 60;

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

/// A look that came `lasted` seconds after that of `last`, with the seconds before it that had no look, oldest first.
///
/// What it brought came in all of them, so each has its share: in one alone it would be more than a second can bring. What
/// is so at a moment is told of the last of them only, and of the others just the faults that were there all the time.
pub fn spread(last: Option<&Second>, lasted: u64, look: &Second) -> Vec<Second> {
    let free = last.map_or(1, |last| u64::try_from(look.t - last.t).unwrap_or(1));
    let parts = lasted.min(free).clamp(1, SHARED_MAX);
    let before = last.map(|last| last.faults.as_slice()).unwrap_or_default();
    let stayed = look.faults.iter().filter(|name| before.contains(name));
    let stayed: Vec<String> = stayed.cloned().collect();
    let first = look.t.saturating_sub_unsigned(parts - 1);
    let one = |(part, t): (u64, i64)| {
        let share = |whole: u64| whole * (part + 1) / parts - whole * part / parts;
        let moment = if t == look.t {
            look.clone()
        } else {
            Second {
                t,
                faults: stayed.clone(),
                ..Second::default()
            }
        };
        Second {
            accepted: share(look.accepted),
            published: share(look.published),
            processed: share(look.processed),
            failed: share(look.failed),
            redelivered: share(look.redelivered),
            dead: share(look.dead),
            ..moment
        }
    };
    (0..parts).zip(first..).map(one).collect()
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
    fn what_a_late_look_brought_is_shared_by_the_seconds_without_one() {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
        let last = Second {
            t: 10,
            faults: names(&["a"]),
            ..Second::default()
        };
        let look = |t| Second {
            t,
            accepted: 49,
            processed: 1,
            ready: Some(7),
            faults: names(&["a", "b"]),
            ..Second::default()
        };
        let told = |last, lasted, t| {
            let all = spread(last, lasted, &look(t));
            let figures = all.iter().map(|one| (one.t, one.accepted, one.processed));
            figures.collect::<Vec<_>>()
        };
        assert_eq!(told(Some(&last), 1, 11), [(11, 49, 1)]);
        assert_eq!(told(Some(&last), 2, 12), [(11, 24, 0), (12, 25, 1)]);
        // a second was jumped over, though the looks were one apart
        assert_eq!(told(Some(&last), 1, 12), [(12, 49, 1)]);
        // the first of all; the clock was set back
        assert_eq!(told(None, 5, 12), [(12, 49, 1)]);
        assert_eq!(told(Some(&last), 3, 3), [(3, 49, 1)]);
        let late = spread(Some(&last), 2, &look(12));
        assert_eq!((late[0].ready, late[1].ready), (None, Some(7)));
        assert_eq!((late[0].faults.len(), late[1].faults.len()), (1, 2));
        let slept = spread(Some(&last), 900, &look(910));
        assert_eq!(slept.len(), 60);
        assert_eq!(slept.iter().map(|one| one.accepted).sum::<u64>(), 49);
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
