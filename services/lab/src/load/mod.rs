//! Load: requests offered to the gateway on a schedule that does not slow down when the system does.
//!
//! Each request has a time at which it is due (`schedule.rs`); it is put on record (`clerk.rs`) and then sent until it is
//! answered for good (`client.rs`). Its latency counts from when it was due, so the time that it waits for a free
//! connection, or between two tries, is part of it. What each client was told stands in `requests.log` of the run.
//!
//! The end: every offered request has an answer on record. Stopped early, nothing more is sent; what is on its way has
//! some seconds to be answered, and is unknown after that. A request that found no free connection during its whole
//! patience is never sent: refused, since nothing can have been stored.

mod beside;
pub(crate) mod body;
mod clerk;
pub mod cli;
mod client;
mod desk;
pub mod length;
pub mod lessees;
pub mod plan;
pub mod poison;
pub mod processed;
pub mod readers;
pub mod schedule;
pub mod table;

use std::pin::pin;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use daemon::clock;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc as channel, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::run::requests::Recorder;
use crate::run::sight::Sight;
use crate::run::{RunDir, RunId};
use beside::{Beside, Pace};
use clerk::{Clerk, Note};
use client::{Client, Stage};
use desk::Desk;
use lessees::Leases;
pub use plan::Plan;
use poison::Poison;
use readers::Reads;
use schedule::Schedule;

/// The name of the summary in the folder of a run.
pub const SUMMARY: &str = "load.json";

/// How long what is on its way when a load is stopped may take.
const GRACE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(100);

/// How far a load is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub elapsed: Duration,
    /// How long the schedule goes on.
    pub length: Duration,
    pub counts: Counts,
    /// Due, and not yet sent for want of a connection.
    pub waiting: usize,
    pub in_flight: usize,
    /// Accepted a second, over the last second or so.
    pub accepted_rate: f64,
}

/// Requests by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub offered: u64,
    pub accepted: u64,
    pub refused: u64,
    /// Of those refused, the ones that found no free connection while they had patience.
    pub never_sent: u64,
    pub unknown: u64,
    /// Tries beyond the first ones.
    pub retries: u64,
}

/// A distribution of times, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub max: u64,
}

impl Latency {
    /// None: there is nothing to sum up.
    pub fn of(times: &Histogram<u64>) -> Option<Self> {
        (!times.is_empty()).then(|| Self {
            p50: times.value_at_quantile(0.5),
            p90: times.value_at_quantile(0.9),
            p99: times.value_at_quantile(0.99),
            p99_9: times.value_at_quantile(0.999),
            max: times.max(),
        })
    }
}

/// What a load came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub run: RunId,
    pub load: Plan,
    /// Stopped before its end.
    pub stopped: bool,
    #[serde(flatten)]
    pub counts: Counts,
    /// How long requests were offered, and until the last one had its answer.
    pub offering_secs: f64,
    pub answering_secs: f64,
    pub offered_rate: f64,
    pub accepted_rate: f64,
    /// From due to accepted; none: nothing was accepted.
    pub accepted_us: Option<Latency>,
    /// What readers were shown; none: nobody read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<Reads>,
    /// What lessees did; none: there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leases: Option<Leases>,
}

