//! Each guarantee, switched off: the smallest scenario in which the safe road passes and the unsafe one
//! does harm. Both are played beside each other, in worlds of their own.

use std::time::Duration;

use lapin::{options::QueueDeclareOptions, types::FieldTable};
use reqwest::Method;
use serde_json::json;
use testkit::{Process, Program, wait_until};

use crate::{
    check::Audit,
    load::post,
    world::{Linked, World, linked, part, reaches, ready},
};

const LIMIT: Duration = Duration::from_secs(40);

mod receiving;
mod sending;

/// Plays a scenario with all guarantees, and with one off.
async fn both<T>(off: &str, scenario: impl AsyncFn(Play) -> T) -> (T, T) {
    let play = async |off: &str| {
        let world = World::new().await;
        let off = off.to_owned();
        scenario(Play { world, off }).await
    };
    tokio::join!(play(""), play(off))
}

/// A world and what is off in it.
struct Play {
    world: World,
    off: String,
}

impl Play {
    fn sender(&self) -> Program {
        self.world.sender("sender-1").env("WITHOUT", &self.off)
    }

    fn receiver(&self) -> Program {
        self.world.receiver("receiver-1").env("WITHOUT", &self.off)
    }

    async fn linked_sender(&self) -> Linked {
        let sender = linked(&self.world, self.sender(), &self.world.database.sender_url).await;
        ready(&sender.node).await;
        part(&sender.node, "rabbitmq", "up", LIMIT).await;
        sender
    }

    /// Sends one message more and waits for its effect: what was before it is through too, or lost.
    async fn through(&self, sender: &Process) -> Audit {
        let answer = post(&sender.url(), "last", "the last").await.unwrap();
        assert_eq!(answer.status, 202, "{answer:?}");
        wait_until("the last message to be through", LIMIT, async || {
            let last = "select count(*) from receiver.processed where text = 'the last'";
            let through = self.world.count(last).await > 0;
            let audit = self.world.audit().await;
            let safe = self.off.is_empty();
            if through && audit.in_outbox == 0 && (audit.is_drained() || !safe) {
                Ok(audit)
            } else {
                Err(audit)
            }
        })
        .await
    }

    async fn outbox_is(&self, rows: i64) {
        wait_until(&format!("{rows} rows in the outbox"), LIMIT, async || {
            let waiting = self.world.count("select count(*) from sender.outbox").await;
            if waiting == rows {
                Ok(())
            } else {
                Err(waiting)
            }
        })
        .await;
    }

    /// Waits until a receiver takes from both queues: from then on nobody declares anything again.
    async fn consumed(&self) {
        let (_connection, channel) = self.world.broker.channel().await.unwrap();
        for queue in ["messages", "messages.dead"] {
            wait_until(&format!("a consumer of {queue}"), LIMIT, async || {
                let passive = QueueDeclareOptions {
                    passive: true,
                    ..QueueDeclareOptions::default()
                };
                let found = channel.queue_declare(queue.into(), passive, FieldTable::default());
                found.await.unwrap().consumer_count() == 1
            })
            .await;
        }
    }

    async fn bind(&self, name: &str, there: bool) {
        let vhost = &self.world.broker.vhost;
        let all = ["bindings", vhost, "e", name, "q", name];
        let (method, path, body) = if there {
            (
                Method::POST,
                all.to_vec(),
                Some(json!({"routing_key": name})),
            )
        } else {
            (Method::DELETE, [&all[..], &[name]].concat(), None)
        };
        self.world.broker.manage(method, &path, body).await.unwrap();
    }
}

async fn metric_reaches(node: &Process, name: &str, least: f64) {
    reaches(node, name, least, LIMIT).await;
}

/// Lost in the unsafe play, and nothing else wrong; all well in the safe one.
#[track_caller]
fn assert_only_the_unsafe_one_loses((safe, harmed): &(Audit, Audit), all: usize, lost: usize) {
    safe.assert_exactly_once(all);
    assert_eq!(harmed.missing.len(), lost, "{harmed:?}");
    assert_eq!((harmed.accepted, harmed.processed), (all, all - lost));
    assert_eq!((harmed.twice.len(), harmed.in_outbox), (0, 0), "{harmed:?}");
}

#[tokio::test]
async fn what_is_off_is_shown_on_every_page_and_to_those_who_run_the_node() {
    let world = World::new().await;
    let off = |program: Program| program.env("WITHOUT", "inbox, outbox");
    let (sender, receiver) = (
        off(world.sender("sender-1")),
        off(world.receiver("receiver-1")),
    );
    for (program, page) in [(sender, "/"), (receiver, "/received")] {
        let node = program.start().await;
        ready(&node).await;
        let (_, health) = node.ready().await.unwrap();
        assert_eq!(health["without"], json!(["outbox", "inbox"]));
        let off = node.metric("unacked_guarantee_off").await.unwrap();
        assert!((off - 2.0).abs() < f64::EPSILON, "{off}");
        let text = reqwest::get(node.url() + page)
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        for said in [
            "Guarantee off: outbox.",
            "Guarantee off: inbox.",
            "has two effects",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
    let sender = world.sender("sender-2").start().await;
    ready(&sender).await;
    assert_eq!(sender.ready().await.unwrap().1["without"], json!([]));
    let text = reqwest::get(sender.url())
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(!text.contains("Guarantee off"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_switched_off_is_refused() {
    let world = World::new().await;
    for (settings, said) in [
        (
            &[("WITHOUT", "inbox,index")][..],
            "\"index\" is not a guarantee; there are outbox,",
        ),
        (
            &[("WITHOUT", "persistence")],
            "wrong setting WITHOUT: persistence can only be off with",
        ),
        (
            &[
                ("WITHOUT", "safe-dead-lettering"),
                ("QUEUE_TYPE", "classic"),
            ],
            "wrong setting WITHOUT: safe-dead-lettering can only be off with QUEUE_TYPE=quorum",
        ),
    ] {
        for program in [world.sender("sender-1"), world.receiver("receiver-1")] {
            let program = settings
                .iter()
                .fold(program, |p, (name, value)| p.env(name, value));
            let (status, log) = program.output(LIMIT).await.unwrap();
            assert_eq!(status.code(), Some(2), "{log}");
            assert!(log.contains(said), "{log}");
        }
    }
}
