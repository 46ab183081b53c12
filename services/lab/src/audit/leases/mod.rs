//! What became of messages that were leased: from outside, by what lessees were told, and by the queue's dead letters.
//!
//! An effect is a confirm that was answered with yes and whose lessee had not rolled back by then. One that was answered by
//! nobody may or may not have been taken. When nothing of its message is left, no other confirm took it away, it is no dead
//! letter and was not leased again after that, it was.
//!
//! `book.rs` has what lessees were told, with the proof of two holders at one time.

mod book;

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use daemon::clock;
use reqwest::Client;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::merge::{Dead, DeadRow, MessageRow};
use super::source::{Held, after, zero};
use crate::run::requests::{self, Line as Request};
use crate::run::{Meta, RunDir, RunId};
pub use book::Book;
use book::broken;

const ASK_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// All of it, as who is behind this gateway tells it.
pub(super) async fn hold(gateway: &str, run: &RunDir, meta: &Meta, drained: bool) -> Result<Held> {
    let zero = zero(meta)?;
    let taken_at = clock::now();
    let letters = letters(gateway, run.id()).await?;
    let book = Book::read(run).context("cannot read the record of leases")?;
    let messages = messages(run, &book, &letters, zero)?;
    let given_up: HashSet<Uuid> = letters.iter().map(|letter| letter.id).collect();
    let dead = letters.iter().map(|letter| DeadRow {
        id: letter.id,
        dead_us: letter.dead_at.timestamp_micros(),
        now: Dead::Parked,
    });
    Ok(Held {
        taken_at,
        messages,
        effects: book.effects(zero, drained, &given_up),
        dead: dead.collect(),
        broken: broken(&book.doubles()),
        mail_copies: None,
        nodes: book.nodes(),
        events: book.events(zero),
        ledger: None,
    })
}

/// Everything that is known to have been in the queue: what a push was told as its id, what was leased, what is dead.
fn messages(run: &RunDir, book: &Book, letters: &[Letter], zero: i64) -> Result<Vec<MessageRow>> {
    let mut found: BTreeMap<Uuid, MessageRow> = BTreeMap::new();
    let mut add = |id, number, accepted_us| {
        found.entry(id).or_insert(MessageRow {
            id,
            number,
            position: 0,
            accepted_us,
        });
    };
    let log = run.path(requests::FILE);
    let mut ids = HashMap::new();
    if log.exists() {
        for line in requests::read(&log)? {
            match line? {
                Request::Named(named) => drop(ids.insert(named.number, named.id)),
                Request::Answered(answered) => {
                    if let Some(id) = ids.remove(&answered.number) {
                        add(id, Some(answered.number), after(zero, answered.done_us));
                    }
                }
                Request::Offered(_) => {}
            }
        }
    }
    for lease in &book.leases {
        let leased = &lease.leased;
        add(leased.id, leased.number, after(zero, leased.asked_us));
    }
    for letter in letters {
        let ours = letter.body["run"].as_str() == Some(run.id().as_str());
        let number = letter.body["number"].as_u64().filter(|_| ours);
        add(letter.id, number, letter.pushed_at.timestamp_micros());
    }
    Ok(found.into_values().collect())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Letter {
    id: Uuid,
    body: Value,
    pushed_at: DateTime<Utc>,
    dead_at: DateTime<Utc>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Letters {
    dead_letters: Vec<Letter>,
    next: Option<i64>,
}

/// The dead letters of the run's queue.
async fn letters(gateway: &str, run: &RunId) -> Result<Vec<Letter>> {
    let client = Client::new();
    let url = format!("{gateway}/leases/queues/{run}/dead-letters");
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let ask = client.get(format!("{url}?amount=1000&after={after}"));
        let answer = ask.timeout(ASK_LIMIT).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let page: Letters = answer
            .map_err(reqwest::Error::without_url)
            .context("the dead letters of the run's queue cannot be seen")?
            .json()
            .await?;
        all.extend(page.dead_letters);
        match page.next {
            Some(next) => after = next,
            None => return Ok(all),
        }
    }
}
