//! How fast the lease queue is: pushes, leases of ten, confirms, and all three in turn, on one node; and whether a lease costs
//! more with much ready, or after much has passed through.
//!
//! Without the gateway: each connection asks the node itself, its next request when the last one is answered. Every answer
//! must be the right one; a lease that brings fewer than it was asked for is not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::http::{Answer, Connection};
use super::sheet::{Unit, real};
use super::stage::Scene;
use super::{Course, Scenario};
use crate::load::Latency;
use crate::stack::Plan;
use crate::stack::node::Service;

const CONNECTIONS: usize = 64;
/// Messages of one lease, where many are wanted.
const TEN: usize = 10;
/// Messages of one request that fills or empties a queue.
const MANY: u64 = 1_000;
/// Longer than anything here takes.
const HELD_MS: u64 = 3_600_000;
/// What comes back while leases are measured, as it does by default.
const USUAL_MS: u64 = 1_000;
/// Connections that fill or empty a queue.
const FEW: usize = 8;

/// A message in hand.
#[derive(Debug, Deserialize)]
struct Leased {
    id: String,
    token: String,
}

#[derive(Deserialize)]
struct Leases {
    messages: Vec<Leased>,
}

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

/// One queue of one node.
struct Queue {
    node: SocketAddr,
    path: String,
    /// Bytes of a body.
    text: usize,
    body: Bytes,
}

impl Queue {
    fn new(node: SocketAddr, path: &str, text: usize) -> Self {
        let letters: String = ('a'..='z').cycle().take(text).collect();
        Self {
            node,
            path: path.to_owned(),
            text,
            body: Bytes::from(format!("{{\"text\":\"{letters}\"}}")),
        }
    }

    /// Another one of the same node.
    fn at(&self, path: &str) -> Self {
        Self {
            path: path.to_owned(),
            body: self.body.clone(),
            ..*self
        }
    }

    async fn make(&self) -> Result<()> {
        let mut connection = Connection::to(self.node)?;
        let settings = Bytes::from_static(b"{\"lease_ms\":1000,\"max_receives\":0}");
        let made = connection
            .ask(request(Method::PUT, &self.path, settings)?)
            .await?;
        ensure!(
            made.status.is_success(),
            "no queue was made: {}",
            said(&made)
        );
        Ok(())
    }

    async fn push(&self, connection: &mut Connection) -> Result<()> {
        let pushed = request(Method::POST, &self.path, self.body.clone())?;
        right(&connection.ask(pushed).await?, StatusCode::CREATED)
    }

    async fn lease(
        &self,
        connection: &mut Connection,
        amount: usize,
        lease_ms: u64,
    ) -> Result<Vec<Leased>> {
        let path = format!("{}?amount={amount}&lease_ms={lease_ms}", self.path);
        let answer = connection
            .ask(request(Method::GET, &path, Bytes::new())?)
            .await?;
        right(&answer, StatusCode::OK)?;
        let leases: Leases = serde_json::from_slice(&answer.body)?;
        Ok(leases.messages)
    }

    async fn confirm(&self, connection: &mut Connection, message: &Leased) -> Result<()> {
        let path = format!("{}/{}?token={}", self.path, message.id, message.token);
        let answer = connection
            .ask(request(Method::PATCH, &path, Bytes::new())?)
            .await?;
        right(&answer, StatusCode::NO_CONTENT)
    }

    /// So many more.
    async fn fill(&self, count: u64) -> Result<()> {
        let path = format!("{}/batch", self.path);
        let shares = shares(count);
        let mut filling = JoinSet::new();
        for share in shares {
            let (node, path, body) = (self.node, path.clone(), self.body.clone());
            filling.spawn(async move {
                let mut connection = Connection::to(node)?;
                let mut left = share;
                while left > 0 {
                    let many = left.min(MANY);
                    left -= many;
                    let mut batch = Vec::from(*b"[");
                    for place in 0..many {
                        if place > 0 {
                            batch.push(b',');
                        }
                        batch.extend_from_slice(&body);
                    }
                    batch.push(b']');
                    let pushed = request(Method::POST, &path, batch.into())?;
                    right(&connection.ask(pushed).await?, StatusCode::CREATED)?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(filled) = filling.join_next().await {
            filled.context("a connection died")??;
        }
        Ok(())
    }

    /// Leases all that are ready, which must be so many, for long.
    async fn take_all(&self, count: u64) -> Result<Vec<Leased>> {
        let mut connection = Connection::to(self.node)?;
        let mut all = Vec::new();
        loop {
            let many = usize::try_from(MANY)?;
            let mut taken = self.lease(&mut connection, many, HELD_MS).await?;
            if taken.is_empty() {
                break;
            }
            all.append(&mut taken);
        }
        let there = all.len() as u64;
        ensure!(
            there == count,
            "{there} of {count} messages could be leased"
        );
        Ok(all)
    }

    /// Has so many pushed, leased and confirmed.
    async fn pass(&self, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let many = left.min(100 * MANY);
            left -= many;
            self.fill(many).await?;
            let all = self.take_all(many).await?;
            let mut lots: Vec<Vec<Leased>> = (0..CONNECTIONS).map(|_| Vec::new()).collect();
            for (place, message) in all.into_iter().enumerate() {
                lots[place % CONNECTIONS].push(message);
            }
            let mut confirming = JoinSet::new();
            for lot in lots {
                let queue = self.at(&self.path);
                confirming.spawn(async move {
                    let mut connection = Connection::to(queue.node)?;
                    for message in lot {
                        queue.confirm(&mut connection, &message).await?;
                    }
                    anyhow::Ok(())
                });
            }
            while let Some(confirmed) = confirming.join_next().await {
                confirmed.context("a connection died")??;
            }
        }
        Ok(())
    }

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

/// A part for each connection, of a number of messages.
fn shares(count: u64) -> Vec<u64> {
    let few = FEW as u64;
    (0..few)
        .map(|place| count / few + u64::from(place < count % few))
        .collect()
}

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
    Ok(Request::builder()
        .method(method)
        .uri(path)
        .body(Full::new(body))?)
}

fn right(answer: &Answer, wanted: StatusCode) -> Result<()> {
    ensure!(answer.status == wanted, "an answer was {}", said(answer));
    Ok(())
}

fn said(answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    format!(
        "{}: {}",
        answer.status,
        body.chars().take(200).collect::<String>()
    )
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
    fn shares_add_up_to_the_whole() {
        for count in [0, 1, 7, 8, 1_000_003] {
            let shares = shares(count);
            assert_eq!(shares.iter().sum::<u64>(), count);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }

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
