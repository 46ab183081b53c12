//! Where the rows of runs are, and whether a copy of a message may still be under way there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::time::sleep;

use crate::run::{Job, Meta, RunDir};
use crate::say::Usage;
use crate::stack::control::{self, Request};
use crate::status::Status;

const ASK_LIMIT: Duration = Duration::from_secs(5);
/// The broker counts its queues every five seconds: two answers so far apart are of two counts.
const COUNTED_ANEW: Duration = Duration::from_secs(6);

/// A ledger, and the broker of its stack.
pub(super) struct Place {
    pub(super) url: String,
    /// Which ledger it is; none: it does not say.
    pub(super) identity: Option<String>,
    /// None: nobody said which broker it is.
    management: Option<String>,
}

impl Place {
    /// The ledger that was named, else that of the stack that runs here. None: no stack was ever here.
    pub(super) async fn find(root: &Path, url: Option<&str>) -> Result<Option<Self>> {
        if let Some(url) = url {
            return Ok(Some(Self {
                url: url.to_owned(),
                identity: None,
                management: None,
            }));
        }
        if !root.join("secrets.json").is_file() {
            return Ok(None);
        }
        let answer = control::ask(root, &Request::Status, &|_: &str| {}).await;
        let answer = answer.map_err(|error| {
            Usage(format!(
                "{error:#}; the runs have rows in its ledger, so it must be up"
            ))
        })?;
        let status: Status =
            serde_json::from_value(answer).context("the stack that runs is of another version")?;
        Ok(Some(Self {
            url: status.postgres.url,
            identity: None,
            management: status.rabbitmq.management,
        }))
    }

    /// Whether all queues look empty, by a count that may be some seconds old.
    pub(super) async fn looks_quiet(&self) -> bool {
        match &self.management {
            Some(management) => waiting(management).await == Some(0),
            None => false,
        }
    }

    /// Whether all queues are empty, and stayed so from one count of the broker to the next.
    pub(super) async fn is_quiet(&self) -> bool {
        self.stays_quiet(COUNTED_ANEW).await
    }

    async fn stays_quiet(&self, so_long: Duration) -> bool {
        if !self.looks_quiet().await {
            return false;
        }
        sleep(so_long).await;
        self.looks_quiet().await
    }
}

/// Whether the messages of a run are in another ledger than this one, as far as both are known.
pub(super) fn is_elsewhere(run: &RunDir, here: Option<&Place>) -> bool {
    let theirs = run.meta().ok().and_then(own_ledger);
    match (theirs, here) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(theirs), Some(here)) => here.identity.as_ref().is_some_and(|here| *here != theirs),
    }
}

/// What a run is of whose rows nobody removes; none: of messages, or its rows went with it.
pub(super) fn of_others(run: &RunDir) -> Option<Job> {
    let meta = run.meta().ok()?;
    let job = meta.job();
    (job != Job::Messages && !went_along(&meta)).then_some(job)
}

/// The ledger that still has its rows; none: not known, or it went with the run.
fn own_ledger(meta: Meta) -> Option<String> {
    let gone = went_along(&meta);
    meta.ledger.filter(|_| !gone)
}

/// Whether its ledger went with the run, as that of an experiment with a database of its own does.
fn went_along(meta: &Meta) -> bool {
    let gone = format!("/{}", meta.run.scene());
    meta.ledger
        .as_ref()
        .is_some_and(|ledger| ledger.ends_with(&gone))
}

/// Messages in all queues of the broker; none: it cannot be asked.
async fn waiting(management: &str) -> Option<u64> {
    let mut url: reqwest::Url = management.parse().ok()?;
    url.path_segments_mut()
        .ok()?
        .pop_if_empty()
        .extend(["api", "queues"]);
    let answer = reqwest::Client::new()
        .get(url)
        .timeout(ASK_LIMIT)
        .send()
        .await
        .ok()?;
    let queues: Vec<Value> = answer.error_for_status().ok()?.json().await.ok()?;
    // a queue that does not say how many it holds may hold some
    queues.iter().map(|queue| queue["messages"].as_u64()).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;
    use crate::load::Plan;
    use crate::run::tests::Root;

    /// A broker that counts so many messages in its only queue, one answer after the other; none: it does not say.
    async fn broker(tasks: &mut JoinSet<()>, answers: Vec<Option<u64>>) -> Place {
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let queues = move || {
            let answer = answers.lock().unwrap().pop_front().unwrap();
            async move { Json(json!([{"name": "messages", "messages": answer}])) }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let management = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/api/queues", get(queues));
        tasks.spawn(async { axum::serve(listener, router).await.unwrap() });
        Place {
            url: String::new(),
            identity: None,
            management: Some(management),
        }
    }

    #[tokio::test]
    async fn queues_are_empty_when_two_counts_say_so() {
        let mut tasks = JoinSet::new();
        for (answers, quiet) in [
            (vec![Some(0), Some(0)], true),
            (vec![Some(0), Some(3)], false),
            (vec![Some(3), Some(0)], false),
            (vec![Some(0), None], false),
        ] {
            let place = broker(&mut tasks, answers.clone()).await;
            assert_eq!(
                place.stays_quiet(Duration::ZERO).await,
                quiet,
                "{answers:?}"
            );
        }
    }

    #[test]
    fn a_run_of_another_job_is_left_alone_unless_its_rows_went_with_it() {
        let root = Root::new();
        let run = root.run("r1");
        let of = |to: Option<Job>, ledger: Option<&str>| {
            let mut meta = run.meta().unwrap();
            meta.load = to.map(|to| Plan {
                to,
                ..Plan::default()
            });
            meta.ledger = ledger.map(str::to_owned);
            run.write_meta(&meta).unwrap();
            of_others(&run)
        };
        assert_eq!(of(None, None), None);
        assert_eq!(of(Some(Job::Messages), Some("7/unacked")), None);
        for job in [Job::Notes, Job::Leases, Job::Signup] {
            assert_eq!(of(Some(job), Some("7/unacked")), Some(job));
            assert_eq!(of(Some(job), None), Some(job));
            assert_eq!(of(Some(job), Some("7/run-r1")), None);
        }
    }

    #[test]
    fn only_the_ledger_that_a_run_was_offered_to_has_its_rows() {
        let root = Root::new();
        let run = root.run("r1");
        let here = |identity: Option<&str>| Place {
            url: String::new(),
            identity: identity.map(str::to_owned),
            management: None,
        };
        let (this, mute) = (here(Some("7/unacked")), here(None));
        let elsewhere = |ledger: Option<&str>| {
            let mut meta = run.meta().unwrap();
            meta.ledger = ledger.map(str::to_owned);
            run.write_meta(&meta).unwrap();
            [Some(&this), Some(&mute), None].map(|place| is_elsewhere(&run, place))
        };
        assert_eq!(elsewhere(None), [false, false, false]);
        assert_eq!(elsewhere(Some("7/unacked")), [false, false, true]);
        assert_eq!(elsewhere(Some("8/unacked")), [true, false, true]);
        // it went with the run
        assert_eq!(elsewhere(Some("8/run-r1")), [false, false, false]);
        assert_eq!(elsewhere(Some("8/run-r2")), [true, false, true]);
    }
}
