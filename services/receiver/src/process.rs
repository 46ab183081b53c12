//! The work of a receiver, simulated: it takes a random time, and fails one time in so many. Poison
//! fails at every attempt. What a failure does, and the rest of it, can be turned while it runs.
//!
//! The effect is one row in `processed`; see [`messaging::receive::processor`] for what makes it
//! happen exactly once.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chaos::{
    Knobs,
    knobs::{self, DELAY_MAX_MS, FailureAction, Settings},
};
use daemon::{WrongSetting, tally::Tally};
use messaging::{
    envelope::{Envelope, NotOurs},
    message::{KIND, Message},
    receive::{
        handler::{Effect, Failure, Handler, Received, Undone},
        processed,
        settle::Settle,
    },
};
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

/// The settings of the simulated work.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkArgs {
    /// Shortest time that the work takes, in milliseconds
    #[arg(long, env = "WORK_DELAY_MIN_MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=DELAY_MAX_MS))]
    pub work_delay_min_ms: u64,
    /// Longest time that the work takes, in milliseconds; each takes a random time in between
    #[arg(long, env = "WORK_DELAY_MAX_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(..=DELAY_MAX_MS))]
    pub work_delay_max_ms: u64,
    /// The work fails one time in so many (1: always, 0: never)
    #[arg(long, env = "WORK_FAIL_ONE_IN", default_value_t = 5)]
    pub work_fail_one_in: u32,
    /// What a failure does: nack, reject, drop (the connection), crash, ack (though there is no
    /// effect), park (as a dead letter, at once) or hang
    #[arg(long, env = "WORK_FAILURE_ACTION", default_value_t = FailureAction::Nack)]
    pub work_failure_action: FailureAction,
    /// The work of a message whose text begins so fails at every attempt (empty: of none)
    #[arg(long, env = "WORK_POISON_PREFIX", default_value = "poison:")]
    pub work_poison_prefix: String,
}

impl WorkArgs {
    /// The knobs, standing as these settings say.
    ///
    /// # Errors
    /// Settings that do not fit together.
    pub(crate) fn knobs(&self, prefetch: u16) -> Result<Knobs, WrongSetting> {
        let settings = Settings {
            delay_min_ms: self.work_delay_min_ms,
            delay_max_ms: self.work_delay_max_ms,
            fail_one_in: self.work_fail_one_in,
            failure_action: self.work_failure_action,
            prefetch,
        };
        Knobs::new(settings).map_err(|_| {
            let right = format!("at most WORK_DELAY_MAX_MS, {}", self.work_delay_max_ms);
            WrongSetting::new(
                "WORK_DELAY_MIN_MS",
                self.work_delay_min_ms.to_string(),
                right,
            )
        })
    }
}

/// Works on messages.
pub struct Work {
    pub(crate) knobs: Knobs,
    pub(crate) poison_prefix: String,
    pub(crate) node: String,
    pub(crate) tally: Arc<Tally>,
}

/// How long the work took, with the wait for it.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    pub(crate) took: Duration,
}

impl Work {
    /// Takes its time, or less if the knob is turned down meanwhile.
    async fn take_time(&self) {
        let Settings {
            delay_min_ms: min,
            delay_max_ms: max,
            ..
        } = self.knobs.now();
        let delay = rand::random_range(min..=max);
        if delay == 0 {
            return;
        }
        let mut knobs = self.knobs.watch();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(delay)) => {}
            _ = knobs.wait_for(|settings| settings.delay_max_ms < delay) => {}
        }
    }

    /// Why it fails this time, if it does.
    fn fails(&self, text: &str) -> Option<String> {
        let poison = &self.poison_prefix;
        if !poison.is_empty() && text.starts_with(poison) {
            return Some(format!("poison: its text begins with {poison:?}"));
        }
        let one_in = self.knobs.now().fail_one_in;
        fails(one_in).then(|| format!("simulated, one in {one_in}"))
    }

    /// Does what a failure does.
    async fn fail(&self, reason: String) -> Failure {
        match self.knobs.now().failure_action {
            FailureAction::Nack => Failure::Retry(reason),
            FailureAction::Reject => Failure::RetryBy(Settle::RequeueByReject, reason),
            FailureAction::Drop => Failure::RetryBy(Settle::DropConnection, reason),
            FailureAction::Crash => knobs::crash(&reason),
            FailureAction::Ack => Failure::Swallow(reason),
            FailureAction::Park => Failure::Reject(reason),
            FailureAction::Hang => {
                let mut knobs = self.knobs.watch();
                let turned = knobs.wait_for(|now| now.failure_action != FailureAction::Hang);
                // The knobs live as long as the work does, so this never errs.
                let _ = turned.await;
                Failure::Retry(format!("{reason}; hung until now"))
            }
        }
    }
}

