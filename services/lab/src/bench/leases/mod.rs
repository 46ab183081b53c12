//! How fast the lease queue is: pushes, leases of ten, confirms, and all three in turn, on one node; and whether a lease costs
//! more with much ready, or after much has passed through.
//!
//! Without the gateway: each connection asks the node itself, its next request when the last one is answered. Every answer
//! must be the right one; a lease that brings fewer than it was asked for is not.

mod queue;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::http::Connection;
use super::sheet::{Unit, real};
use super::stage::Scene;
use super::{Course, Scenario};
use crate::load::Latency;
use crate::stack::Plan;
use crate::stack::node::Service;
use queue::{HELD_MS, Leased, Queue};

const CONNECTIONS: usize = 64;
/// Messages of one lease, where many are wanted.
const TEN: usize = 10;
/// What comes back while leases are measured, as it does by default.
const USUAL_MS: u64 = 1_000;

/// What one connection does again and again.
enum Deed {
    Push,
    Lease,
    /// Until there are none left.
    Confirm(Vec<Leased>),
    /// Push one, lease one, confirm it.
    Cycle,
}

/// All of it.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let scene = course
        .stage
        .scene_of(
            Plan::from([(Service::Leases, 1)]),
            super::stage::Settings::new(),
        )
        .await?;
    let begun = Instant::now();
    let node = scene.node(Service::Leases)?;
    let queue = Queue::new(node, "/queues/pushed", course.size.text);
    queue.make().await?;
    let each = |deed: fn() -> Deed| (0..CONNECTIONS).map(move |_| deed());
    let pushed = queue.drive(course, each(|| Deed::Push)).await?;
    told(course, "pushes", &pushed.all);

    // enough that ten are always ready, also while those of the last second are in hand
    let ready = queue.at("/queues/leased");
    ready.make().await?;
    ready.fill(course.size.leased).await?;
    let leased = ready.drive(course, each(|| Deed::Lease)).await?;
    told(course, &format!("leases of {TEN}"), &leased.all);

    let held = queue.at("/queues/held");
    held.make().await?;
    held.fill(course.size.leased).await?;
    let mut lots: Vec<Vec<Leased>> = (0..CONNECTIONS).map(|_| Vec::new()).collect();
    for (place, message) in held
        .take_all(course.size.leased)
        .await?
        .into_iter()
        .enumerate()
    {
        lots[place % CONNECTIONS].push(message);
    }
    let confirmed = held
        .drive(course, lots.into_iter().map(Deed::Confirm))
        .await?;
    told(course, "confirms", &confirmed.all);

    let cycle = queue.at("/queues/cycle");
    cycle.make().await?;
    let cycles = cycle.drive(course, each(|| Deed::Cycle)).await?;
    told(course, "push, lease and confirm in turn", &cycles.all);
    course.said(begun, "leases");
    behind(course, &scene, &queue).await
}

/// The same in turn before so many ready ones; then after so many have passed through.
async fn behind(course: &mut Course<'_>, scene: &Scene<'_>, queue: &Queue) -> Result<()> {
    let node = scene.node(Service::Leases)?;
    let rows = course.size.rows;
    for (place, ready) in rows.iter().enumerate() {
        let begun = Instant::now();
        let queue = queue.at(&format!("/queues/ready-{ready}"));
        queue.make().await?;
        queue.fill(*ready).await?;
        let outcome = queue
            .drive(course, (0..CONNECTIONS).map(|_| Deed::Cycle))
            .await?;
        let name = format!("in turn, {ready} ready");
        told(course, &name, &outcome.all);
        let lease = outcome.leases.summed().context("nothing was leased")?;
        course.sheet.latency(
            Scenario::Leases,
            &format!("of that the lease, {ready} ready"),
            Some(lease),
        );
        let role = match place {
            0 => "lease-few",
            last if last + 1 == rows.len() => "lease-behind",
            _ => "lease-between",
        };
        course.sheet.role(role, course.round, real(lease.p50));
        course.said(begun, &format!("leases: {ready} ready"));
    }
    let begun = Instant::now();
    let queue = Queue::new(node, "/queues/passed", queue.text);
    queue.make().await?;
    let passed = course.size.passed;
    queue.pass(passed).await?;
    let outcome = queue
        .drive(course, (0..CONNECTIONS).map(|_| Deed::Cycle))
        .await?;
    let name = format!("in turn, after {passed} have passed through");
    told(course, &name, &outcome.all);
    let lease = outcome.leases.summed().context("nothing was leased")?;
    course
        .sheet
        .role("lease-passed", course.round, real(lease.p50));
    course.said(begun, &format!("leases: {passed} passed through"));
    Ok(())
}

