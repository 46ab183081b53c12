//! "A receiver dies, the message comes back, another takes it", told from one passport, for each cause.

use std::time::Duration;

use lab::passport::cause::{Sure, What};
use lab::passport::story::{Passport, State};
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;
use testkit::{Process, wait_until};
use uuid::Uuid;

use crate::load::post;
use crate::world::{World, linked, ready, turn};

const LIMIT: Duration = Duration::from_mins(1);

/// A message in the hands of `receiver-1`, which works on it for ever.
struct Story {
    world: World,
    auditor: PgPool,
    _sender: Process,
    id: Uuid,
}

impl Story {
    async fn begin(world: World) -> Self {
        let sender = world.sender("sender-1").start().await;
        ready(&sender).await;
        post(&sender.url(), "k", "a story").await.unwrap();
        let id = sqlx::query_scalar("select message_id from sender.message")
            .fetch_one(&world.database.admin)
            .await
            .unwrap();
        let auditor = PgPool::connect(&world.database.auditor_url).await.unwrap();
        Self {
            auditor,
            _sender: sender,
            id,
            world,
        }
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
            let told = passport.steps.iter().filter_map(|step| step.then.as_ref());
            let told = told
                .into_iter()
                .any(|cause| cause.what == what && cause.sure == sure);
            if told && passport.state == State::Processed {
                Ok(passport)
            } else {
                Err(passport)
            }
        })
        .await
    }
}

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
    let nodes: Vec<_> = passport
        .steps
        .iter()
        .filter(|step| step.kind == "delivered")
        .collect();
    let nodes: Vec<_> = nodes
        .iter()
        .map(|step| step.node.as_deref().unwrap())
        .collect();
    assert_eq!(nodes, ["receiver-1", "receiver-2"]);
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
            let told = passport.steps.iter().filter_map(|step| step.then.clone());
            let told: Vec<_> = told.map(|cause| (cause.what, cause.sure)).collect();
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
