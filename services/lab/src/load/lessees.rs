//! Lessees: each leases a message, works on it for a while, and confirms. What it was told stands in `leases.log`
//! (`run/leased.rs`), each confirm before it is sent.
//!
//! The work of a lessee is a transaction that is committed only if the confirm is answered with yes; else it is rolled back.
//! Some are late on purpose: their lease ends while they work, so they roll back, but their confirm is on its way already and
//! arrives later still, when somebody else holds the message. A token tells that it is not the present holder's. By the id
//! alone it is taken for that, and the work of both is gone.
//!
//! The queue is the run's own. Lessees go when the load is over and the queue is empty.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use reqwest::{Client, header::ACCEPT};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::Plan;
use super::beside::Pace;
use super::body::is_poison;
use super::plan::Confirm;
use crate::run::RunDir;
use crate::run::leased::{Leased, Line, Went};
use crate::run::record::Recorder;
use crate::run::sight::Sight;

/// How long one look into the queue waits for a message.
const WAIT_MS: u64 = 1_000;
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// How long the queue may take to be made: its nodes may just have started.
const MAKE_LIMIT: Duration = Duration::from_secs(15);
/// The shortest and the longest time that the work takes.
const WORK_MS: std::ops::RangeInclusive<u64> = 20..=60;
/// How long a late confirm waits for somebody who holds the message, after its own lease.
const LATE_LIMIT: Duration = Duration::from_secs(10);
/// Nobody got anything for so long, and a lease more: something is in the queue that does not come out.
const TIRED: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// What lessees did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {
    pub leased: u64,
    /// In time and answered with yes: the effects.
    pub confirmed: u64,
    /// In time by their own count, and answered with no: rolled back.
    pub refused: u64,
    /// Nobody knows.
    pub unknown: u64,
    /// Late on purpose, and of those the ones that were taken all the same.
    pub late: u64,
    pub late_taken: u64,
}

#[derive(Deserialize)]
struct Got {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    id: Uuid,
    body: Value,
    token: Uuid,
    receive_count: u32,
}

#[derive(Deserialize)]
struct Queues {
    queues: Vec<Queue>,
}

/// How full a queue is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Queue {
    pub name: String,
    pub ready: u64,
    pub leased: u64,
    pub dead: u64,
}

impl Queue {
    /// The one of this name. That it is not there is an error: nothing is known of it then.
    pub async fn ask(client: &Client, gateway: &str, name: &str) -> Result<Self> {
        let ask = client.get(format!("{gateway}/leases/queues?name={name}"));
        let ask = ask.header(ACCEPT, "application/json").timeout(ASK_LIMIT);
        let answer = ask
            .send()
            .await
            .and_then(reqwest::Response::error_for_status);
        let found: Queues = answer
            .map_err(reqwest::Error::without_url)
            .with_context(|| format!("the lease queue {name} cannot be seen"))?
            .json()
            .await?;
        let mut queues = found.queues.into_iter();
        let queue = queues.find(|queue| queue.name == name);
        queue.with_context(|| format!("there is no lease queue {name}"))
    }

    /// Messages that are not confirmed and not given up on.
    pub fn left(&self) -> u64 {
        self.ready + self.leased
    }
}

/// Who leases.
pub(super) struct Lessees {
    client: Client,
    gateway: String,
    /// The queue's own address, and its name.
    queue: String,
    name: String,
    count: usize,
    late: u64,
    confirm: Confirm,
    lease: Duration,
    began: Instant,
    record: Mutex<Recorder<Line>>,
    next: AtomicU64,
    tally: Mutex<Tally>,
}

/// What they know together.
struct Tally {
    leases: Leases,
    /// Who waits until somebody else holds a message.
    awaited: HashMap<Uuid, Vec<oneshot::Sender<()>>>,
    /// When somebody last got something.
    got: Instant,
}

