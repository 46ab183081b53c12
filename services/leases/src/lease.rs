//! Leasing: messages are hidden from others for a while, and handed to who asked.
//!
//! Those who ask at the same moment share one statement for each queue: it leases the sum of what they want, and what it finds
//! is dealt out in their order. Those for whom a group has no room ask again in the next one.
//!
//! Between two lines: die before the commit, and nothing was leased; die after it, and the messages are hidden until their
//! lease ends, and then come back, since nobody has them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{Postgres, Transaction};

use crate::{
    clerk::Deed,
    message::{self, Leased, Wanted},
    numbers,
    tally::{Tallies, What},
};

/// Of bodies in all answers of a group, but for the last one of them: they are held in memory.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) queue_id: i32,
    pub(crate) amount: usize,
    /// The queue's own where nothing is said.
    pub(crate) lease_ms: Option<i32>,
}

/// Leases what is asked for.
pub(crate) struct Leasing {
    pub(crate) floors: Floors,
    pub(crate) tallies: Tallies,
}

impl Deed for Leasing {
    type Item = Ask;
    /// None: the group was full before it was its turn, and nobody looked.
    type Answer = Option<Vec<Leased>>;
    const NAME: &'static str = "lease";
    const FAIL_POINTS: Option<[&'static str; 2]> =
        Some(["leases.lease.before_commit", "leases.lease.after_commit"]);

    fn weight(ask: &Ask) -> usize {
        ask.amount
    }

    async fn carry_out(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        group: &[Ask],
    ) -> Result<Vec<Option<Vec<Leased>>>, sqlx::Error> {
        let mut answers: Vec<Option<Vec<Leased>>> = group.iter().map(|_| None).collect();
        let mut room = BYTES_MAX;
        for alike in alike(group) {
            if room == 0 {
                break;
            }
            let amount = alike.iter().map(|index| group[*index].amount).sum();
            let leased = self.take(tx, &group[alike[0]], amount, room).await?;
            room = room.saturating_sub(bytes(&leased));
            let mut leased = leased.into_iter();
            for index in alike {
                if leased.len() == 0 && room == 0 {
                    break;
                }
                answers[index] = Some(leased.by_ref().take(group[index].amount).collect());
            }
        }
        Ok(answers)
    }

    fn done(&self, group: &[Ask], answers: &[Option<Vec<Leased>>]) {
        for (ask, leased) in group.iter().zip(answers) {
            let Some(leased) = leased else { continue };
            numbers::count(numbers::LEASED, leased.len());
            self.tallies.add(ask.queue_id, What::Leased, leased.len());
        }
    }
}

impl Leasing {
    /// So many, or until their bodies fill the room. Above the floor first; where that does not give enough, or from time to
    /// time, below it too.
    async fn take(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        ask: &Ask,
        amount: usize,
        room: usize,
    ) -> Result<Vec<Leased>, sqlx::Error> {
        let most = i64::try_from(amount).unwrap_or(i64::MAX);
        let mut wanted = Wanted {
            queue_id: ask.queue_id,
            floor: self.floors.floor(ask.queue_id),
            most,
            bytes: i64::try_from(room).unwrap_or(i64::MAX),
            lease_ms: ask.lease_ms,
        };
        let mut leased = message::lease(tx, &wanted).await?;
        let looked_at_all = wanted.floor.is_none();
        let room = room.saturating_sub(bytes(&leased));
        let is_short = leased.len() < amount && room > 0;
        let look_below = !looked_at_all && is_short && self.floors.may_look_below(ask.queue_id);
        if look_below {
            wanted.floor = None;
            wanted.most = i64::try_from(amount - leased.len()).unwrap_or(i64::MAX);
            wanted.bytes = i64::try_from(room).unwrap_or(i64::MAX);
            leased.extend(message::lease(tx, &wanted).await?);
        }
        let lowest = leased.iter().map(|leased| leased.was_free_at).min();
        self.floors
            .found(ask.queue_id, lowest, looked_at_all || look_below);
        Ok(leased)
    }
}

/// Of their bodies together.
fn bytes(leased: &[Leased]) -> usize {
    leased.iter().map(|leased| leased.body.len()).sum()
}

/// The places in the group of those who can share a statement.
fn alike(group: &[Ask]) -> Vec<Vec<usize>> {
    let mut places: HashMap<(i32, Option<i32>), usize> = HashMap::new();
    let mut alike: Vec<Vec<usize>> = Vec::new();
    for (index, ask) in group.iter().enumerate() {
        let place = *places
            .entry((ask.queue_id, ask.lease_ms))
            .or_insert_with(|| {
                alike.push(Vec::new());
                alike.len() - 1
            });
        alike[place].push(index);
    }
    alike
}

/// Where the free messages of each queue begin, as far as this node has seen. Below it the index holds what has left and is not
/// vacuumed yet, thousands of entries after a busy second. It is a hint, and looked below again and again: what comes back
/// there, of a push that was committed late or a lease that was rolled back, is found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Floors(Arc<Mutex<HashMap<i32, Floor>>>);

#[derive(Debug, Clone, Copy)]
struct Floor {
    at: DateTime<Utc>,
    looked_below: Instant,
}

impl Floors {
    /// Below the longest free one that was seen: most of what comes late comes less late than this.
    const SLACK: TimeDelta = TimeDelta::seconds(2);
    /// Looked below at least so often ..
    const LOOK_EACH: Duration = Duration::from_secs(1);
    /// .. and, where there is not enough above it, at most so often: a queue that is nearly empty is always short.
    const LOOK_PAUSE: Duration = Duration::from_millis(100);

