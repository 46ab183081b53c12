//! One look at a stack, from outside: what the ledger, the broker and the nodes say.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use futures::future::join_all;
use reqwest::{Client, Url};
use serde_json::Value;
use sqlx::PgConnection;

use super::leases::Book;
use super::ledger::{self, Ledger, Progress};
use crate::load::lessees::Queue;
use crate::run::leased::{self, Went};
use crate::run::record::Line;
use crate::run::sight::{NodeSight, Sight};
use crate::run::{Job, RunDir, requests};
use crate::stack::node::Service;

const LOOK_LIMIT: Duration = Duration::from_secs(3);
/// A load whose record has not grown for so long has been killed.
const LOAD_SILENT: Duration = Duration::from_secs(10);

/// What was seen at one look.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each was seen by itself")]
pub(super) struct Look {
    pub(super) load_runs: bool,
    /// Of the ledger; else why it could not be read.
    pub(super) ledger: Option<Progress>,
    pub(super) ledger_error: Option<String>,
    /// Messages that are not accounted for; none: not counted, since there must be some.
    pub(super) outstanding: Option<i64>,
    /// Messages in the queues, delivered or not; none: not known.
    pub(super) queued: Option<u64>,
    /// The longest time that a message may still wait in a queue for its next try.
    pub(super) rung: Duration,
    /// In the hands of receivers; none: one of them does not say.
    pub(super) in_hand: Option<u64>,
    /// What was counted is so now, and not as it was some seconds ago.
    pub(super) fresh: bool,
    /// Why it cannot move, whatever the nodes do.
    pub(super) deserted: Option<String>,
    /// Nodes that are not ready, and why.
    pub(super) not_ready: Vec<String>,
    /// Whether there is anything to ask.
    pub(super) sees_queues: bool,
    pub(super) sees_nodes: bool,
}

impl Look {
    pub(super) fn accounted(&self) -> bool {
        self.outstanding == Some(0) && self.ledger.is_some_and(|now| now.outbox == 0)
    }

    /// Nothing is anywhere, as far as it can be seen.
    pub(super) fn quiet(&self) -> bool {
        let none = |count: Option<u64>| count == Some(0);
        (!self.sees_queues || none(self.queued)) && (!self.sees_nodes || none(self.in_hand))
    }
}

/// What looks are made with.
pub(super) struct Eyes<'a> {
    sight: &'a Sight,
    ledger: &'a Ledger,
    run: &'a RunDir,
    job: Job,
    client: Client,
    connection: Option<PgConnection>,
}

impl<'a> Eyes<'a> {
    pub(super) fn new(sight: &'a Sight, ledger: &'a Ledger, run: &'a RunDir) -> Self {
        Self {
            sight,
            ledger,
            run,
            // what cannot be read now is the audit's to tell
            job: run.meta().map(|meta| meta.job()).unwrap_or_default(),
            client: Client::new(),
            connection: None,
        }
    }
}

