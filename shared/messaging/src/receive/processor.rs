//! From a delivery to its effect: look, work, admit and store, and then the answer.
//!
//! 1. Not ours: given up on at once.
//! 2. Its effect is committed: acked before it costs any work.
//! 3. Its work failed too often, or it was delivered suspiciously often: given up on, also when the
//!    process died between counting the last failure and saying so.
//! 4. The work.
//! 5. A failure is committed, then the message goes back ([`super::retry`]).
//! 6. The inbox row and the effect are one commit, shared with whatever else finishes meanwhile; then
//!    the ack.
//!
//! Only the work's own failure sends a message back. When the database is away the delivery is held:
//! sent back, it would return at once and burn its attempts in milliseconds.
//!
//! Between two lines: die before the commit: rolled back, delivered again. Die between commit and
//! ack: delivered again, and seen at the look. Lose the link at the commit: unknown, so the effect is
//! offered again, and the inbox says whether it was there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chaos::FailPoints;
use group_commit::{Group, group_commit};
use lapin::message::Delivery;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Span, info, warn};
use uuid::Uuid;

use super::{
    commit::{EffectCommitter, GROUP},
    consumer::Deed,
    decision::Decision,
    failure::{self, FailedWork, FailureCounter},
    given_up,
    handler::{Effect, Failure, Handler, Received, Undone},
    history::{Answer, Begun, Ending, History, VISIBLE_AFTER},
    inbox::{Admitted, Asked, Inbox, Known},
    look::{self, Looker},
    patience::{Fault, Held, Holding},
    retry::Retry,
    sessions::Current,
    settle::Settle,
};
use crate::{
    Error, Kept, bounded,
    envelope::{self, Envelope, NotOurs},
    guarantee::Without,
    numbers,
    watching::{Sight, Watching, What},
};

/// How long a delivery waits for others at most, when several are in hand: once to be looked up, once for its effect to be
/// committed. See [`group_commit::Committer::gathering`].
const GAP: Duration = Duration::from_millis(3);

/// How a processor treats messages that do not succeed.
pub struct Policy {
    /// Failures of the work after which a message is given up on.
    pub max_failures: u32,
    /// Deliveries by the broker's count, without those whose work failed, after which a message is
    /// given up on: the net for work that kills its process.
    pub max_deliveries: u32,
    /// How a failed message comes back.
    pub retry: Retry,
}

type Looks = Group<Asked, Result<Known, Fault>>;
type Failures = Group<Arc<FailedWork>, Result<i64, Fault>>;
type EffectGroup<H> = Group<Arc<Effect<H>>, Result<Admitted, Fault>>;

/// The deed of the queue `messages`.
pub struct Processor<H: Handler> {
    pool: PgPool,
    node: String,
    handler: Arc<H>,
    policy: Policy,
    fail_points: FailPoints,
    holding: Holding,
    looks: Looks,
    failures: Failures,
    effects: EffectGroup<H>,
    history: History,
    watching: Watching,
    session: Current,
}

/// What serves many deliveries at once. Each ends when the deed is gone.
pub struct Loops<H: Handler> {
    /// Asks what is known of messages.
    pub looks: Looker<H>,
    /// Counts failures of the work.
    pub failures: FailureCounter,
    /// Commits effects.
    pub effects: EffectCommitter<H>,
}

/// The deed and its loops.
pub fn processor<H: Handler>(
    pool: PgPool,
    node: String,
    handler: Arc<H>,
    policy: Policy,
    without: &Without,
    fail_points: FailPoints,
    history: History,
) -> (Processor<H>, Loops<H>) {
    let inbox = Inbox::new(without);
    let (looks, asked) = group_commit(look::GROUP);
    let looker = Looker {
        connection: Kept::new(pool.clone()),
        handler: Arc::clone(&handler),
        inbox,
        asked: asked.gathering(GAP),
    };
    let (failures, failed) = group_commit(failure::GROUP);
    let counter = FailureCounter {
        connection: Kept::new(pool.clone()),
        node: node.clone(),
        failures: failed.gathering(GAP),
    };
    let (group, effects) = group_commit(GROUP);
    let committer = EffectCommitter {
        connection: Kept::new(pool.clone()),
        handler: Arc::clone(&handler),
        inbox,
        fail_points: fail_points.clone(),
        effects: effects.gathering(GAP),
    };
    let holding = Holding::default();
    let effects = group;
    (
        Processor {
            pool,
            node,
            handler,
            policy,
            fail_points,
            holding,
            looks,
            failures,
            effects,
            history,
            watching: Watching::nobody(),
            session: Current::default(),
        },
        Loops {
            looks: looker,
            failures: counter,
            effects: committer,
        },
    )
}

impl<H: Handler> Deed for Processor<H> {
    async fn deliver(&self, delivery: &Delivery, stop: &CancellationToken) -> Settle {
        let attempt = attempt(delivery);
        let in_hand = self.history.begin(self.begun(delivery));
        let deciding = self.decide(delivery, attempt, stop);
        futures::pin_mut!(deciding);
        let soon = tokio::time::timeout(VISIBLE_AFTER, &mut deciding).await;
        let decision = if let Ok(decision) = soon {
            decision
        } else {
            in_hand.show();
            deciding.await
        };
        in_hand.end(decision.end());
        decision.settle
    }

