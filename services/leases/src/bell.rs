//! Rings when a queue has something to lease, for those who wait for it; and tells when a lease will end.
//!
//! A push, a lease that is given back and a redrive each notify the nodes, within their commit. One connection of each node
//! listens. While it is not there nobody hears anything, so everybody looks again when it is back. A lease that ends rings no
//! bell: who waits asks once when the next one does, and sets a timer.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use daemon::database::within;
use group_commit::{Committer, Group, group_commit};
use rand::RngExt;
use sqlx::{Executor, PgPool, postgres::PgListener};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use web::Error;

use crate::{clerk::away, message, numbers};

/// A link that says nothing for so long is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Where those who wait listen. Clones share everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Arc<Mutex<HashMap<i32, watch::Sender<u64>>>>);

impl Bell {
    /// Hears every ring of the queue from now on.
    pub(crate) fn listen(&self, queue_id: i32) -> watch::Receiver<u64> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.entry(queue_id).or_default().subscribe()
    }

    fn ring(&self, queue_id: i32) {
        let queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(&queue_id) {
            queue.send_modify(|rings| *rings += 1);
        }
    }

    fn ring_all(&self) {
        let queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for queue in queues.values() {
            queue.send_modify(|rings| *rings += 1);
        }
    }

    /// Rings as other nodes and this one say, until the process stops.
    pub(crate) async fn run(self, pool: PgPool, stop: CancellationToken) -> anyhow::Result<()> {
        stop.run_until_cancelled(async {
            let mut pause = Duration::ZERO;
            loop {
                let mut heard = false;
                if let Err(error) = self.session(&pool, &mut heard).await {
                    tracing::info!(error = format!("{error:#}"), "nothing is heard of pushes");
                }
                pause = if heard { Duration::ZERO } else { pause };
                pause = (pause * 2).clamp(Duration::from_millis(100), PAUSE_MAX);
                let part = rand::rng().random_range(0.5..=1.0);
                tokio::time::sleep(pause.mul_f64(part)).await;
            }
        })
        .await;
        Ok(())
    }

    /// Listens until the link breaks.
    async fn session(&self, pool: &PgPool, heard: &mut bool) -> anyhow::Result<()> {
        let mut listener = within(LIMIT, PgListener::connect_with(pool)).await?;
        listener.eager_reconnect(false);
        within(LIMIT, listener.listen(message::CHANNEL)).await?;
        *heard = true;
        // What was rung before was heard by nobody.
        self.ring_all();
        loop {
            match timeout(SILENCE, listener.try_recv()).await {
                Ok(notification) => {
                    let rung = notification?.context("the link is gone")?;
                    match rung.payload().parse() {
                        Ok(queue_id) => self.ring(queue_id),
                        Err(_) => self.ring_all(),
                    }
                }
                Err(_silence) => {
                    within(LIMIT, listener.execute("select 1")).await?;
                }
            }
        }
    }
}

/// Tells when the next message of a queue is free. Those who ask while a query runs share the next one. Clones share the loop.
#[derive(Clone)]
pub(crate) struct Clock(Group<i32, Told>);

/// The loop that asks the database.
pub(crate) struct Teller(Committer<i32, Told>);

type Told = Result<Option<Next>, Error>;

/// When the next message is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is, and was not to be had: another node is leasing it, or it lies where nobody looked.
    Now,
    /// After so long, unless something is done with it.
    In(Duration),
}

/// Both ends.
pub(crate) fn clock() -> (Clock, Teller) {
    let (group, committer) = group_commit(1_024);
    (Clock(group), Teller(committer))
}

impl Clock {
    /// None: there is no message, leased or not.
    pub(crate) async fn next(&self, queue_id: i32) -> Told {
        self.0.hand_in(queue_id).await.unwrap_or(Err(away()))
    }
}

impl Teller {
    /// Asks until every [`Clock`] is gone.
    pub(crate) async fn run(mut self, pool: PgPool) {
        while let Some((asked, answers)) = self.0.next(1_024).await {
            let queues: BTreeSet<i32> = asked.iter().copied().collect();
            let queues: Vec<i32> = queues.into_iter().collect();
            numbers::count(numbers::ASKED, 1);
            match within(LIMIT, message::next_free(&pool, &queues)).await {
                Ok(next) => {
                    let next: HashMap<i32, f64> = next.into_iter().collect();
                    let told = |queue_id| Ok(next.get(queue_id).copied().map(Next::of));
                    answers.send(asked.iter().map(told).collect());
                }
                Err(error) => answers.send_to_all(&Err(away().because(error))),
            }
        }
    }
}

impl Next {
    fn of(milliseconds: f64) -> Self {
        if milliseconds <= 0.0 {
            return Self::Now;
        }
        // a timer that is early would look in vain
        Self::In(Duration::from_secs_f64(milliseconds / 1_000.0) + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_heard_by_those_who_wait_for_that_queue() {
        let bell = Bell::default();
        let (one, other) = (bell.listen(1), bell.listen(2));
        bell.ring(1);
        bell.ring(3);
        assert!(one.has_changed().unwrap() && !other.has_changed().unwrap());
        bell.ring_all();
        assert!(other.has_changed().unwrap());
    }

    #[test]
    fn what_is_free_already_is_told_apart_from_what_will_be() {
        assert_eq!(Next::of(-5.0), Next::Now);
        assert_eq!(Next::of(20.0), Next::In(Duration::from_millis(21)));
    }
}
