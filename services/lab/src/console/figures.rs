//! What nodes say of themselves on their second ports, once a second: counts, and what holds them back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Client;
use serde_json::Value;

use crate::experiment::sampler::{metrics, sum};
use crate::run::sight::{NodeSight, Sight};
use crate::stack::node::Service;
use crate::stack::scene::api;

const LIMIT: Duration = Duration::from_millis(800);
/// Counters: of the sender, then of the receiver.
const COUNTERS: [&str; 6] = [
    "unacked_messages_accepted_total",
    "unacked_messages_confirmed_total",
    "unacked_messages_processed_total",
    "unacked_work_failures_total",
    "unacked_messages_redelivered_total",
    "unacked_messages_parked_total",
];
/// A node that was not asked for so long is gone. One that is frozen or cut off comes back, and went on counting before.
const GONE: Duration = Duration::from_hours(1);
const IN_HAND: &str = "unacked_deliveries_in_hand";
const OUTBOX: &str = "unacked_outbox_messages";
const OFF: &str = "unacked_guarantee_off{";

/// What one node brought since the last look.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// In the order accepted, published, processed, failed, redelivered, parked.
    pub counts: [u64; 6],
    /// Of what the node is there for, a second.
    pub rate: f64,
    pub in_hand: u64,
    /// In the outbox.
    pub waiting: u64,
    pub blocked: bool,
    pub off: Vec<String>,
    pub prefetch: Option<u64>,
}

/// Looks, and remembers what the last look brought.
#[derive(Default)]
pub struct Figures {
    /// What a node had counted, as it was last asked; no counts: it was there, and could not be asked.
    last: HashMap<String, (Option<[u64; 6]>, Instant)>,
    /// A setting, so it is asked once for each process: by the name of the node.
    prefetch: HashMap<String, u64>,
    looked: bool,
}

impl Figures {
    /// All nodes at once. One that does not answer is not in the answer; what stands still is not asked.
    pub async fn look(
        &mut self,
        client: &Client,
        nodes: &[NodeSight],
        frozen: &[String],
    ) -> HashMap<String, Told> {
        for name in frozen {
            let unknown = || (None, Instant::now());
            self.last.entry(name.clone()).or_insert_with(unknown);
        }
        let looks = nodes.iter().map(|node| async {
            let settings = async {
                if node.service == Service::Sender || self.prefetch.contains_key(&node.name) {
                    return None;
                }
                let settings = ask(client, node, "/ops/settings").await?;
                settings["PREFETCH"].as_str()?.parse().ok()
            };
            tokio::join!(
                metrics(client, node),
                ask(client, node, "/health/ready"),
                settings
            )
        });
        let looks = join_all(looks).await;
        let mut all = HashMap::new();
        for (node, (text, health, prefetch)) in nodes.iter().zip(looks) {
            let Some(text) = text else { continue };
            if let Some(prefetch) = prefetch {
                self.prefetch.insert(node.name.clone(), prefetch);
            }
            let mut told = self.count(node, &text);
            told.prefetch = self.prefetch.get(&node.name).copied();
            told.blocked =
                health.is_some_and(|health| health["parts"]["rabbitmq"]["state"] == "blocked");
            all.insert(node.name.clone(), told);
        }
        self.last
            .retain(|name, (_, at)| at.elapsed() < GONE || frozen.contains(name));
        self.prefetch.retain(|name, _| self.last.contains_key(name));
        self.looked = true;
        all
    }

    fn count(&mut self, node: &NodeSight, text: &str) -> Told {
        let (now, totals) = (Instant::now(), COUNTERS.map(|name| sum(text, name)));
        let before = self.last.insert(node.name.clone(), (Some(totals), now));
        let (before, since) = match before {
            Some((Some(before), at)) => (before, Some(at)),
            // a node that came later began with 0
            None if self.looked => ([0; 6], None),
            // at the console's own start, or while it could not be asked: what it did before is not of this second
            Some((None, _)) | None => (totals, None),
        };
        let mut counts = [0; 6];
        for ((count, now), before) in counts.iter_mut().zip(totals).zip(before) {
            // a node that was started again counts from nothing
            *count = if now < before { now } else { now - before };
        }
        let seconds = since.map_or(1.0, |at| now.duration_since(at).as_secs_f64().max(0.1));
        let deed = match node.service {
            Service::Sender | Service::Notes | Service::Leases | Service::Signup => counts[0],
            Service::Receiver | Service::NotesWorker | Service::SignupWelcome => counts[2],
        };
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rate = (deed as f64 / seconds * 10.0).round() / 10.0;
        let off = text.lines().filter_map(|line| line.strip_prefix(OFF));
        let off = off.filter_map(|rest| {
            let name = rest.strip_prefix("guarantee=\"")?.split('"').next()?;
            rest.ends_with(" 1").then(|| name.to_owned())
        });
        Told {
            counts,
            rate,
            in_hand: sum(text, IN_HAND),
            waiting: sum(text, OUTBOX),
            blocked: false,
            off: off.collect(),
            prefetch: None,
        }
    }
}

