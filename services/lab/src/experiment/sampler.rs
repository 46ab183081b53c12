//! Counts once a second, while an experiment runs: what the nodes say of themselves, and the broker of its queues.
//!
//! A node that is started again counts from nothing: what it had is kept and added. What it did since the last look before
//! it died is not known, so the sums are for pictures; verdicts rest on the ledger.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Client;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::journal::Sample;
use super::watch::{Seen, Watch};
use crate::load::{Counts, Plan, Progress};
use crate::run::Job;
use crate::run::sight::{NodeSight, Sight};
use crate::stack::scene::api;

const EACH: Duration = Duration::from_secs(1);
const ASK_LIMIT: Duration = Duration::from_millis(800);
const PROCESSED: &str = "unacked_messages_processed_total";
/// Of leases, where nothing else has effects.
const CONFIRMED: &str = "unacked_leases_confirmed_total";
const FAILED: &str = "unacked_work_failures_total";
const REDELIVERED: &str = "unacked_messages_redelivered_total";
const OUTBOX: &str = "unacked_outbox_messages";

/// What is known so far.
#[derive(Default)]
pub(super) struct Sampler {
    samples: Mutex<Vec<Sample>>,
    /// Requests, as the load counts them.
    load: Mutex<Counts>,
}

impl Sampler {
    /// The load is so far.
    pub(super) fn note(&self, progress: &Progress) {
        *self.load.lock().unwrap_or_else(PoisonError::into_inner) = progress.counts;
    }

    /// All samples.
    pub(super) fn take(&self) -> Vec<Sample> {
        std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks once a second, without end.
    pub(super) async fn run(
        &self,
        sight: &Sight,
        client: &Client,
        zero: Instant,
        plan: &Plan,
        watch: Watch<'_>,
    ) {
        let (job, batch) = (plan.to, plan.batch);
        let processed = if job == Job::Leases {
            CONFIRMED
        } else {
            PROCESSED
        };
        let mut totals: HashMap<(String, &str), Total> = HashMap::new();
        let mut ticks = interval(EACH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let at_ms = u64::try_from(zero.elapsed().as_millis()).unwrap_or(u64::MAX);
            let (metrics, queues) = tokio::join!(
                join_all(sight.nodes.iter().map(|node| metrics(client, node))),
                queues(client, sight, job),
            );
            let mut outbox = None;
            for (node, text) in sight.nodes.iter().zip(&metrics) {
                let Some(text) = text else { continue };
                for name in [processed, FAILED, REDELIVERED] {
                    totals
                        .entry((node.name.clone(), name))
                        .or_default()
                        .see(sum(text, name));
                }
                if node.service == job.accepts() {
                    outbox = outbox.max(Some(sum(text, OUTBOX)));
                }
            }
            let all = |name: &str| {
                totals
                    .iter()
                    .filter(|((_, one), _)| *one == name)
                    .map(|(_, total)| total.all())
                    .sum()
            };
            let load = *self.load.lock().unwrap_or_else(PoisonError::into_inner);
            let (ready, unacked) = queues.map_or((None, None), |(ready, unacked)| {
                (Some(ready), Some(unacked))
            });
            let sample = Sample {
                at_ms,
                offered: load.offered * u64::from(batch),
                accepted: load.accepted * u64::from(batch),
                processed: all(processed),
                failed: all(FAILED),
                redelivered: all(REDELIVERED),
                ready,
                unacked,
                outbox,
            };
            watch(Seen::Sample(&sample));
            self.samples
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(sample);
        }
    }
}

/// A counter that begins anew with its process.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    before: u64,
    last: u64,
}

impl Total {
    fn see(&mut self, now: u64) {
        if now < self.last {
            self.before += self.last;
        }
        self.last = now;
    }

    fn all(self) -> u64 {
        self.before + self.last
    }
}

pub(crate) async fn metrics(client: &Client, node: &NodeSight) -> Option<String> {
    let answer = client
        .get(format!("{}/metrics", node.ops))
        .timeout(ASK_LIMIT)
        .send()
        .await
        .ok()?;
    answer.error_for_status().ok()?.text().await.ok()
}

/// Over all its labels.
pub(crate) fn sum(text: &str, name: &str) -> u64 {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with([' ', '{']));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let sum = values.sum::<f64>() as u64;
    sum
}

/// Ready and unacknowledged messages of the road's queues, those for dead letters excepted.
async fn queues(client: &Client, sight: &Sight, job: Job) -> Option<(u64, u64)> {
    let road = job.road()?;
    let mut url = api(sight.management.as_ref()?, &["queues", &sight.vhost]).ok()?;
    // from the queues' own counters: the statistics know nothing of a new queue for some seconds more
    url.set_query(Some("disable_stats=true&enable_queue_totals=true"));
    let answer = client.get(url).timeout(ASK_LIMIT).send().await.ok()?;
    let queues: Vec<Value> = answer.error_for_status().ok()?.json().await.ok()?;
    depth(road, &queues)
}

fn depth(road: &str, queues: &[Value]) -> Option<(u64, u64)> {
    let ours = |queue: &&Value| {
        let name = queue["name"].as_str().unwrap_or_default();
        let below = name.strip_prefix(road);
        below.is_some_and(|below| below.is_empty() || below.starts_with(".retry."))
    };
    let mut sum = None;
    for queue in queues.iter().filter(ours) {
        // a queue that the broker has not counted yet is not known
        let (ready, unacked) = (
            queue["messages_ready"].as_u64()?,
            queue["messages_unacknowledged"].as_u64()?,
        );
        let (so_far, held) = sum.unwrap_or((0, 0));
        sum = Some((so_far + ready, held + unacked));
    }
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_counter_that_begins_anew_does_not_fall() {
        let mut total = Total::default();
        let seen: Vec<u64> = [3, 10, 2, 5, 0, 1]
            .into_iter()
            .map(|now| {
                total.see(now);
                total.all()
            })
            .collect();
        assert_eq!(seen, [3, 10, 12, 15, 15, 16]);
    }

    #[test]
    fn a_metric_is_summed_over_its_labels_and_no_other_is_taken_for_it() {
        let text = "# TYPE unacked_work_failures_total counter\nunacked_work_failures_total 3\n\
                    unacked_messages_redelivered_total{queue=\"messages\"} 4\n\
                    unacked_messages_redelivered_total{queue=\"messages.dead\"} 1\n\
                    unacked_messages_processed_total_other 9\n";
        assert_eq!(sum(text, FAILED), 3);
        assert_eq!(sum(text, REDELIVERED), 5);
        assert_eq!(sum(text, PROCESSED), 0);
    }

    #[test]
    fn what_waits_for_another_try_is_ready_and_what_was_not_counted_is_not_known() {
        let queue = |name: &str, ready| json!({"name": name, "messages_ready": ready, "messages_unacknowledged": 1});
        let some = [
            queue("messages", json!(2)),
            queue("messages.retry.1000", json!(3)),
            queue("messages.dead", json!(9)),
        ];
        assert_eq!(depth("messages", &some), Some((5, 2)));
        assert_eq!(depth("messages", &[queue("messages", Value::Null)]), None);
        assert_eq!(depth("messages", &[]), None);
    }
}