impl Lessees {
    /// Makes the queue.
    pub(super) async fn prepare(plan: &Plan, sight: &Sight, run: &RunDir) -> Result<Self> {
        let name = run.id().to_string();
        let lessees = Self {
            client: Client::new(),
            gateway: sight.gateway.clone(),
            queue: format!("{}/leases/queues/{name}", sight.gateway),
            name,
            count: plan.lessees(),
            late: plan.late,
            confirm: plan.confirm,
            lease: plan.lease,
            began: Instant::now(),
            record: Mutex::new(Recorder::create(run).context("cannot begin the record of leases")?),
            next: AtomicU64::new(0),
            tally: Mutex::new(Tally {
                leases: Leases::default(),
                awaited: HashMap::new(),
                got: Instant::now(),
            }),
        };
        lessees.make(plan).await?;
        Ok(lessees)
    }

    async fn make(&self, plan: &Plan) -> Result<()> {
        let lease_ms = u64::try_from(plan.lease.as_millis()).unwrap_or(u64::MAX);
        let settings = json!({"lease_ms": lease_ms, "max_receives": plan.max_receives});
        let begun = Instant::now();
        loop {
            let put = self.client.put(&self.queue).json(&settings);
            let why = match put.timeout(ASK_LIMIT).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => answer.status().to_string(),
                Err(error) => error.without_url().to_string(),
            };
            if begun.elapsed() > MAKE_LIMIT {
                bail!("the queue {} cannot be made: {why}", self.name);
            }
            sleep(PAUSE).await;
        }
    }

    /// Until the queue is empty after the load, or nobody waits for that.
    pub(super) async fn run(
        mut self,
        pace: watch::Receiver<Pace>,
        began: Instant,
    ) -> Result<Leases> {
        self.began = began;
        let this = &self;
        let (gone, goes) = watch::channel(None);
        let ends = async {
            let mut pace = pace;
            // a load that is gone wants nothing more
            let now = pace.wait_for(|pace| *pace >= Pace::Over).await;
            let why = if now.map_or(true, |now| *now == Pace::Stopped) {
                Went::Stopped
            } else {
                tokio::select! {
                    why = this.empty() => why,
                    () = Pace::stopped(pace) => Went::Stopped,
                }
            };
            gone.send_replace(Some(why));
            Ok::<_, anyhow::Error>(why)
        };
        let each = (0..this.count).map(|lessee| this.lessee(lessee, goes.clone()));
        let (why, _) = tokio::try_join!(ends, try_join_all(each))?;
        let told_us = this.us(Instant::now());
        this.note(Line::Went { why, told_us })?;
        Ok(lock(&this.tally).leases)
    }

    /// Waits until nothing is in the queue, or nothing comes out of it.
    async fn empty(&self) -> Went {
        lock(&self.tally).got = Instant::now();
        loop {
            let seen = Queue::ask(&self.client, &self.gateway, &self.name).await;
            let left = seen.ok().map(|queue| queue.left());
            let why = why_to_go(
                left,
                Instant::now(),
                &mut lock(&self.tally).got,
                TIRED + self.lease,
            );
            if let Some(why) = why {
                return why;
            }
            sleep(PAUSE).await;
        }
    }

    async fn lessee(&self, lessee: usize, mut goes: watch::Receiver<Option<Went>>) -> Result<()> {
        let lessee = u32::try_from(lessee).unwrap_or(u32::MAX);
        while goes.borrow().is_none() {
            let asked = Instant::now();
            let got = tokio::select! {
                got = self.ask() => got,
                _ = goes.wait_for(Option::is_some) => return Ok(()),
            };
            let told = Instant::now();
            let Some(got) = got else {
                sleep(PAUSE).await;
                continue;
            };
            for message in got.messages {
                self.deal(lessee, &message, asked, told, &mut goes).await?;
            }
        }
        Ok(())
    }

    async fn ask(&self) -> Option<Got> {
        let url = format!("{}?amount=1&wait_ms={WAIT_MS}", self.queue);
        let ask = self.client.get(url).timeout(ASK_LIMIT);
        let answer = ask.send().await.ok()?.error_for_status().ok()?;
        answer.json().await.ok()
    }

    /// All that becomes of one lease.
    async fn deal(
        &self,
        lessee: u32,
        message: &Message,
        asked: Instant,
        told: Instant,
        goes: &mut watch::Receiver<Option<Went>>,
    ) -> Result<()> {
        let lease = self.next.fetch_add(1, Ordering::Relaxed);
        let ours = message.body["run"].as_str() == Some(&self.name);
        let number = message.body["number"].as_u64().filter(|_| ours);
        self.note(Line::Leased(Leased {
            lease,
            lessee,
            id: message.id,
            number,
            count: message.receive_count,
            ms: u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX),
            asked_us: self.us(asked),
            told_us: self.us(told),
        }))?;
        let late = message.receive_count == 1
            && number.is_some_and(|number| self.late > 0 && number % self.late == 0);
        let found = {
            let mut tally = lock(&self.tally);
            tally.got = Instant::now();
            tally.leases.leased += 1;
            for waits in tally.awaited.remove(&message.id).unwrap_or_default() {
                // one who has given up does not hear it
                let _ = waits.send(());
            }
            late.then(|| {
                let (holds, found) = oneshot::channel();
                tally.awaited.entry(message.id).or_default().push(holds);
                found
            })
        };
        if message.body["text"].as_str().is_some_and(is_poison) {
            // its work fails: rolled back, and nobody says anything
            return Ok(());
        }
        let work = async {
            match found {
                None => sleep(Duration::from_millis(rand::random_range(WORK_MS))).await,
                Some(found) => {
                    // however early the lease began, it is over then
                    sleep((told + self.lease).saturating_duration_since(Instant::now())).await;
                    let _ = timeout(LATE_LIMIT, found).await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            // rolled back; the lease ends by itself
            _ = goes.wait_for(|gone| *gone == Some(Went::Stopped)) => return Ok(()),
        }
        let late_now = Instant::now();
        self.note(Line::Confirms {
            lease,
            late,
            asked_us: self.us(late_now),
        })?;
        let status = self.say(message).await;
        self.note(Line::Answered {
            lease,
            status,
            told_us: self.us(Instant::now()),
        })?;
        let mut tally = lock(&self.tally);
        let leases = &mut tally.leases;
        match (late, status) {
            (true, status) => {
                leases.late += 1;
                leases.late_taken += u64::from(status == 204);
            }
            (false, 204) => leases.confirmed += 1,
            (false, 404) => leases.refused += 1,
            (false, _) => leases.unknown += 1,
        }
        Ok(())
    }

    /// Confirms; the status, or 0 without an answer.
    async fn say(&self, message: &Message) -> u16 {
        let mut url = format!("{}/{}", self.queue, message.id);
        if self.confirm == Confirm::Token {
            url = format!("{url}?token={}", message.token);
        }
        let answer = self.client.patch(url).timeout(ASK_LIMIT).send().await;
        answer.map_or(0, |answer| answer.status().as_u16())
    }

    fn us(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn note(&self, line: Line) -> Result<()> {
        let noted = lock(&self.record).append(&[line]);
        noted.context("cannot write the record of leases")
    }
}

/// Whether to go, and why, if so much is left (none: it cannot be known) and somebody last got something at this time. Only
/// time in which the queue can be asked makes tired.
fn why_to_go(
    left: Option<u64>,
    now: Instant,
    got: &mut Instant,
    patience: Duration,
) -> Option<Went> {
    match left {
        Some(0) => return Some(Went::Dry),
        Some(_) => {}
        None => *got = now,
    }
    (now.saturating_duration_since(*got) > patience).then_some(Went::Tired)
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_queue_that_answers_makes_tired() {
        let began = Instant::now();
        let at = |second| began + Duration::from_secs(second);
        let (mut got, patience) = (began, Duration::from_secs(30));
        let mut go = |left, second| why_to_go(left, at(second), &mut got, patience);
        assert_eq!(go(Some(3), 30), None);
        // away from here on
        assert_eq!(go(None, 31), None);
        assert_eq!(go(None, 500), None);
        assert_eq!(go(Some(3), 530), None);
        assert_eq!(go(Some(3), 531), Some(Went::Tired));
        assert_eq!(go(Some(0), 532), Some(Went::Dry));
    }
}