    /// Where to begin. None: everywhere.
    fn floor(&self, queue_id: i32) -> Option<DateTime<Utc>> {
        let floor = self.lock().get(&queue_id).copied()?;
        (floor.looked_below.elapsed() < Self::LOOK_EACH).then_some(floor.at)
    }

    fn may_look_below(&self, queue_id: i32) -> bool {
        let looked = self.lock().get(&queue_id).map(|floor| floor.looked_below);
        looked.is_none_or(|looked| looked.elapsed() >= Self::LOOK_PAUSE)
    }

    fn found(&self, queue_id: i32, lowest: Option<DateTime<Utc>>, looked_below: bool) {
        let mut floors = self.lock();
        let now = Instant::now();
        match (floors.get_mut(&queue_id), lowest) {
            (Some(floor), lowest) => {
                if let Some(lowest) = lowest {
                    floor.at = lowest - Self::SLACK;
                }
                if looked_below {
                    floor.looked_below = now;
                }
            }
            (None, Some(lowest)) => {
                let floor = Floor {
                    at: lowest - Self::SLACK,
                    looked_below: now,
                };
                floors.insert(queue_id, floor);
            }
            (None, None) => {}
        }
    }

    /// Has the next one look everywhere: there is something that was not found.
    pub(crate) fn forget(&self, queue_id: i32) {
        self.lock().remove(&queue_id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Floor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_want_the_same_share_a_statement() {
        let ask = |queue_id, lease_ms| Ask {
            queue_id,
            amount: 1,
            lease_ms,
        };
        let group = [ask(1, None), ask(2, None), ask(1, None), ask(1, Some(5))];
        assert_eq!(alike(&group), [vec![0, 2], vec![1], vec![3]]);
    }

    #[test]
    fn a_floor_lies_below_what_was_found_and_is_only_a_hint() {
        let floors = Floors::default();
        assert_eq!(floors.floor(1), None);
        let at = DateTime::from_timestamp(1_000_000, 0).unwrap();
        floors.found(1, None, true);
        assert_eq!(floors.floor(1), None, "an empty queue has none");
        floors.found(1, Some(at), true);
        assert_eq!(floors.floor(1), Some(at - Floors::SLACK));
        assert_eq!(floors.floor(2), None);
        assert!(!floors.may_look_below(1), "just looked");
        let lower = at - TimeDelta::hours(1);
        floors.found(1, Some(lower), false);
        assert_eq!(floors.floor(1), Some(lower - Floors::SLACK));
        floors.forget(1);
        assert_eq!(floors.floor(1), None);
        assert!(floors.may_look_below(1));
    }
}
