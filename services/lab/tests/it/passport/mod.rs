//! "A receiver dies, the message comes back, another takes it", told from one passport, for each cause.

mod second_ack;

use std::time::Duration;

use lab::passport::cause::{Sure, What};
use lab::passport::story::{Passport, State};
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::PgPool;
use testkit::{Process, wait_until};
use uuid::Uuid;

use crate::load::post;
use crate::redrive;
use crate::world::{World, linked, ready, turn};
use second_ack::SecondAck;

const LIMIT: Duration = Duration::from_mins(1);

/// Messages of one sender; the last one is what it is about.
struct Story {
    world: World,
    auditor: PgPool,
    sender: Process,
    id: Uuid,
}

impl Story {
    /// With a message that waits in the queue.
    async fn begin(world: World) -> Self {
        let mut story = Self::empty(world).await;
        story.send("a story").await;
        story
    }

    async fn empty(world: World) -> Self {
        let sender = world.sender("sender-1").start().await;
        ready(&sender).await;
        let auditor = PgPool::connect(&world.database.auditor_url).await.unwrap();
        Self {
            auditor,
            sender,
            id: Uuid::nil(),
            world,
        }
    }

    async fn send(&mut self, text: &str) {
        let key = Uuid::new_v4().to_string();
        let answer = post(&self.sender.url(), &key, text).await.unwrap();
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        let id = sqlx::query_scalar("select message_id from sender.message where text = $1")
            .bind(text)
            .fetch_one(&self.world.database.admin);
        self.id = id.await.unwrap();
    }

    async fn passport(&self) -> Passport {
        let passport = lab::passport::passport(&self.auditor, self.id).await;
        passport.unwrap().unwrap()
    }

    async fn in_hand_of(&self, node: &str) {
        wait_until("the delivery to be on record", LIMIT, async || {
            let passport = self.passport().await;
            let here = passport
                .steps
                .iter()
                .any(|step| step.kind == "delivered" && step.node.as_deref() == Some(node));
            if here { Ok(()) } else { Err(passport) }
        })
        .await;
    }

    /// Waits until it is processed and told, with this cause between its two deliveries.
    async fn told(&self, what: What, sure: Sure) -> Passport {
        wait_until("the story to be complete", LIMIT, async || {
            let passport = self.passport().await;
            let told = causes(&passport).contains(&(what, sure));
            if told && passport.state == State::Processed {
                Ok(passport)
            } else {
                Err(passport)
            }
        })
        .await
    }
}

/// Who had it, one after the other.
fn hands(passport: &Passport) -> Vec<&str> {
    let steps = passport.steps.iter();
    let delivered = steps.filter(|step| step.kind == "delivered");
    delivered.filter_map(|step| step.node.as_deref()).collect()
}

/// What brought it back, each time.
fn causes(passport: &Passport) -> Vec<(What, Sure)> {
    let causes = passport.steps.iter().filter_map(|step| step.then.as_ref());
    causes.map(|cause| (cause.what, cause.sure)).collect()
}

/// It works on a message for ever.
fn slow(world: &World, name: &str) -> testkit::Program {
    world
        .receiver(name)
        .env("WORK_DELAY_MIN_MS", 60_000)
        .env("WORK_DELAY_MAX_MS", 60_000)
}

#[tokio::test]
async fn a_failure_is_known_as_the_cause_whatever_the_answer() {
    for (action, ladder, what) in [
        ("nack", false, What::Nack),
        ("reject", false, What::Reject),
        ("nack", true, What::RetryLadder),
        ("drop", false, What::ConnectionDropped),
    ] {
        let story = Story::begin(World::new().await).await;
        let receiver = story
            .world
            .receiver("receiver-1")
            .env("WORK_FAIL_ONE_IN", 1);
        let receiver = receiver
            .env("WORK_FAILURE_ACTION", action)
            .env("RETRY_LADDER_MS", "200");
        let retry = if ladder { "ladder" } else { "requeue" };
        let receiver = receiver
            .env("RETRY", retry)
            .env("RETRY_HOLD_MS", 300)
            .start()
            .await;
        story.in_hand_of("receiver-1").await;
        turn(&receiver, json!({"fail_one_in": 0})).await;
        story.told(what, Sure::Known).await;
    }
}

