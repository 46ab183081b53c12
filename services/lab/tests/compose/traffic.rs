//! Offered load: so many requests a second whatever the answers take, half of them messages, the others pages.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

pub(crate) struct Traffic {
    stop: oneshot::Sender<()>,
    load: JoinSet<Report>,
}

#[derive(Default)]
pub(crate) struct Report {
    pub(crate) requests: usize,
    /// The texts of all messages that were answered with 202; each request has its own.
    pub(crate) accepted: BTreeSet<String>,
    /// Every request that was answered in any other way than it should be.
    pub(crate) failed: Vec<String>,
    pub(crate) slowest: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, accepted, failed) = (self.requests, self.accepted.len(), self.failed.len());
        let slowest = self.slowest;
        write!(
            f,
            "{requests} requests, {accepted} messages accepted, {failed} failed, slowest {slowest:.1?}"
        )
    }
}

/// What came of one request: the text that was accepted, if it was a message.
struct Outcome {
    result: Result<Option<String>, String>,
    took: Duration,
}

impl Traffic {
    pub(crate) fn start(base: String, run: &'static str, per_second: u32) -> Traffic {
        let (stop, stopped) = oneshot::channel();
        let mut load = JoinSet::new();
        load.spawn(offer(base, run, per_second, stopped));
        Traffic { stop, load }
    }

    /// Sends nothing more and waits for all answers.
    pub(crate) async fn stop(mut self) -> Report {
        // it is still there: the load only ends when told
        let _ = self.stop.send(());
        self.load
            .join_next()
            .await
            .expect("the load")
            .expect("no panic in it")
    }
}

async fn offer(
    base: String,
    run: &'static str,
    per_second: u32,
    mut stopped: oneshot::Receiver<()>,
) -> Report {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .build()
        .expect("a client");
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    let mut report = Report::default();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => {
                let number = report.requests;
                report.requests += 1;
                under_way.spawn(request(client.clone(), base.clone(), run, number));
            }
            Some(outcome) = under_way.join_next() => report.add(outcome.expect("no panic in it")),
        }
    }
    while let Some(outcome) = under_way.join_next().await {
        report.add(outcome.expect("no panic in it"));
    }
    report
}

impl Report {
    fn add(&mut self, outcome: Outcome) {
        self.slowest = self.slowest.max(outcome.took);
        match outcome.result {
            Ok(text) => self.accepted.extend(text),
            Err(what) => self.failed.push(what.chars().take(500).collect()),
        }
    }
}

async fn request(client: reqwest::Client, base: String, run: &str, number: usize) -> Outcome {
    let started = Instant::now();
    let result = match number % 4 {
        0 => page(&client, format!("{base}/")).await,
        2 => page(&client, format!("{base}/received")).await,
        _ => message(&client, &base, run, number).await,
    };
    let took = started.elapsed();
    Outcome {
        result: result.map_err(|what| format!("request {number} after {took:.1?}: {what}")),
        took,
    }
}

async fn page(client: &reqwest::Client, url: String) -> Result<Option<String>, String> {
    let answer = client.get(url).send().await.map_err(explain)?;
    let status = answer.status();
    let body = answer.text().await.map_err(explain)?;
    if status == 200 {
        Ok(None)
    } else {
        Err(format!("{status}: {body}"))
    }
}

async fn message(
    client: &reqwest::Client,
    base: &str,
    run: &str,
    number: usize,
) -> Result<Option<String>, String> {
    let text = format!("{run} {number}");
    let answer = client
        .post(format!("{base}/api/messages"))
        .header("idempotency-key", format!("{run}-{number}"))
        .header("x-run", run)
        .json(&serde_json::json!({ "message": text }))
        .send()
        .await
        .map_err(explain)?;
    let status = answer.status();
    let body = answer.text().await.map_err(explain)?;
    if status == 202 {
        Ok(Some(text))
    } else {
        Err(format!("{status}: {body}"))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn explain(error: reqwest::Error) -> String {
    format!("{error:?}")
}

/// An answer of the gateway itself.
pub(crate) async fn assert_answer(answer: reqwest::Response, status: u16, kind: &str, says: &str) {
    let (found, headers) = (answer.status(), answer.headers().clone());
    let body = answer.text().await.expect("a body");
    assert_eq!(found, status, "{body}");
    let found = headers
        .get("content-type")
        .is_some_and(|found| found.as_bytes().starts_with(kind.as_bytes()));
    assert!(found, "{headers:?}");
    assert!(body.contains(says), "{body}");
}
