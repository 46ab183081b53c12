//! The highest rate that is held, searched by steps.
//!
//! It begins below what the system does when it is offered all it can take. A rate that is held is raised by a factor
//! until one is not; then the step between the two is halved, as a factor, until it is small. What is found by short
//! trials must in the end be held for the whole time: if not, it is lowered by growing steps until it is.

/// The first trial, as a share of what the system does when it is overloaded.
const BEGIN: f64 = 0.8;
const RAISE: f64 = 1.25;
/// The bracket is small enough.
const CLOSE: f64 = 1.08;
/// A whole trial that failed is repeated at this share of it, the next one at the square of it, and so on.
const LOWER: f64 = 0.92;

/// What is to be tried next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// For a short time.
    Try(f64),
    /// For the whole time.
    Hold(f64),
    /// This rate was held for the whole time.
    Found(f64),
    /// None was.
    Nothing,
}

/// A search that has not ended.
#[derive(Debug, Clone)]
pub struct Search {
    held: Option<f64>,
    failed: Option<f64>,
    holding: Option<f64>,
    /// Trials left, of both kinds.
    trials: usize,
    holds: usize,
    lowered: i32,
}

impl Search {
    /// `saturated`: what the system does when it is offered all it can take.
    pub fn new(saturated: f64, trials: usize, holds: usize) -> (Self, Next) {
        let search = Self {
            held: None,
            failed: None,
            holding: None,
            trials,
            holds,
            lowered: 0,
        };
        let begin = saturated * BEGIN;
        let next = search.first(begin);
        (search.started(next), next)
    }

    fn first(&self, begin: f64) -> Next {
        if begin <= 0.0 || !begin.is_finite() {
            Next::Nothing
        } else if self.trials == 0 {
            Next::Hold(begin)
        } else {
            Next::Try(begin)
        }
    }

    fn started(mut self, next: Next) -> Self {
        if let Next::Hold(rate) = next {
            self.holding = Some(rate);
        }
        self
    }

    /// What became of the last trial.
    pub fn tried(&mut self, rate: f64, held: bool) -> Next {
        if let Some(holding) = self.holding {
            self.holds = self.holds.saturating_sub(1);
            if held {
                return Next::Found(holding);
            }
            if self.holds == 0 {
                return Next::Nothing;
            }
            self.lowered += 1;
            let lower = holding * LOWER.powi(self.lowered);
            self.holding = Some(lower);
            return Next::Hold(lower);
        }
        self.trials = self.trials.saturating_sub(1);
        if held {
            self.held = Some(self.held.map_or(rate, |best| best.max(rate)));
        } else {
            self.failed = Some(self.failed.map_or(rate, |worst| worst.min(rate)));
        }
        let next = match (self.held, self.failed) {
            (Some(held), Some(failed)) if failed / held > CLOSE => (held * failed).sqrt(),
            (Some(held), None) => held * RAISE,
            (None, Some(failed)) => failed / RAISE,
            (Some(_), Some(_)) => return self.hold(),
            (None, None) => return Next::Nothing,
        };
        if self.trials == 0 {
            return self.hold();
        }
        Next::Try(next)
    }

    fn hold(&mut self) -> Next {
        // nothing was held: what failed last, lowered
        let rate = self.held.or(self.failed.map(|failed| failed / RAISE));
        self.holding = rate;
        rate.map_or(Next::Nothing, Next::Hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a system that holds rates up to `limit` for the whole time, and `short` times that for a short one.
    fn search(saturated: f64, limit: f64, short: f64, trials: usize) -> (Option<f64>, usize) {
        let (mut search, mut next) = Search::new(saturated, trials, 6);
        for tries in 0..50 {
            next = match next {
                Next::Try(rate) => search.tried(rate, rate <= limit * short),
                Next::Hold(rate) => search.tried(rate, rate <= limit),
                Next::Found(rate) => return (Some(rate), tries),
                Next::Nothing => return (None, tries),
            };
        }
        panic!("it has no end");
    }

    #[test]
    fn the_highest_rate_is_found_from_above_and_from_below() {
        for saturated in [300.0, 800.0, 1_000.0, 1_250.0, 2_000.0, 3_000.0] {
            let (found, tries) = search(saturated, 1_000.0, 1.0, 12);
            let found = found.unwrap();
            assert!((925.0..=1_000.0).contains(&found), "{saturated}: {found}");
            assert!(tries <= 12, "{saturated}: {tries}");
        }
    }

    #[test]
    fn what_only_short_trials_hold_is_lowered_until_it_is_held() {
        let (found, _) = search(1_000.0, 1_000.0, 1.2, 8);
        let found = found.unwrap();
        assert!((830.0..=1_000.0).contains(&found), "{found}");
    }

    #[test]
    fn few_trials_still_find_a_rate_that_is_held() {
        let (found, _) = search(1_000.0, 700.0, 1.0, 2);
        assert!(found.unwrap() <= 700.0);
        let (found, tries) = search(1_000.0, 900.0, 1.0, 0);
        assert_eq!((found, tries), (Some(800.0), 1));
    }

    #[test]
    fn a_system_that_holds_nothing_ends_the_search() {
        let (found, tries) = search(1_000.0, 0.001, 1.0, 4);
        assert_eq!((found, tries), (None, 10));
        assert_eq!(search(0.0, 1_000.0, 1.0, 4), (None, 0));
    }
}