#[tokio::test]
async fn a_killed_receiver_is_inferred_and_another_takes_its_message() {
    let story = Story::begin(World::new().await).await;
    let mut first = slow(&story.world, "receiver-1").start().await;
    story.in_hand_of("receiver-1").await;
    first.kill().await;
    let _second = story.world.receiver("receiver-2").start().await;
    let passport = story.told(What::NodeDied, Sure::Inferred).await;
    assert_eq!(hands(&passport), ["receiver-1", "receiver-2"]);
}

#[tokio::test]
async fn a_stopped_consumer_a_cut_link_and_a_closed_connection_are_told_apart() {
    for (how, what) in [
        ("cut", What::ConnectionLost),
        ("close", What::ConnectionClosed),
        ("delete", What::ConsumerCancelled),
    ] {
        let story = Story::begin(World::new().await).await;
        let program = slow(&story.world, "receiver-1");
        let receiver = linked(&story.world, program, &story.world.database.receiver_url).await;
        story.in_hand_of("receiver-1").await;
        turn(&receiver.node, json!({"delay_min_ms": 0})).await;
        match how {
            "cut" => drop(receiver.rabbitmq.cut_rst()),
            "close" => {
                wait_until("connections to close", LIMIT, async || {
                    match story.world.broker.close_connections().await {
                        Ok(0) => Err("none yet".to_owned()),
                        Ok(_) => Ok(()),
                        Err(error) => Err(error.to_string()),
                    }
                })
                .await;
            }
            _ => {
                let path = ["queues", &story.world.broker.vhost, "messages"];
                story
                    .world
                    .broker
                    .manage(Method::DELETE, &path, None)
                    .await
                    .unwrap();
            }
        }
        wait_until("the session's end to be on record", LIMIT, async || {
            let passport = story.passport().await;
            let told = causes(&passport);
            if told.contains(&(what, Sure::Known)) {
                Ok(())
            } else {
                Err((how, told))
            }
        })
        .await;
        // A deleted queue took the message along.
        if how != "delete" {
            turn(&receiver.node, json!({"delay_max_ms": 0})).await;
            story.told(what, Sure::Known).await;
        }
    }
}

/// `receiver-1` had it, for ever, until this took it away, and then `receiver-2`, which is quick.
async fn taken_over(story: &Story, what: What) -> Passport {
    let passport = story.told(what, Sure::Known).await;
    let (causes, hands) = (causes(&passport), hands(&passport));
    let known = causes.iter().all(|cause| *cause == (what, Sure::Known));
    assert!(known, "{causes:?}");
    let (last, before) = hands.split_last().unwrap();
    assert_eq!((before[0], *last), ("receiver-1", "receiver-2"));
    passport
}

#[tokio::test]
async fn a_channel_that_the_broker_closed_is_told_with_its_reason() {
    let story = Story::begin(World::new().await).await;
    let link = SecondAck::to(&story.world.broker.amqp_url).await;
    let first = slow(&story.world, "receiver-1").env("AMQP_URL", &link.url);
    let _first = first.start().await;
    story.in_hand_of("receiver-1").await;
    let second = story.world.receiver("receiver-2").start().await;
    ready(&second).await;
    link.send();
    let passport = taken_over(&story, What::ChannelClosed).await;
    let why = format!("{:?}", passport.steps);
    assert!(why.contains("unknown delivery tag"), "{why}");
}

#[tokio::test]
async fn a_broker_that_waited_too_long_for_an_answer_is_the_cause() {
    let story = Story::begin(World::own().await).await;
    let patience = Duration::from_secs(2);
    story.world.servers.consumer_timeout(patience).await;
    let _first = slow(&story.world, "receiver-1").start().await;
    story.in_hand_of("receiver-1").await;
    // until it is there, the first may have it again, and again for too long
    let _second = story.world.receiver("receiver-2").start().await;
    taken_over(&story, What::AckTimeout).await;
    story.world.servers.end().await;
}