async fn ask(client: &Client, node: &NodeSight, path: &str) -> Option<Value> {
    let asked = client.get(format!("{}{path}", node.ops)).timeout(LIMIT);
    // a node that is not ready says so with 503, and tells all the same
    asked.send().await.ok()?.json().await.ok()
}

/// What the broker says of its queues; from their own counters, which are up to five seconds old.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Queues {
    pub kind: String,
    /// Of the queue and of those where messages wait for another try.
    pub ready: u64,
    pub unacked: u64,
    /// Given up on, and not yet stored.
    pub dead: u64,
}

/// None: the broker does not say.
pub async fn queues(client: &Client, sight: &Sight) -> Option<Queues> {
    let mut url = api(sight.management.as_ref()?, &["queues", &sight.vhost]).ok()?;
    url.set_query(Some("disable_stats=true&enable_queue_totals=true"));
    let answer = client.get(url).timeout(LIMIT).send().await.ok()?;
    let all: Vec<Value> = answer.error_for_status().ok()?.json().await.ok()?;
    of(&all)
}

fn of(all: &[Value]) -> Option<Queues> {
    let mut queues = Queues::default();
    let mut found = false;
    for queue in all {
        let name = queue["name"].as_str().unwrap_or_default();
        let ready = queue["messages_ready"].as_u64();
        let unacked = queue["messages_unacknowledged"].as_u64();
        if name == "messages" || name.starts_with("messages.retry.") {
            // a queue that the broker has not counted yet is not known
            queues.ready += ready?;
            queues.unacked += unacked?;
        }
        if name == "messages" {
            found = true;
            queue["type"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut queues.kind);
        } else if name == "messages.dead" {
            queues.dead = ready.unwrap_or(0) + unacked.unwrap_or(0);
        }
    }
    found.then_some(queues)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, service: Service) -> NodeSight {
        NodeSight {
            name: name.to_owned(),
            service,
            ops: String::new(),
            address: String::new(),
            place: None,
        }
    }

    #[test]
    fn a_second_is_what_came_since_the_last_look_also_when_a_node_began_anew() {
        let mut figures = Figures::default();
        let receiver = node("receiver-1", Service::Receiver);
        let text = |n: u64| {
            format!(
                "unacked_messages_processed_total{{a=\"b\"}} {n}\nunacked_guarantee_off{{guarantee=\"inbox\"}} 1\nunacked_guarantee_off{{guarantee=\"outbox\"}} 0\nunacked_deliveries_in_hand{{queue=\"messages\"}} 3\n"
            )
        };
        // what it did before the console was there
        assert_eq!(figures.count(&receiver, &text(100)).counts[2], 0);
        figures.looked = true;
        let told = figures.count(&receiver, &text(107));
        assert_eq!(
            (told.counts[2], told.in_hand, told.off),
            (7, 3, vec!["inbox".to_owned()])
        );
        assert_eq!(figures.count(&receiver, &text(5)).counts[2], 5);
        let other = node("receiver-2", Service::Receiver);
        assert_eq!(figures.count(&other, &text(4)).counts[2], 4);
    }

    #[tokio::test]
    async fn a_node_that_was_frozen_does_not_bring_all_that_it_ever_did_in_one_second() {
        let (mut figures, client) = (Figures::default(), Client::new());
        let text = |n: u64| format!("unacked_messages_processed_total {n}\n");
        let names = ["seen", "unseen"].map(|name| node(name, Service::Receiver));
        figures.count(&names[0], &text(100_000));
        // nobody can be asked meanwhile: both stand still, and the console learned of one of them only now
        let frozen = names.each_ref().map(|node| node.name.clone());
        figures.look(&client, &[], &frozen).await;
        figures.look(&client, &[], &frozen).await;
        let [seen, unseen] = names
            .each_ref()
            .map(|node| figures.count(node, &text(100_007)));
        assert_eq!((seen.counts[2], unseen.counts[2]), (7, 0));
        assert!(seen.rate <= 70.0, "{}", seen.rate);
        // also one that nobody named for a while, because `lab up` did not answer
        figures.look(&client, &[], &[]).await;
        assert_eq!(figures.count(&names[0], &text(100_009)).counts[2], 2);
    }

    #[test]
    fn queues_of_the_road_are_added_up() {
        let one = |name: &str, ready: u64| json!({"name": name, "type": "quorum", "messages_ready": ready, "messages_unacknowledged": 2});
        let all = [
            one("messages", 5),
            one("messages.retry.1000", 1),
            one("messages.dead", 4),
            one("other", 9),
        ];
        let found = of(&all).unwrap();
        assert_eq!(
            (found.ready, found.unacked, found.dead, &*found.kind),
            (6, 4, 6, "quorum")
        );
        assert_eq!(of(&[json!({"name": "messages"})]), None);
        assert_eq!(of(&[]), None);
    }
}