impl Handler for Work {
    const KIND: &'static str = KIND;
    type Message = Message;
    type Output = Done;

    fn read(&self, envelope: &Envelope) -> Result<Message, NotOurs> {
        Message::read(envelope)
    }

    async fn work(&self, received: &Received<Message>) -> Result<Done, Undone> {
        self.take_time().await;
        if let Some(reason) = self.fails(&received.message.text) {
            return Err(self.fail(reason).await.into());
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
        processed::insert(tx, &self.node, effects, |done| done.took).await
    }

    async fn done(
        &self,
        connection: &mut PgConnection,
        ids: &[Uuid],
    ) -> Result<HashSet<Uuid>, sqlx::Error> {
        processed::of(connection, ids).await
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
    use std::time::Instant;

    use super::*;

    fn work(settings: Settings) -> Work {
        Work {
            knobs: Knobs::new(settings).unwrap(),
            poison_prefix: "poison:".to_owned(),
            node: "receiver-1".to_owned(),
            tally: Arc::default(),
        }
    }

    fn settings(failure_action: FailureAction) -> Settings {
        Settings {
            delay_min_ms: 0,
            delay_max_ms: 0,
            fail_one_in: 0,
            failure_action,
            prefetch: 16,
        }
    }

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

    #[test]
    fn poison_fails_always_and_nothing_else_does() {
        let mut work = work(settings(FailureAction::Nack));
        assert!(work.fails("poison: this").is_some());
        assert_eq!(work.fails("no poison: this"), None);
        work.poison_prefix.clear();
        assert_eq!(work.fails("poison: this"), None);
    }

    #[tokio::test]
    async fn a_failure_does_what_the_knob_says() {
        let does = async |action| work(settings(action)).fail("why".to_owned()).await;
        let why = || "why".to_owned();
        assert_eq!(does(FailureAction::Nack).await, Failure::Retry(why()));
        let by_reject = Failure::RetryBy(Settle::RequeueByReject, why());
        assert_eq!(does(FailureAction::Reject).await, by_reject);
        let by_drop = Failure::RetryBy(Settle::DropConnection, why());
        assert_eq!(does(FailureAction::Drop).await, by_drop);
        assert_eq!(does(FailureAction::Ack).await, Failure::Swallow(why()));
        assert_eq!(does(FailureAction::Park).await, Failure::Reject(why()));
    }

    #[tokio::test]
    async fn work_that_hangs_goes_on_when_the_knob_is_turned_back() {
        let work = work(settings(FailureAction::Hang));
        let mut hanging = std::pin::pin!(work.fail("why".to_owned()));
        let soon = Duration::from_millis(20);
        tokio::time::timeout(soon, &mut hanging).await.unwrap_err();
        let change = serde_json::from_str(r#"{"failure_action": "nack"}"#).unwrap();
        work.knobs.change(&change).unwrap();
        assert!(matches!(hanging.await, Failure::Retry(_)));
    }

    #[tokio::test]
    async fn a_delay_ends_when_the_knob_is_turned_down() {
        let work = work(Settings {
            delay_min_ms: DELAY_MAX_MS,
            delay_max_ms: DELAY_MAX_MS,
            ..settings(FailureAction::Nack)
        });
        let change = serde_json::from_str(r#"{"delay_min_ms": 0, "delay_max_ms": 0}"#).unwrap();
        let turn = async { work.knobs.change(&change) };
        let began = Instant::now();
        let ((), turned) = tokio::join!(work.take_time(), turn);
        turned.unwrap();
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
