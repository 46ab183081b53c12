//! Whether a run is drained, stuck, or neither yet: decided from look to look, by no clock of its own.

use std::time::Duration;

use super::drain::{Bounds, Drain};
use super::ledger::Progress;
use super::look::Look;

/// Longer than the broker's figures are old.
pub(super) const SETTLED: Duration = Duration::from_secs(6);
/// Without a move of ours, whatever others do.
const LONG: Duration = Duration::from_secs(20);

/// Decides from look to look.
#[derive(Debug)]
pub(super) struct Watch {
    bounds: Bounds,
    last: Option<Progress>,
    pub(super) moved_at: Duration,
    quiet_since: Option<Duration>,
    /// Others had effects since something of ours moved.
    foreign: bool,
}

impl Watch {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            last: None,
            moved_at: Duration::ZERO,
            quiet_since: None,
            foreign: false,
        }
    }

    /// None: watch on.
    pub(super) fn step(&mut self, now: Duration, look: &Look) -> Option<Drain> {
        self.note(now, look);
        let still = now.saturating_sub(self.moved_at);
        let end = |drained, stuck, doubts| {
            Some(Drain {
                drained,
                stuck,
                doubts,
                waited: now,
            })
        };
        if self.bounds.recovery.is_zero() {
            let drained = !look.load_runs && look.accounted();
            return end(drained, false, look.ledger_error.iter().cloned().collect());
        }
        if look.load_runs {
            return None;
        }
        let blind = !look.sees_queues && !look.sees_nodes;
        if look.accounted() && (blind || look.quiet() && (look.fresh || still >= SETTLED)) {
            return end(true, false, Vec::new());
        }
        // a copy may wait on the ladder for as long as its longest rung
        if look.accounted() && still >= LONG + look.rung {
            let left = "everything is accounted for, but messages are still on the road, and nobody knows whose: a copy of one may yet be done twice";
            let doubts = (!self.foreign).then(|| left.to_owned());
            return end(true, false, doubts.into_iter().collect());
        }
        if self
            .quiet_since
            .is_some_and(|since| now.saturating_sub(since) >= SETTLED)
        {
            return end(true, false, Vec::new());
        }
        // what looks empty, or is all accounted for, gets the time to be seen so: it is not stuck
        let empty = self.quiet_since.is_some() || look.accounted();
        if empty || still < self.bounds.recovery.max(SETTLED) + look.rung {
            return None;
        }
        let doubts = self.doubts(look);
        end(false, doubts.is_empty(), doubts)
    }

    fn note(&mut self, now: Duration, look: &Look) {
        let Some(progress) = look.ledger else {
            self.quiet_since = None;
            return;
        };
        let same = |last: Progress| {
            let newest = progress.newest;
            Progress { newest, ..last } == progress
        };
        if look.load_runs || !self.last.is_some_and(same) {
            self.moved_at = now;
            self.foreign = false;
        } else if self.last.is_some_and(|last| last.newest != progress.newest) {
            self.foreign = true;
        }
        self.last = Some(progress);
        let empty = !look.load_runs && progress.outbox == 0 && look.quiet();
        if !(empty && look.sees_queues && look.sees_nodes) {
            self.quiet_since = None;
        } else if self.quiet_since.is_none() {
            self.quiet_since = Some(now);
        }
    }

    /// Why it cannot be said that the run is stuck; none: it is.
    fn doubts(&self, look: &Look) -> Vec<String> {
        let mut doubts = Vec::new();
        if let Some(why) = &look.ledger_error {
            doubts.push(format!("the ledger cannot be read: {why}"));
        }
        if let Some(what) = &self.bounds.unhealed {
            doubts.push(format!("still broken on purpose: {what}"));
        }
        if !look.sees_nodes {
            doubts.push(
                "the nodes cannot be seen, so nobody knows whether they could work".to_owned(),
            );
        }
        doubts.extend(look.deserted.iter().cloned());
        doubts.extend(look.not_ready.iter().cloned());
        if self.foreign {
            doubts.push("messages that are not of this run kept the queue busy".to_owned());
        }
        doubts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watching() -> Watch {
        Watch::new(Bounds {
            recovery: Duration::from_mins(1),
            unhealed: None,
        })
    }

    /// Ten messages, so many effects; all that can be seen is seen.
    fn look(effects: i64, queued: u64, in_hand: u64) -> Look {
        Look {
            ledger: Some(Progress {
                messages: 10,
                effects,
                newest: effects,
                ..Progress::default()
            }),
            outstanding: (effects >= 10).then_some(0),
            queued: Some(queued),
            in_hand: Some(in_hand),
            sees_queues: true,
            sees_nodes: true,
            ..Look::default()
        }
    }

    /// Shows the same look each second; when and how it ended.
    fn after(watch: &mut Watch, from: u64, look: &Look) -> (u64, Drain) {
        for second in from..from + 200 {
            if let Some(drain) = watch.step(Duration::from_secs(second), look) {
                return (second, drain);
            }
        }
        panic!("still watching: {watch:?}");
    }

    #[test]
    fn all_accounted_for_is_drained_once_no_copy_can_be_left() {
        let mut watch = watching();
        assert_eq!(watch.step(Duration::ZERO, &look(9, 1, 1)), None);
        // a second copy of the last message is still in hand
        for second in 1..15 {
            assert_eq!(
                watch.step(Duration::from_secs(second), &look(10, 0, 1)),
                None
            );
        }
        let (at, drain) = after(&mut watch, 15, &look(10, 0, 0));
        assert!(drain.drained && at == 15, "{at} {drain:?}");
        let (at, drain) = after(&mut watching(), 3, &look(10, 0, 0));
        assert!(drain.drained && at == 9, "{at} {drain:?}");
    }

    #[test]
    fn an_empty_road_is_drained_although_messages_are_missing() {
        let (at, drain) = after(&mut watching(), 0, &look(7, 0, 0));
        assert_eq!((at, drain.drained, drain.stuck), (6, true, false));
    }

    #[test]
    fn an_empty_road_is_not_stuck_however_short_the_bound() {
        for recovery in 1..15 {
            let hasty = || {
                let mut watch = watching();
                watch.bounds.recovery = Duration::from_secs(recovery);
                watch
            };
            // the broker's figures are five seconds old
            let mut watch = hasty();
            for second in 0..=5 {
                let busy = look(7, 3, 0);
                assert_eq!(watch.step(Duration::from_secs(second), &busy), None);
            }
            let (at, drain) = after(&mut watch, 6, &look(7, 0, 0));
            assert!(drain.drained && at == 12, "{recovery}: {at} {drain:?}");
            // accounted for, and others have the queue
            let (at, drain) = after(&mut hasty(), 0, &look(10, 3, 1));
            assert!(drain.drained && at == 20, "{recovery}: {at} {drain:?}");
            assert_eq!(drain.doubts.len(), 1);
            let (at, drain) = after(&mut hasty(), 0, &look(7, 3, 0));
            assert!(drain.stuck && at == recovery.max(6), "{recovery}: {at}");
        }
    }

    #[test]
    fn quiet_must_last() {
        let mut watch = watching();
        for second in 0..30 {
            // something appears each fifth second
            let busy = u64::from(second % 5 == 4);
            assert_eq!(
                watch.step(Duration::from_secs(second), &look(7, busy, 0)),
                None,
                "{second}"
            );
        }
        // what is not known is not quiet
        let blind = Look {
            in_hand: None,
            ..look(7, 0, 0)
        };
        let (_, drain) = after(&mut watch, 30, &blind);
        assert!(!drain.drained);
    }

    #[test]
    fn stuck_is_when_nothing_moves_for_as_long_as_a_recovery_may_take() {
        let mut watch = watching();
        assert_eq!(watch.step(Duration::ZERO, &look(5, 5, 0)), None);
        assert_eq!(watch.step(Duration::from_secs(50), &look(6, 4, 0)), None);
        let (at, drain) = after(&mut watch, 51, &look(6, 4, 0));
        assert_eq!((at, drain.drained, drain.stuck), (110, false, true));
        assert_eq!(drain.doubts, [""; 0]);
    }

    #[test]
    fn a_failure_of_the_work_is_a_move() {
        let mut watch = watching();
        for second in 0..300 {
            let mut look = look(5, 0, 5);
            if let Some(ledger) = &mut look.ledger {
                ledger.failures = i64::try_from(second / 50).unwrap();
            }
            assert_eq!(watch.step(Duration::from_secs(second), &look), None);
        }
    }

    #[test]
    fn where_it_cannot_be_known_it_is_a_doubt_and_not_stuck() {
        let not_ready = Look {
            not_ready: vec!["receiver-1 is not ready".to_owned()],
            ..look(5, 5, 0)
        };
        let unseen = Look {
            sees_nodes: false,
            ..look(5, 5, 0)
        };
        let away = Look {
            ledger: None,
            ledger_error: Some("connection refused".to_owned()),
            ..look(5, 5, 0)
        };
        for look in [not_ready, unseen, away] {
            let (at, drain) = after(&mut watching(), 0, &look);
            assert_eq!(
                (at, drain.drained, drain.stuck),
                (60, false, false),
                "{look:?}"
            );
            assert_eq!(drain.doubts.len(), 1, "{drain:?}");
        }
        let mut broken = watching();
        broken.bounds.unhealed = Some("receiver-pause".to_owned());
        let (_, drain) = after(&mut broken, 0, &look(5, 5, 0));
        assert!(!drain.stuck && drain.doubts[0].contains("receiver-pause"));
    }

    #[test]
    fn what_is_counted_now_needs_no_time_to_settle_and_what_is_deserted_is_not_stuck() {
        let fresh = |left: i64| Look {
            fresh: true,
            outstanding: Some(left),
            sees_queues: false,
            ..look(10 - left, left.unsigned_abs(), 0)
        };
        let (at, drain) = after(&mut watching(), 0, &fresh(0));
        assert!(drain.drained && at == 0, "{at}");
        let (at, drain) = after(&mut watching(), 0, &fresh(1));
        assert!(drain.stuck && at == 60, "{at} {drain:?}");
        let deserted = Look {
            deserted: Some("nobody leases".to_owned()),
            ..fresh(1)
        };
        let (_, drain) = after(&mut watching(), 0, &deserted);
        assert!(
            !drain.stuck && drain.doubts == ["nobody leases"],
            "{drain:?}"
        );
    }

    #[test]
    fn messages_of_others_are_a_doubt() {
        let mut watch = watching();
        for second in 0..=60 {
            let mut look = look(5, 5, 1);
            if let Some(ledger) = &mut look.ledger {
                ledger.newest = second;
            }
            let now = Duration::from_secs(second.cast_unsigned());
            if let Some(drain) = watch.step(now, &look) {
                assert!(
                    !drain.stuck && drain.doubts[0].contains("not of this run"),
                    "{drain:?}"
                );
                return;
            }
        }
        panic!("still watching");
    }

    #[test]
    fn others_do_not_keep_a_run_from_being_drained() {
        let mut watch = watching();
        assert_eq!(watch.step(Duration::ZERO, &look(10, 5, 1)), None);
        let mut theirs = look(10, 5, 1);
        if let Some(ledger) = &mut theirs.ledger {
            ledger.newest += 1;
        }
        let (at, drain) = after(&mut watch, 1, &theirs);
        assert!(drain.drained && at == 20, "{at}");
        assert_eq!(drain.doubts, [""; 0]);
    }

    #[test]
    fn what_is_still_on_the_road_and_nobodys_is_a_doubt_after_the_longest_rung() {
        let waits = Look {
            rung: Duration::from_secs(25),
            ..look(10, 1, 0)
        };
        let (at, drain) = after(&mut watching(), 0, &waits);
        assert!(drain.drained && at == 45, "{at}");
        assert!(drain.doubts[0].contains("a copy of one"), "{drain:?}");
    }

    #[test]
    fn nothing_ends_while_the_load_runs() {
        let mut watch = watching();
        let runs = Look {
            load_runs: true,
            ..look(10, 0, 0)
        };
        for second in 0..200 {
            assert_eq!(watch.step(Duration::from_secs(second), &runs), None);
        }
        let (at, drain) = after(&mut watch, 200, &look(10, 0, 0));
        assert!(drain.drained && at == 205, "{at}");
    }

    #[test]
    fn without_patience_one_look_decides() {
        for (effects, drained) in [(10, true), (9, false)] {
            let mut watch = Watch::new(Bounds {
                recovery: Duration::ZERO,
                unhealed: None,
            });
            let drain = watch.step(Duration::ZERO, &look(effects, 0, 0)).unwrap();
            assert_eq!((drain.drained, drain.stuck), (drained, false));
        }
    }

    #[test]
    fn time_on_the_ladder_is_time_to_wait() {
        let mut watch = watching();
        let waits = Look {
            rung: Duration::from_secs(30),
            ..look(5, 5, 0)
        };
        let (at, drain) = after(&mut watch, 0, &waits);
        assert!(at == 90 && drain.stuck, "{at}");
    }
}