/// One message is held in hand by a database that does not answer, one has come in and waits behind it.
#[tokio::test]
async fn what_a_stopping_receiver_gives_back_is_told_whether_it_had_begun_or_not() {
    let mut story = Story::empty(World::new().await).await;
    let mut first = story.world.receiver("receiver-1").start().await;
    ready(&first).await;
    let mut lock = story.world.database.admin.begin().await.unwrap();
    let inbox = "lock table receiver.inbox in access exclusive mode";
    sqlx::query(inbox).execute(&mut *lock).await.unwrap();
    story.send("begun").await;
    let begun = story.id;
    story.in_hand_of("receiver-1").await;
    wait_until("the message to be held", LIMIT, async || {
        first.log().contains("the delivery is held")
    })
    .await;
    story.send("not begun").await;
    wait_until("the second to come in too", LIMIT, async || {
        let left = story
            .world
            .count("select count(*) from sender.outbox")
            .await;
        let ready = story.world.broker.queue_depth("messages").await;
        match (left, ready) {
            (0, Ok(Some(0))) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(first.terminate(LIMIT).await.unwrap().success());
    lock.rollback().await.unwrap();
    let _second = story.world.receiver("receiver-2").start().await;
    for id in [story.id, begun] {
        story.id = id;
        let passport = story.told(What::Drained, Sure::Known).await;
        assert_eq!(hands(&passport), ["receiver-1", "receiver-2"]);
        assert_eq!(causes(&passport), [(What::Drained, Sure::Known)]);
    }
}

#[tokio::test]
async fn a_dead_letter_that_was_sent_back_is_told_with_its_parking_and_its_replay() {
    let story = Story::begin(World::new().await).await;
    let first = story.world.receiver("receiver-1");
    let first = first.env("WORK_FAIL_ONE_IN", 1).env("WORK_MAX_FAILURES", 1);
    let mut first = first.start().await;
    wait_until("the message to be parked", LIMIT, async || {
        let passport = story.passport().await;
        if passport.state == State::Parked {
            Ok(())
        } else {
            Err(passport)
        }
    })
    .await;
    assert!(first.terminate(LIMIT).await.unwrap().success());
    let second = redrive::receiver(&story.world, "receiver-2").await;
    let (order, _) = redrive::plan(&second, json!({"messages": [story.id]}), 100).await;
    redrive::start(&second, &order).await;
    let passport = story.told(What::Replay, Sure::Known).await;
    assert_eq!(hands(&passport), ["receiver-1", "receiver-2"]);
    let right = [
        "accepted",
        "delivered",
        "parked",
        "replayed",
        "delivered",
        "effect",
    ];
    // publishes and the effect are on record a while after the cause
    wait_until("the story to be complete", LIMIT, async || {
        let passport = story.passport().await;
        let kinds = passport.steps.iter().map(|step| step.kind);
        let (published, rest): (Vec<_>, Vec<_>) = kinds.partition(|kind| *kind == "published");
        if published.len() == 2 && rest == right {
            Ok(())
        } else {
            Err(passport)
        }
    })
    .await;
}

/// It is told by times, and a publish is on record only a while after it.
#[tokio::test]
async fn a_message_is_told_in_the_order_in_which_it_happened() {
    let mut story = Story::empty(World::new().await).await;
    let receiver = story.world.receiver("receiver-1").start().await;
    ready(&receiver).await;
    story.send("quick").await;
    wait_until("the story to be complete", LIMIT, async || {
        let passport = story.passport().await;
        let kinds: Vec<_> = passport.steps.iter().map(|step| step.kind).collect();
        let right = ["accepted", "published", "delivered", "effect"];
        if kinds == right {
            Ok(())
        } else {
            Err(passport)
        }
    })
    .await;
}

#[tokio::test]
async fn a_lost_answer_and_a_copy_are_inferred() {
    // processed, and killed before the ack
    let story = Story::begin(World::new().await).await;
    let first = story.world.receiver("receiver-1");
    let first = first.env("FAIL_POINTS", "settle.before_ack=park");
    let mut first = first.start().await;
    wait_until(
        "the effect to be on record with its answer",
        LIMIT,
        async || {
            let passport = story.passport().await;
            let mut facts = passport.steps.iter().flat_map(|step| &step.facts.0);
            let answered = facts.any(|(name, _)| *name == "answer");
            if answered { Ok(()) } else { Err(passport) }
        },
    )
    .await;
    first.kill().await;
    let _second = story.world.receiver("receiver-2").start().await;
    let passport = story.told(What::AnswerLost, Sure::Inferred).await;
    assert_eq!(hands(&passport), ["receiver-1", "receiver-2"]);

    // published, and dead before it heard so
    let mut story = Story::empty(World::new().await).await;
    story
        .sender
        .arm("relay.after_publish=crash@1")
        .await
        .unwrap();
    story.send("twice").await;
    story.sender.wait(LIMIT).await.unwrap();
    story.sender.set_env("FAIL_POINTS", "");
    story.sender.start_again().await;
    let _receiver = story.world.receiver("receiver-1").start().await;
    let passport = story.told(What::Copy, Sure::Inferred).await;
    assert_eq!(hands(&passport), ["receiver-1", "receiver-1"]);
}
