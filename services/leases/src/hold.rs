//! What the holder of a lease does with it: confirm the message, make the lease longer, or give it back.
//!
//! Each asks for the message by its id; with the lease's token only the holder of that lease is meant, without one whoever
//! holds it now. A lease that has ended is nobody's.
//!
//! Between two lines: die before the commit, and the lease is as it was; die after it, and it is done, and its repetition is
//! told that there is no such lease any more.

use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::{
    clerk::Deed,
    message::{self, Held},
    numbers,
    tally::{Tallies, What},
};

/// Who says to hold a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    pub(crate) queue_id: i32,
    pub(crate) message_id: Uuid,
    pub(crate) token: Option<Uuid>,
}

impl Holder {
    fn held(&self, held: &Held) -> bool {
        held.message_id == self.message_id
            && held.queue_id == self.queue_id
            && self.token.is_none_or(|token| token == held.token)
    }
}

/// Whether the holder held it.
pub(crate) type Done = bool;

/// Removes messages.
pub(crate) struct Confirming {
    pub(crate) tallies: Tallies,
}

/// Makes leases longer, or shorter.
pub(crate) struct Extending;

/// Ends leases. With `true` nobody ever heard of the lease, and it does not count: see [`crate::app::App::take_back`].
pub(crate) struct GivingBack;

impl Deed for Confirming {
    type Item = Holder;
    type Answer = Done;
    const NAME: &'static str = "confirm";
    const FAIL_POINTS: Option<[&'static str; 2]> = Some([
        "leases.confirm.before_commit",
        "leases.confirm.after_commit",
    ]);

    fn weight(_: &Holder) -> usize {
        1
    }

    async fn carry_out(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        group: &[Holder],
    ) -> Result<Vec<Done>, sqlx::Error> {
        Ok(once(group.iter(), message::confirm(tx, group).await?))
    }

    fn done(&self, group: &[Holder], answers: &[Done]) {
        for holder in done(group, answers) {
            numbers::count(numbers::CONFIRMED, 1);
            self.tallies.add(holder.queue_id, What::Confirmed, 1);
        }
    }
}

impl Deed for Extending {
    type Item = (Holder, Option<i32>);
    type Answer = Done;
    const NAME: &'static str = "extend";
    const FAIL_POINTS: Option<[&'static str; 2]> = None;

    fn weight(_: &(Holder, Option<i32>)) -> usize {
        1
    }

    async fn carry_out(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        group: &[(Holder, Option<i32>)],
    ) -> Result<Vec<Done>, sqlx::Error> {
        let held = message::extend(tx, group).await?;
        let done = |(holder, _): &(Holder, Option<i32>)| held.iter().any(|held| holder.held(held));
        Ok(group.iter().map(done).collect())
    }

    fn done(&self, _: &[(Holder, Option<i32>)], answers: &[Done]) {
        let extended = answers.iter().filter(|done| **done).count();
        numbers::count(numbers::EXTENDED, extended);
    }
}

impl Deed for GivingBack {
    type Item = (Holder, bool);
    type Answer = Done;
    const NAME: &'static str = "give_back";
    const FAIL_POINTS: Option<[&'static str; 2]> = None;

    fn weight(_: &(Holder, bool)) -> usize {
        1
    }

    async fn carry_out(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        group: &[(Holder, bool)],
    ) -> Result<Vec<Done>, sqlx::Error> {
        let held = message::give_back(tx, group).await?;
        Ok(once(group.iter().map(|(holder, _)| holder), held))
    }

    fn done(&self, _: &[(Holder, bool)], answers: &[Done]) {
        let given_back = answers.iter().filter(|done| **done).count();
        numbers::count(numbers::GIVEN_BACK, given_back);
    }
}

/// Each that was held is done for one of those who said so: the others come too late.
fn once<'a>(group: impl Iterator<Item = &'a Holder>, mut held: Vec<Held>) -> Vec<Done> {
    let mut done = |holder: &Holder| {
        let place = held.iter().position(|held| holder.held(held));
        place.map(|place| held.swap_remove(place)).is_some()
    };
    group.map(&mut done).collect()
}

fn done<'a>(group: &'a [Holder], answers: &'a [Done]) -> impl Iterator<Item = &'a Holder> {
    group
        .iter()
        .zip(answers)
        .filter_map(|(holder, done)| done.then_some(holder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_who_confirm_the_same_message_one_is_told_that_it_is_gone() {
        let [message_id, token] = [1, 2].map(Uuid::from_u128);
        let held = Held {
            message_id,
            queue_id: 1,
            token,
        };
        let holder = |token| Holder {
            queue_id: 1,
            message_id,
            token,
        };
        let other = Some(Uuid::from_u128(3));
        let group = [holder(other), holder(Some(token)), holder(None)];
        assert_eq!(once(group.iter(), vec![held]), [false, true, false]);
        assert_eq!(once(group.iter(), vec![]), [false, false, false]);
    }
}