impl Eyes<'_> {
    pub(super) async fn look(&mut self) -> Look {
        let ours = self
            .sight
            .nodes
            .iter()
            .filter(|node| self.job.has(node.service));
        let nodes = join_all(ours.map(|node| self.node(node))).await;
        let road = self.job.road();
        let queues = match road {
            Some(road) => self.queues().await.map(|queues| count(road, &queues)),
            None => None,
        };
        let (queued, rung) = queues.unwrap_or((None, Duration::ZERO));
        let receivers = |node: &&Node| self.job.works() == Some(node.service);
        let mut look = Look {
            load_runs: load_runs(self.run),
            queued,
            rung,
            in_hand: nodes
                .iter()
                .filter(receivers)
                .map(|node| node.in_hand)
                .sum(),
            not_ready: nodes
                .iter()
                .filter_map(|node| node.not_ready.clone())
                .collect(),
            sees_queues: road.is_some() && self.sight.management.is_some(),
            sees_nodes: !nodes.is_empty(),
            ..Look::default()
        };
        if self.job == Job::Leases {
            match self.leases().await {
                Ok(leases) => leases.tell(&mut look),
                Err(error) => look.ledger_error = Some(format!("{error:#}")),
            }
            return look;
        }
        match self.count().await {
            Ok((progress, outstanding)) => {
                look.ledger = Some(progress);
                look.outstanding = outstanding;
            }
            Err(error) => {
                self.connection = None;
                look.ledger_error = Some(format!("{error:#}"));
            }
        }
        look
    }

    /// The record of the lessees, and the queue's own counts.
    async fn leases(&self) -> Result<Leases> {
        let name = self.run.id().as_str();
        let queue = Queue::ask(&self.client, &self.sight.gateway, name).await?;
        Ok(Leases {
            book: Book::read(self.run)?,
            queue,
        })
    }

    async fn count(&mut self) -> Result<(Progress, Option<i64>)> {
        if self.connection.is_none() {
            self.connection = Some(self.ledger.connect().await?);
        }
        let connection = self.connection.as_mut().context("no connection")?;
        let books = self.job.books().context("it has no books")?;
        let progress = ledger::progress(connection, books, self.run.id()).await?;
        let mut outstanding = None;
        // else some must be outstanding, and counting them costs more than this
        if progress.outbox == 0 && progress.effects + progress.parked >= progress.messages {
            outstanding = Some(ledger::outstanding(connection, books, self.run.id()).await?);
        }
        Ok((progress, outstanding))
    }

    async fn queues(&self) -> Option<Vec<Value>> {
        let mut url: Url = self.sight.management.as_ref()?.parse().ok()?;
        let vhost = self.sight.vhost.as_str();
        url.path_segments_mut()
            .ok()?
            .pop_if_empty()
            .extend(["api", "queues", vhost]);
        url.set_query(Some("columns=name,messages"));
        let answer = self.client.get(url).timeout(LOOK_LIMIT).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    async fn node(&self, node: &NodeSight) -> Node {
        let mut seen = Node {
            service: node.service,
            not_ready: None,
            in_hand: None,
        };
        let ask = |path: &str| {
            let request = self.client.get(format!("{}{path}", node.ops));
            request.timeout(LOOK_LIMIT).send()
        };
        match ask("/health/ready").await {
            Ok(answer) if answer.status().is_success() => {}
            Ok(_) => seen.not_ready = Some(format!("{} is not ready", node.name)),
            Err(error) => {
                seen.not_ready = Some(format!("{} does not answer", node.name));
                // nobody is there, so nobody has anything in hand
                if error.is_connect() && !error.is_timeout() {
                    seen.in_hand = Some(0);
                }
                return seen;
            }
        }
        if let Ok(answer) = ask("/metrics").await
            && let Ok(text) = answer.text().await
        {
            seen.in_hand = Some(in_hand(&text));
        }
        seen
    }
}

/// What is known of a lease queue.
struct Leases {
    book: Book,
    queue: Queue,
}

impl Leases {
    fn tell(self, look: &mut Look) {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let left = self.queue.left();
        let (confirmed, dead) = (count(self.book.confirmed), count(self.queue.dead));
        look.ledger = Some(Progress {
            messages: count(left) + confirmed + dead,
            effects: confirmed,
            parked: dead,
            newest: confirmed,
            ..Progress::default()
        });
        look.outstanding = Some(count(left));
        look.queued = Some(left);
        look.in_hand = Some(0);
        look.fresh = true;
        let why = match self.book.went {
            Some(Went::Stopped) => "the lessees were stopped while the queue was not empty",
            Some(Went::Dry) => "something came into the queue after the lessees had left it empty",
            None if !look.load_runs => {
                "the lessees are gone with their load, and the queue was not empty"
            }
            // they are there, or tried for long
            None | Some(Went::Tired) => return,
        };
        look.deserted = (left > 0).then(|| why.to_owned());
    }
}

struct Node {
    service: Service,
    not_ready: Option<String>,
    in_hand: Option<u64>,
}

