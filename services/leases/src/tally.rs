//! All SQL of the table `tally`: what each node did, second by second, so that any node can show the rates of all.
//!
//! Best effort: a node that dies takes its last second along, and nothing else depends on it.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use daemon::database::within;
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

const EACH: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(1);

/// What is counted of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Pushed,
    Leased,
    Confirmed,
}

/// What this node has done since it was last written down: for each queue the counts in the order of [`What`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Tallies(Arc<Mutex<HashMap<i32, [i32; 3]>>>);

impl Tallies {
    /// So many more.
    pub(crate) fn add(&self, queue_id: i32, what: What, many: usize) {
        if many > 0 {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = &mut counts.entry(queue_id).or_default()[what as usize];
            *count = count.saturating_add(i32::try_from(many).unwrap_or(i32::MAX));
        }
    }

    fn take(&self) -> HashMap<i32, [i32; 3]> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes down each second what was done in it, if anything was.
    pub(crate) async fn keep(
        self,
        pool: PgPool,
        node: String,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut each = interval(EACH);
        each.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(each.tick()).await.is_some() {
            let counts = self.take();
            if !counts.is_empty()
                && let Err(error) = within(LIMIT, write(&pool, &node, &counts)).await
            {
                tracing::debug!(%error, "a second's counts were not written");
            }
        }
        Ok(())
    }
}

async fn write(
    pool: &PgPool,
    node: &str,
    counts: &HashMap<i32, [i32; 3]>,
) -> Result<(), sqlx::Error> {
    let of = |what: What| counts.values().map(move |counts| counts[what as usize]);
    sqlx::query(
        "insert into tally (node, queue_id, pushed, leased, confirmed)
         select $1, row.* from unnest($2::int[], $3::int[], $4::int[], $5::int[]) as row",
    )
    .bind(node)
    .bind(counts.keys().copied().collect::<Vec<_>>())
    .bind(of(What::Pushed).collect::<Vec<_>>())
    .bind(of(What::Leased).collect::<Vec<_>>())
    .bind(of(What::Confirmed).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets what no rate is made of any more.
pub(crate) async fn prune(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query("delete from tally where at < now() - interval '1 minute'")
        .execute(pool)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_once() {
        let tallies = Tallies::default();
        tallies.add(1, What::Pushed, 2);
        tallies.add(1, What::Confirmed, 1);
        tallies.add(1, What::Pushed, 3);
        tallies.add(2, What::Leased, 0);
        assert_eq!(tallies.take(), HashMap::from([(1, [5, 0, 1])]));
        assert_eq!(tallies.take(), HashMap::new());
    }
}
