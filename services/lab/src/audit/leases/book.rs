//! What the lessees of a run were told, and what can be concluded from that alone.
//!
//! **Two holders at one time.** A lease begins at a moment between the question and the answer that brought it, and holds for
//! its length from there, unless its holder confirms. So by the lessees' own clock, a lease *surely* holds from its answer
//! to its question plus its length, or to its own confirm's question if that comes first; and it *surely has begun* by its
//! answer. Of two leases of one message, the one that began later began before its answer, and then the other one held:
//!
//! - the later one had begun when its answer came, `told(later)`;
//! - the earlier one held until `asked(earlier) + length` at least, if it was not confirmed before;
//! - so both were held at one time if `told(later) < asked(earlier) + length`, and no confirm of the earlier one was asked before
//!   `told(later)`.
//!
//! Which of two began later cannot always be said, so both ways round are demanded (`overlap`). Where one was answered
//! before the other was asked for, the second way is true by itself. Another's confirm without a token ends a lease too, but it
//! takes the message away, and nobody gets it after that. The database's clock measures the length, the lessees' clock
//! all else: that they do not run at one pace is what `SLACK_US` is for. It is not for a clock that is set meanwhile.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;
use chrono::DateTime;
use uuid::Uuid;

use crate::audit::figures::NodeCounts;
use crate::audit::merge::EffectRow;
use crate::audit::source::{Event, after};
use crate::run::RunDir;
use crate::run::leased::{Leased, Line, Went};
use crate::run::record::{self, Line as _};

/// Clocks differ by less during a lease of hours, and requests of less are of no interest.
const SLACK_US: u64 = 5_000;
/// Most pairs of holders that are named.
const NAMED: usize = 3;

/// What a lessee said in the end, and what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Confirm {
    pub(super) late: bool,
    pub(super) asked_us: u64,
    /// The status, 0 for nothing, and when.
    pub(super) answer: Option<(u16, u64)>,
}

/// All of one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::audit) struct Lease {
    pub(super) leased: Leased,
    pub(super) confirm: Option<Confirm>,
}

/// The record of a run's lessees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    pub(in crate::audit) leases: Vec<Lease>,
    /// How many confirms in time were answered with yes.
    pub confirmed: u64,
    /// Why they went; none: they have not.
    pub went: Option<Went>,
}

impl Book {
    /// As far as it is written. A run whose load never began has an empty one.
    pub fn read(run: &RunDir) -> Result<Self> {
        let mut book = Self::default();
        let path = run.path(Line::FILE);
        if !path.exists() {
            return Ok(book);
        }
        let mut places = HashMap::new();
        for line in record::read(&path)? {
            book.add(line?, &mut places);
        }
        Ok(book)
    }

    fn add(&mut self, line: Line, places: &mut HashMap<u64, usize>) {
        match line {
            Line::Leased(leased) => {
                places.insert(leased.lease, self.leases.len());
                self.leases.push(Lease {
                    leased,
                    confirm: None,
                });
            }
            Line::Confirms {
                lease,
                late,
                asked_us,
            } => {
                if let Some(lease) = self.lease(lease, places) {
                    lease.confirm = Some(Confirm {
                        late,
                        asked_us,
                        answer: None,
                    });
                }
            }
            Line::Answered {
                lease,
                status,
                told_us,
            } => {
                let lease = self.lease(lease, places);
                if let Some(confirm) = lease.and_then(|lease| lease.confirm.as_mut()) {
                    confirm.answer = Some((status, told_us));
                    let effect = confirm.is_effect();
                    self.confirmed += u64::from(effect);
                }
            }
            Line::Went { why, .. } => self.went = Some(why),
        }
    }

    fn lease(&mut self, lease: u64, places: &HashMap<u64, usize>) -> Option<&mut Lease> {
        self.leases.get_mut(*places.get(&lease)?)
    }

    fn by_id(&self) -> BTreeMap<Uuid, Vec<&Lease>> {
        let mut all: BTreeMap<Uuid, Vec<&Lease>> = BTreeMap::new();
        for lease in &self.leases {
            all.entry(lease.leased.id).or_default().push(lease);
        }
        all
    }

    /// The effects. `drained`: nothing is left in the queue. `dead`: what was given up on.
    pub(super) fn effects(&self, zero: i64, drained: bool, dead: &HashSet<Uuid>) -> Vec<EffectRow> {
        let mut rows = Vec::new();
        for (id, leases) in self.by_id() {
            let sure = leases.iter().filter_map(|lease| {
                let confirm = lease.confirm.filter(Confirm::is_effect)?;
                Some((*lease, confirm))
            });
            let mut found: Vec<(&Lease, Confirm)> = sure.collect();
            let taken = leases
                .iter()
                .any(|lease| lease.confirm.is_some_and(|one| one.is_yes()));
            if !taken && drained && !dead.contains(&id) {
                // nothing else takes a message away, so it was one of those that nobody answered; but none after which it
                // was still there to be leased
                let open = leases.iter().filter_map(|lease| {
                    let confirm = lease.confirm.filter(Confirm::is_open)?;
                    let again = leases
                        .iter()
                        .any(|other| other.leased.asked_us > confirm.over_us());
                    (!again).then_some((*lease, confirm))
                });
                found.extend(open.take(1));
            }
            rows.extend(found.into_iter().map(|(lease, confirm)| EffectRow {
                id,
                processed_us: after(zero, confirm.over_us()),
                attempt: i32::try_from(lease.leased.count).unwrap_or(i32::MAX),
                redelivered: lease.leased.count > 1,
            }));
        }
        rows
    }