fn told(course: &mut Course<'_>, what: &str, times: &Times) {
    let name = format!("{what}, {CONNECTIONS} connections");
    course
        .sheet
        .add(Scenario::Leases, &name, Unit::PerSecond, times.rate());
    course
        .sheet
        .latency(Scenario::Leases, &name, times.summed());
}

impl Queue {
    /// Each deed on a connection of its own, as fast as it goes.
    async fn drive(
        &self,
        course: &Course<'_>,
        deeds: impl Iterator<Item = Deed>,
    ) -> Result<Driven> {
        let (warm, length) = (course.size.warm, course.size.window);
        let began = Instant::now();
        let mut driving = JoinSet::new();
        for deed in deeds {
            let queue = self.at(&self.path);
            driving.spawn(queue.one(deed, began, warm, warm + length));
        }
        let mut driven = Driven::new()?;
        while let Some(part) = driving.join_next().await {
            driven.add(&part.context("a connection died")??)?;
        }
        ensure!(
            !driven.all.times.is_empty(),
            "nothing was done after the warm-up"
        );
        Ok(driven)
    }

    /// One connection's part.
    async fn one(
        self,
        mut deed: Deed,
        began: Instant,
        warm: Duration,
        end: Duration,
    ) -> Result<Driven> {
        let mut connection = Connection::to(self.node)?;
        let mut driven = Driven::new()?;
        while began.elapsed() < end {
            let from = Instant::now();
            let mut lease = None;
            match &mut deed {
                Deed::Push => self.push(&mut connection).await?,
                Deed::Lease => {
                    let got = self.lease(&mut connection, TEN, USUAL_MS).await?;
                    ensure!(got.len() == TEN, "a lease brought {} of {TEN}", got.len());
                }
                Deed::Confirm(lot) => match lot.pop() {
                    Some(message) => self.confirm(&mut connection, &message).await?,
                    None => break,
                },
                Deed::Cycle => {
                    self.push(&mut connection).await?;
                    let at = Instant::now();
                    let got = self.lease(&mut connection, 1, HELD_MS).await?;
                    lease = Some(at.elapsed());
                    let [message] = got.as_slice() else {
                        bail!("a lease brought {} of 1", got.len());
                    };
                    self.confirm(&mut connection, message).await?;
                }
            }
            let ended = began.elapsed();
            if ended >= warm && ended <= end {
                driven.all.note(from.elapsed(), ended.saturating_sub(warm));
                if let Some(lease) = lease {
                    driven.leases.note(lease, ended.saturating_sub(warm));
                }
            }
        }
        Ok(driven)
    }
}

/// How long each took, in microseconds, and until when that was.
struct Times {
    times: Histogram<u64>,
    last: Duration,
}

impl Times {
    fn note(&mut self, took: Duration, at: Duration) {
        // a histogram that grows by itself takes any value
        let _ = self
            .times
            .record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.last = self.last.max(at);
    }

    fn rate(&self) -> f64 {
        real(self.times.len()) / self.last.as_secs_f64().max(1e-9)
    }

    fn summed(&self) -> Option<Latency> {
        Latency::of(&self.times)
    }
}

/// What was done, and of that the leases of what was done in turn.
struct Driven {
    all: Times,
    leases: Times,
}

impl Driven {
    fn new() -> Result<Self> {
        let times = || -> Result<Times> {
            Ok(Times {
                times: Histogram::new(3)?,
                last: Duration::ZERO,
            })
        };
        Ok(Self {
            all: times()?,
            leases: times()?,
        })
    }

    fn add(&mut self, part: &Self) -> Result<()> {
        for (sum, part) in [(&mut self.all, &part.all), (&mut self.leases, &part.leases)] {
            sum.times.add(&part.times)?;
            sum.last = sum.last.max(part.last);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_counts_until_the_last_one() {
        let mut driven = Driven::new().unwrap();
        for (ms, at) in [(5, 500), (7, 1_000), (9, 2_000)] {
            driven
                .all
                .note(Duration::from_millis(ms), Duration::from_millis(at));
        }
        assert!((driven.all.rate() - 1.5).abs() < 1e-9);
        let times = driven.all.summed().unwrap();
        assert!((6_990..=7_010).contains(&times.p50), "{times:?}");
    }
}