    fn not_begun(&self, delivery: &Delivery) -> Settle {
        let decision = Decision::not_begun();
        self.history.begin(self.begun(delivery)).end(decision.end());
        decision.settle
    }

    fn opened(&self) {
        self.session.opened(&self.history);
    }

    fn ended(&self, error: Option<&Error>) {
        self.session.ended(&self.history, error);
    }

    fn held(&self) -> watch::Receiver<Held> {
        self.holding.subscribe()
    }
}

impl<H: Handler> Processor<H> {
    /// Tells this one what happens.
    #[must_use]
    pub fn watched(mut self, watching: Watching) -> Self {
        self.watching = watching;
        self
    }

    /// For the history.
    fn begun(&self, delivery: &Delivery) -> Begun {
        let earlier = envelope::earlier_deliveries(&delivery.properties);
        Begun {
            delivery_id: Uuid::now_v7(),
            message_id: envelope::message_id(&delivery.properties),
            attempt: i32::try_from(attempt(delivery)).unwrap_or(i32::MAX),
            redelivered: delivery.redelivered,
            earlier: earlier.and_then(|earlier| i32::try_from(earlier).ok()),
            session: self.session.id(),
            at: Instant::now(),
        }
    }

    async fn decide(
        &self,
        delivery: &Delivery,
        attempt: u32,
        stop: &CancellationToken,
    ) -> Decision {
        let came_in = Instant::now();
        // An injected error stands for a message that cannot be read.
        let read = match self.fail_points.hit("consumer.on_delivery").await {
            Ok(()) => self.read(delivery),
            Err(injected) => Err(NotOurs::Body(injected.to_string())),
        };
        let (envelope, message) = match read {
            Ok(read) => read,
            Err(reason) => {
                metrics::counter!(numbers::NOT_OURS).increment(1);
                warn!(%reason, "not a message of ours, given up on");
                return Decision::give_up(reason.to_string());
            }
        };
        let id = envelope.message_id;
        let seen = Sight::new(What::Delivered, id).attempt(attempt);
        let seen = seen.redelivered(delivery.redelivered);
        self.watching.tell(&seen.run(envelope.run.as_deref()));
        let inbox_id = envelope::inbox_id(&delivery.properties).unwrap_or(id);
        let asked = Asked {
            inbox_id,
            message_id: id,
            redrive: envelope.redrive,
        };
        let look = || handed_in(&self.looks, asked);
        let known = match self.holding.until_done("look", stop, look).await {
            Ok(known) => known,
            Err(Some(why)) => {
                let failure = Failure::Retry(why);
                return self.failed(&envelope, attempt, failure, stop).await;
            }
            Err(None) => return Decision::not_begun(),
        };
        if known.admitted {
            info!("a duplicate, acked without work");
            metrics::counter!(numbers::DUPLICATE).increment(1);
            let seen = Sight::new(What::Duplicate, id).attempt(attempt);
            self.watching.tell(&seen.run(envelope.run.as_deref()));
            return Decision::ack(Ending::Duplicate);
        }
        let failures = u32::try_from(known.failures).unwrap_or(u32::MAX);
        if failures >= self.policy.max_failures {
            return Decision::give_up(format!("its work failed {failures} times"));
        }
        if attempt.saturating_sub(failures) > self.policy.max_deliveries {
            warn!(
                attempt,
                failures, "delivered suspiciously often, given up on"
            );
            return self
                .delivered_too_often(&envelope, attempt, failures, stop)
                .await;
        }
        if stop.is_cancelled() {
            return Decision::not_begun();
        }
        // A classic queue does not count deliveries; failures that are known are a better guess.
        let attempt = attempt.max(failures + 1);
        Span::current().record("delivery.attempt", attempt);
        let redelivered = delivery.redelivered;
        let received = Received {
            envelope,
            inbox_id,
            message,
            attempt,
            redelivered,
            came_in,
        };
        match self.handler.work(&received).await {
            Ok(output) => self.store(Effect { received, output }, stop).await,
            Err(Undone::Stopped) => Decision::not_begun(),
            Err(Undone::Failed(failure)) => {
                self.failed(&received.envelope, attempt, failure, stop)
                    .await
            }
        }
    }

    /// Stores the reason, which failures do not tell, then gives up.
    async fn delivered_too_often(
        &self,
        envelope: &Envelope,
        attempt: u32,
        failures: u32,
        stop: &CancellationToken,
    ) -> Decision {
        let most = self.policy.max_deliveries;
        let reason = format!(
            "delivered more than {most} times without being settled; failures of its work: {failures}"
        );
        let attempts = i32::try_from(attempt).unwrap_or(i32::MAX);
        let which = (envelope.message_id, envelope.redrive);
        let record = || {
            bounded(given_up::record(
                &self.pool, &self.node, which, &reason, attempts,
            ))
        };
        match self.holding.until_done("give up", stop, record).await {
            Err(None) => Decision::not_begun(),
            Ok(()) | Err(Some(_)) => Decision::give_up(reason),
        }
    }