    /// Leases of one message that were surely held at one time.
    pub(super) fn doubles(&self) -> Vec<(&Lease, &Lease)> {
        let mut found = Vec::new();
        for leases in self.by_id().values() {
            for (place, one) in leases.iter().enumerate() {
                let later = leases[place + 1..].iter();
                found.extend(
                    later
                        .filter(|other| overlap(one, other))
                        .map(|other| (*one, *other)),
                );
            }
        }
        found
    }

    pub(super) fn events(&self, zero: i64) -> Vec<Event> {
        let mut events = Vec::new();
        for Lease { leased, confirm } in &self.leases {
            let at = |us: u64| DateTime::from_timestamp_micros(after(zero, us)).unwrap_or_default();
            let (id, who) = (leased.id, format!("lessee-{}", leased.lessee + 1));
            let (count, ms) = (leased.count, leased.ms);
            let what = format!("leased to {who} for {ms} ms, for the {count}. time");
            events.push((id, at(leased.told_us), what));
            let Some(confirm) = confirm else { continue };
            let how = if confirm.late {
                "its lease is over and its work rolled back; its confirm is still on its way"
            } else {
                "confirms"
            };
            events.push((id, at(confirm.asked_us), format!("{who}: {how}")));
            if let Some((status, told)) = confirm.answer {
                let what = match (status, confirm.late) {
                    (204, false) => "EFFECT: its confirm was taken".to_owned(),
                    (204, true) => "its late confirm was taken, and nothing was done".to_owned(),
                    (404, _) => "its confirm was refused: it holds no lease".to_owned(),
                    (0, _) => "its confirm was answered by nobody".to_owned(),
                    (status, _) => format!("its confirm was answered with {status}"),
                };
                events.push((id, at(told), format!("{who}: {what}")));
            }
        }
        events
    }

    pub(super) fn nodes(&self) -> Vec<(String, NodeCounts)> {
        let mut counts: BTreeMap<u32, NodeCounts> = BTreeMap::new();
        for lease in &self.leases {
            let effect = lease.confirm.is_some_and(|confirm| confirm.is_effect());
            counts.entry(lease.leased.lessee).or_default().effects += u64::from(effect);
        }
        let named = |(lessee, counts)| (format!("lessee-{}", lessee + 1), counts);
        counts.into_iter().map(named).collect()
    }
}

impl Confirm {
    fn is_yes(&self) -> bool {
        matches!(self.answer, Some((204, _)))
    }

    fn is_effect(&self) -> bool {
        self.is_yes() && !self.late
    }

    /// When it was over for its lessee, as far as that is known.
    fn over_us(&self) -> u64 {
        self.answer.map_or(self.asked_us, |(_, told)| told)
    }

    /// Nobody knows whether it was taken.
    fn is_open(&self) -> bool {
        let open = |(status, _)| status == 0 || status >= 500;
        !self.late && self.answer.is_none_or(open)
    }
}

/// Whether both were held at one time, for sure.
fn overlap(one: &Lease, other: &Lease) -> bool {
    // the first still holds, at the latest moment at which the second may have begun
    let holds = |first: &Lease, second: &Lease| {
        let told = second.leased.told_us;
        let ends = first.leased.asked_us + first.leased.ms * 1_000;
        let confirms = first
            .confirm
            .is_some_and(|confirm| confirm.asked_us <= told);
        told + SLACK_US < ends && !confirms
    };
    holds(one, other) && holds(other, one)
}