/// Offers the load and waits for all answers, or until `stop` and some seconds more; and for what goes on beside it, or
/// until `stop`. `progress` is called ten times a second.
pub async fn run(
    plan: &Plan,
    sight: &Sight,
    run: &RunDir,
    progress: impl FnMut(&Progress),
    stop: impl Future<Output = ()>,
) -> Result<Summary> {
    let schedule = plan.schedule()?;
    let (beside, heard) = Beside::prepare(plan, sight, run).await?;
    let (stage, stages) = watch::channel(Stage::Go);
    let client = Client::new(&sight.gateway, run.id().clone(), plan, stages, heard)?;
    let recorder = Recorder::create(run).context("cannot begin the record of requests")?;
    let mut meta = run.meta()?;
    let began = Instant::now();
    meta.started_at = Some(clock::now());
    meta.load = Some(plan.clone());
    run.write_meta(&meta)?;
    let (pace, paces) = watch::channel(Pace::Goes);
    let stop = stop.shared();
    let offers = async {
        let offered = offer(
            plan,
            schedule,
            client,
            stage,
            recorder,
            began,
            progress,
            stop.clone(),
        )
        .await?;
        let mut cut_short = offered.stopped.is_some();
        if !cut_short {
            pace.send_replace(Pace::Over);
            tokio::select! {
                // those beside have done all they wanted
                () = pace.closed() => {}
                () = stop => cut_short = true,
            }
        }
        if cut_short {
            pace.send_replace(Pace::Stopped);
        }
        Ok((offered, cut_short))
    };
    let ((offered, cut_short), beside) = tokio::try_join!(offers, beside.run(paces, began))?;
    meta.ended_at = Some(clock::now());
    run.write_meta(&meta)?;

    let Offers {
        counts,
        last,
        times,
        stopped,
    } = offered;
    let offering = stopped.unwrap_or(schedule.length()).min(schedule.length());
    let answering = last.max(offering);
    let summary = Summary {
        run: run.id().clone(),
        load: plan.clone(),
        stopped: cut_short || counts.offered < schedule.count(),
        counts,
        offering_secs: offering.as_secs_f64(),
        answering_secs: answering.as_secs_f64(),
        offered_rate: rate(counts.offered, offering),
        accepted_rate: rate(counts.accepted, answering),
        accepted_us: Latency::of(&times),
        reads: beside.reads,
        leases: beside.leases,
    };
    let path = run.path(SUMMARY);
    std::fs::write(&path, serde_json::to_vec_pretty(&summary)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(summary)
}

/// What requests came to.
struct Offers {
    counts: Counts,
    last: Duration,
    times: Histogram<u64>,
    /// When it was stopped, if it was.
    stopped: Option<Duration>,
}

/// The requests alone.
#[expect(
    clippy::too_many_arguments,
    reason = "made for each other, and used once"
)]
async fn offer(
    plan: &Plan,
    schedule: Schedule,
    client: Client,
    stage: watch::Sender<Stage>,
    recorder: Recorder,
    began: Instant,
    mut progress: impl FnMut(&Progress),
    stop: impl Future<Output = ()>,
) -> Result<Offers> {
    let (way, mut due) = channel::unbounded_channel();
    let (notes, read) = mpsc::channel();
    let clerk = Clerk {
        recorder,
        schedule,
        poison: Poison::new(plan.seed, plan.poison, schedule.count()),
        messages: plan.batch,
        began,
    };
    let clerk = tokio::task::spawn_blocking(move || clerk.run(way, &read));
    let mut desk = Desk::new(began, notes, plan.patience)?;
    let mut in_flight = FuturesUnordered::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = pin!(stop);
    let mut grace = pin!(sleep(Duration::MAX));
    let (mut offering, mut stopped) = (true, None);
    loop {
        while in_flight.len() < plan.connections
            && let Some(offered) = desk.next()
        {
            in_flight.push(client.deliver(offered));
        }
        if !offering && in_flight.is_empty() {
            break;
        }
        tokio::select! {
            batch = due.recv(), if offering => match batch {
                Some(batch) if stopped.is_none() => desk.offer(&batch),
                // it is on record already, and too late to be sent
                Some(batch) => {
                    desk.offer(&batch);
                    desk.send_nothing_more();
                }
                None => offering = false,
            },
            Some(ended) = in_flight.next() => desk.settle(&ended),
            _ = ticks.tick() => {
                desk.give_up_waiting();
                desk.write();
                progress(&desk.progress(schedule.length(), in_flight.len()));
            }
            () = &mut stop, if stopped.is_none() => {
                stopped = Some(began.elapsed());
                let _ = desk.notes.send(Note::Stop);
                let _ = stage.send(Stage::Finish);
                desk.send_nothing_more();
                grace.set(sleep(GRACE));
            }
            () = &mut grace, if stopped.is_some() && *stage.borrow() < Stage::Cut => {
                let _ = stage.send(Stage::Cut);
            }
        }
    }
    desk.write();
    progress(&desk.progress(schedule.length(), 0));
    let (counts, last, times) = desk.end();
    clerk
        .await?
        .context("cannot write the record of requests")?;
    Ok(Offers {
        counts,
        last,
        times,
        stopped,
    })
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        return 0.0;
    }
    count as f64 / time.as_secs_f64()
}