    fn read(&self, delivery: &Delivery) -> Result<(Envelope, H::Message), NotOurs> {
        let envelope = Envelope::read(delivery, H::KIND)?;
        let message = self.handler.read(&envelope)?;
        Ok((envelope, message))
    }

    async fn store(&self, effect: Effect<H>, stop: &CancellationToken) -> Decision {
        let effect = Arc::new(effect);
        let offer = || handed_in(&self.effects, Arc::clone(&effect));
        // What has begun is finished, also at a stop: the process's own limit ends it if need be.
        let stored = self
            .holding
            .until_done("store the effect", &CancellationToken::new(), offer)
            .await;
        let received = &effect.received;
        let duration_ms = received.came_in.elapsed().as_millis();
        let tell = |what| {
            let seen = Sight::new(what, received.envelope.message_id).attempt(received.attempt);
            let seen = seen.run(received.envelope.run.as_deref());
            self.watching.tell(&seen.ms(duration_ms));
        };
        match stored {
            Ok(Admitted::First) => {
                info!(duration_ms, "processed");
                metrics::counter!(numbers::PROCESSED).increment(1);
                tell(What::Processed);
                Decision::ack(Ending::Processed)
            }
            Ok(Admitted::Duplicate) => {
                info!(duration_ms, "a duplicate, found at the commit");
                metrics::counter!(numbers::DUPLICATE).increment(1);
                tell(What::Duplicate);
                Decision::ack(Ending::Duplicate)
            }
            Err(why) => {
                let failure = Failure::Retry(why.unwrap_or_default());
                let (envelope, attempt) = (&received.envelope, received.attempt);
                self.failed(envelope, attempt, failure, stop).await
            }
        }
    }

    /// Counts a failure of the work, then decides whether the message comes back or is given up on.
    async fn failed(
        &self,
        envelope: &Envelope,
        attempt: u32,
        failure: Failure,
        stop: &CancellationToken,
    ) -> Decision {
        let failed = Arc::new(FailedWork {
            failure_id: Uuid::now_v7(),
            message_id: envelope.message_id,
            redrive: envelope.redrive,
            attempt: i32::try_from(attempt).unwrap_or(i32::MAX),
            // Postgres cannot store NUL in text, and a reason may quote the message.
            reason: failure.reason().replace('\0', "\u{fffd}"),
        });
        metrics::counter!(numbers::WORK_FAILURES).increment(1);
        let record = || handed_in(&self.failures, Arc::clone(&failed));
        let never = CancellationToken::new();
        let count = match self
            .holding
            .until_done("count a failure", &never, record)
            .await
        {
            Ok(count) => u32::try_from(count).unwrap_or(u32::MAX),
            // A failure that cannot be stored cannot be counted either; the broker's count remains.
            Err(_) => 0,
        };
        let too_often = count >= self.policy.max_failures;
        let by_ladder = matches!(
            (&failure, &self.policy.retry),
            (Failure::Retry(_), Retry::Ladder(_))
        );
        let settle = match failure {
            Failure::Swallow(_) => Settle::Ack,
            Failure::Retry(_) if !too_often => {
                self.policy
                    .retry
                    .again(envelope, attempt, count, stop)
                    .await
            }
            Failure::RetryBy(settle, _) if !too_often => settle,
            Failure::Retry(_) | Failure::RetryBy(..) | Failure::Reject(_) => {
                warn!(count, reason = failed.reason, "given up on");
                return Decision::give_up(failed.reason.clone());
            }
        };
        info!(count, reason = failed.reason, ?settle, "the work failed");
        let climbs = by_ladder && settle == Settle::Ack;
        if settle != Settle::Ack || climbs {
            let seen = Sight::new(What::Failed, envelope.message_id).attempt(attempt);
            self.watching.tell(&seen.run(envelope.run.as_deref()));
        }
        Decision {
            settle,
            ending: Ending::Failed,
            cause: Some(failed.reason.clone()),
            answer: climbs.then_some(Answer::Ladder),
        }
    }
}

/// By the broker's count, and by our own where it was in other queues before.
fn attempt(delivery: &Delivery) -> u32 {
    let earlier = envelope::earlier_deliveries(&delivery.properties);
    let attempt = earlier.map_or(1 + u32::from(delivery.redelivered), |n| n + 1);
    attempt.saturating_add(envelope::attempts(&delivery.properties))
}

/// The answer of a loop that serves many; one that ended has none.
async fn handed_in<T, R>(group: &Group<T, Result<R, Fault>>, item: T) -> Result<R, Fault> {
    let answer = group.hand_in(item).await;
    answer.unwrap_or_else(|_| Err(Fault::Infrastructure("its loop has ended".into())))
}