/// What was promised and not kept, in words.
pub(super) fn broken(doubles: &[(&Lease, &Lease)]) -> Vec<String> {
    let mut said: Vec<String> = doubles
        .iter()
        .take(NAMED)
        .map(|(one, other)| {
            let (id, a, b) = (
                one.leased.id,
                one.leased.lessee + 1,
                other.leased.lessee + 1,
            );
            format!("two holders at one time: {id} was leased to lessee-{a} and to lessee-{b}")
        })
        .collect();
    let more = doubles.len().saturating_sub(NAMED);
    if more > 0 {
        said.push(format!("two holders at one time: {more} times more"));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked and told in milliseconds, for a second.
    fn lease(lease: u64, asked: u64, told: u64) -> Lease {
        Lease {
            leased: Leased {
                lease,
                lessee: u32::try_from(lease).unwrap(),
                id: Uuid::from_u128(1),
                number: Some(0),
                count: u32::try_from(lease).unwrap() + 1,
                ms: 1_000,
                asked_us: asked * 1_000,
                told_us: told * 1_000,
            },
            confirm: None,
        }
    }

    fn confirmed(one: Lease, asked: u64, late: bool, status: Option<u16>) -> Lease {
        let asked_us = asked * 1_000;
        Lease {
            confirm: Some(Confirm {
                late,
                asked_us,
                answer: status.map(|status| (status, asked_us + 500)),
            }),
            ..one
        }
    }

    fn book(leases: &[Lease]) -> Book {
        Book {
            leases: leases.to_vec(),
            ..Book::default()
        }
    }

    #[test]
    fn two_holders_are_found_only_where_it_is_certain() {
        let first = lease(0, 0, 10);
        for (other, certain) in [
            // answered long before the first can have ended
            (lease(1, 400, 500), true),
            // asked before the first was, answered after: whichever began later, the other one held
            (lease(1, 0, 900), true),
            (lease(1, 5, 7), true),
            // answered at a moment at which the first may be over
            (lease(1, 400, 996), false),
            (lease(1, 900, 1_001), false),
            (lease(1, 1_100, 1_110), false),
        ] {
            assert_eq!(overlap(&first, &other), certain, "{other:?}");
            assert_eq!(overlap(&other, &first), certain, "{other:?}");
        }
    }

    #[test]
    fn a_long_poll_that_began_long_before_proves_nothing() {
        // asked at 0 and answered at 990: it may have begun at 1, and be over at 1001
        let polled = lease(0, 0, 990);
        assert!(!overlap(&polled, &lease(1, 995, 1_005)));
        assert!(overlap(&polled, &lease(1, 0, 990)));
        // too close to tell, where clocks do not run at one pace
        assert!(!overlap(&lease(0, 0, 999), &lease(1, 0, 999)));
    }

    #[test]
    fn who_confirmed_before_holds_nothing() {
        let second = lease(1, 400, 500);
        for (asked, certain) in [(300, false), (500, false), (501, true)] {
            let first = confirmed(lease(0, 0, 10), asked, false, Some(204));
            assert_eq!(overlap(&first, &second), certain, "{asked}");
        }
        let two = book(&[lease(0, 0, 10), second]);
        assert_eq!(two.doubles().len(), 1);
        let said = broken(&two.doubles());
        assert!(said[0].contains("lessee-1 and to lessee-2"), "{said:?}");
    }

    #[test]
    fn an_effect_is_a_yes_to_who_has_not_rolled_back() {
        let alive = HashSet::new();
        let count = |leases: &[Lease], drained| book(leases).effects(0, drained, &alive).len();
        let (one, other) = (lease(0, 0, 10), lease(1, 1_100, 1_110));
        let yes = |lease| confirmed(lease, 1_150, false, Some(204));
        let no = |lease| confirmed(lease, 1_160, false, Some(404));
        let late = |lease, status| confirmed(lease, 1_120, true, Some(status));
        let open = |lease: Lease| confirmed(lease, lease.leased.told_us / 1_000 + 490, false, None);
        assert_eq!(count(&[one], true), 0);
        assert_eq!(count(&[yes(one)], true), 1);
        assert_eq!(count(&[yes(one), yes(other)], true), 2);
        // the late one is refused, the holder confirms
        assert_eq!(count(&[late(one, 404), yes(other)], true), 1);
        // the late one is taken for the holder's, who then hears no
        assert_eq!(count(&[late(one, 204), no(other)], true), 0);
        // nobody answered, and nothing is left: it was taken, once
        assert_eq!(count(&[open(one)], true), 1);
        assert_eq!(count(&[open(one), open(other)], true), 1);
        assert_eq!(count(&[open(one), yes(other)], true), 1);
        assert_eq!(count(&[open(one), late(other, 204)], true), 0);
        // it may come again
        assert_eq!(count(&[open(one)], false), 0);
        let gateway = confirmed(one, 500, false, Some(502));
        assert_eq!(count(&[gateway], true), 1);
        // it was there to be leased after that, so it was not taken
        assert_eq!(count(&[open(one), other], true), 0);
        assert_eq!(count(&[gateway, other], true), 0);
        // leased before that: nothing is known
        assert_eq!(count(&[open(one), lease(1, 400, 410)], true), 1);
        // given up on, so it was not taken
        let dead = HashSet::from([one.leased.id]);
        assert_eq!(book(&[open(one)]).effects(0, true, &dead).len(), 0);
        assert_eq!(book(&[yes(one)]).effects(0, true, &dead).len(), 1);
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let (one, mut places) = (lease(0, 0, 10), HashMap::new());
        let mut read = Book::default();
        let lines = [
            Line::Leased(one.leased),
            Line::Confirms {
                lease: 0,
                late: false,
                asked_us: 7_000,
            },
            Line::Answered {
                lease: 0,
                status: 204,
                told_us: 7_500,
            },
            Line::Went {
                why: Went::Dry,
                told_us: 9_000,
            },
        ];
        for line in lines {
            read.add(line, &mut places);
        }
        assert_eq!(read.leases, [confirmed(one, 7, false, Some(204))]);
        assert_eq!((read.confirmed, read.went), (1, Some(Went::Dry)));
        assert_eq!(read.events(0).len(), 3);
        assert_eq!(read.nodes()[0].1.effects, 1);
    }
}