/// All messages in the queues of the road, those given up on and those that wait for another try too; and how long these
/// may wait.
fn count(road: &str, queues: &[Value]) -> (Option<u64>, Duration) {
    let mut sum = Some(0);
    let mut longest = 0;
    for queue in queues {
        let name = queue["name"].as_str().unwrap_or_default();
        let below = name
            .strip_prefix(road)
            .filter(|below| below.is_empty() || below.starts_with('.'));
        if let Some(below) = below {
            // a queue without figures is one that the broker has not counted yet
            let messages = queue["messages"].as_u64();
            let rung = below.strip_prefix(".retry.").and_then(|ms| ms.parse().ok());
            if messages != Some(0) {
                longest = longest.max(rung.unwrap_or(0));
            }
            sum = sum.zip(messages).map(|(sum, messages)| sum + messages);
        }
    }
    (sum, Duration::from_millis(longest))
}

/// Over both queues. A receiver that has never consumed has nothing.
fn in_hand(metrics: &str) -> u64 {
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("unacked_deliveries_in_hand"));
    let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    // anything but zero is something
    counts
        .map(|count| if count > 0.0 { count.ceil() } else { 0.0 })
        .fold(0, |sum, count| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small count"
            )]
            let count = count as u64;
            sum + count
        })
}

fn load_runs(run: &RunDir) -> bool {
    let meta = run.meta();
    let ended = meta.is_ok_and(|meta| meta.ended_at.is_some());
    let records = [requests::FILE, leased::Line::FILE];
    !ended
        && records
            .into_iter()
            .any(|record| grew_lately(&run.path(record)))
}

fn grew_lately(log: &Path) -> bool {
    let changed = log.metadata().and_then(|data| data.modified());
    let age = changed.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
    age.is_ok_and(|age| age < LOAD_SILENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_in_all_queues_of_the_road_and_may_wait_on_the_ladder() {
        let queues = |retry: Value| {
            let queues = serde_json::json!([
                {"name": "messages", "messages": 3},
                {"name": "messages.dead", "messages": 1},
                {"name": "messages.retry.30000", "messages": retry},
                {"name": "messages.retry.90000", "messages": 0},
                {"name": "somebody.elses", "messages": 100},
            ]);
            count("messages", queues.as_array().unwrap())
        };
        assert_eq!(queues(2.into()), (Some(6), Duration::from_secs(30)));
        assert_eq!(queues(0.into()), (Some(4), Duration::ZERO));
        assert_eq!(queues(Value::Null), (None, Duration::from_secs(30)));
    }

    #[test]
    fn a_queue_that_its_lessees_have_left_is_not_stuck() {
        let deserted = |went, load_runs, left| {
            let mut look = Look {
                load_runs,
                ..Look::default()
            };
            let book = Book {
                went,
                ..Book::default()
            };
            let queue = Queue {
                name: "r1".to_owned(),
                ready: left,
                leased: 0,
                dead: 2,
            };
            Leases { book, queue }.tell(&mut look);
            assert_eq!(look.outstanding, i64::try_from(left).ok());
            look.deserted.is_some()
        };
        for (went, load_runs, is_deserted) in [
            (None, true, false),
            // killed
            (None, false, true),
            (Some(Went::Dry), false, true),
            (Some(Went::Stopped), false, true),
            // they were there for long, and got nothing
            (Some(Went::Tired), false, false),
        ] {
            assert_eq!(deserted(went, load_runs, 1), is_deserted, "{went:?}");
            assert!(!deserted(went, load_runs, 0), "{went:?}");
        }
    }

    #[test]
    fn what_is_in_hand_is_read_from_the_metrics() {
        let text = "# TYPE unacked_deliveries_in_hand gauge\n\
                    unacked_deliveries_in_hand{queue=\"messages\"} 3\n\
                    unacked_deliveries_in_hand{queue=\"messages.dead\"} 1\n\
                    unacked_other 7\n";
        assert_eq!(in_hand(text), 4);
        assert_eq!(in_hand(""), 0);
    }
}
