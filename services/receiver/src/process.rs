//! The work of a receiver, simulated: it takes a random time, and fails one time in so many.
//!
//! The effect is one row in `processed`; see [`messaging::receive::processor`] for what makes it
//! happen exactly once.

use std::{sync::Arc, time::Duration};

use daemon::tally::Tally;
use messaging::{
    envelope::{Envelope, NotOurs},
    message::{KIND, Message},
    receive::handler::{Effect, Failure, Handler, Received},
};
use sqlx::{Postgres, Transaction};

use crate::processed;

/// The settings of the simulated work.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkArgs {
    /// Longest time that the work takes, in milliseconds; each takes a random part of it
    #[arg(long, env = "WORK_DELAY_MAX_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(..=600_000))]
    pub work_delay_max_ms: u64,
    /// The work fails one time in so many (1: always, 0: never)
    #[arg(long, env = "WORK_FAIL_ONE_IN", default_value_t = 5)]
    pub work_fail_one_in: u32,
}

/// Works on messages.
pub struct Work {
    pub(crate) args: WorkArgs,
    pub(crate) node: String,
    pub(crate) tally: Arc<Tally>,
}

/// How long the work took, with the wait for it.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    pub(crate) took: Duration,
}

impl Handler for Work {
    const KIND: &'static str = KIND;
    type Message = Message;
    type Output = Done;

    fn read(&self, envelope: &Envelope) -> Result<Message, NotOurs> {
        Message::read(envelope)
    }

    async fn work(&self, received: &Received<Message>) -> Result<Done, Failure> {
        let delay = rand::random_range(0..=self.args.work_delay_max_ms);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if fails(self.args.work_fail_one_in) {
            return Err(Failure::Retry(format!(
                "simulated, one in {}",
                self.args.work_fail_one_in
            )));
        }
        Ok(Done {
            took: received.came_in.elapsed(),
        })
    }

    async fn store(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        effects: &[&Effect<Self>],
    ) -> Result<(), sqlx::Error> {
        processed::insert(tx, &self.node, effects).await
    }

    fn stored(&self, effects: usize) {
        self.tally.add(effects, daemon::clock::now());
    }
}

fn fails(one_in: u32) -> bool {
    one_in > 0 && rand::random_range(0..one_in) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_never_fails_and_one_always_does() {
        assert!((0..1_000).all(|_| !fails(0)));
        assert!((0..1_000).all(|_| fails(1)));
    }

    #[test]
    fn one_in_five_is_about_a_fifth() {
        let failed = (0..100_000).filter(|_| fails(5)).count();
        assert!((19_000..=21_000).contains(&failed), "{failed}");
    }
}
