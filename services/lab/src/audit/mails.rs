//! What became of accounts: the ledger has them, and the catcher of mails what was sent to each.
//!
//! The effect of an account is its welcome mail. A mail that the server took, and of which the node that sent it never heard,
//! goes out again: SMTP cannot be exactly once. But it goes out under the same Message-ID, by which a reader's mail program
//! knows it for the same. So effects are counted by Message-ID, and copies under one are a figure.
//!
//! The auditor reads no addresses. Which request an account is of is known by what the client was told, else by the mail to
//! it. An account of which neither tells is one of the requests whose outcome is unknown, and no matter which: of all of
//! these the same is known.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use signup::catcher::Caught;
use uuid::Uuid;

use super::merge::{EffectRow, MessageRow};
use super::snapshot::Snapshot;
use super::source::Held;
use crate::load::body::number_of_address;
use crate::run::requests::{self, Answer, Line};
use crate::run::{Meta, RunDir, RunId};

/// A mail to an account of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mail {
    pub(super) number: u64,
    pub(super) message_id: String,
    pub(super) at: DateTime<Utc>,
}

impl Mail {
    /// The id that its Message-ID stands for.
    fn id(&self) -> Option<Uuid> {
        let (id, _) = self.message_id.split_once('@')?;
        id.trim_start_matches('<').parse().ok()
    }
}

/// What the load's record says.
#[derive(Debug, Default)]
struct Asked {
    /// What clients were told.
    named: HashMap<Uuid, u64>,
    /// Requests that were not refused.
    possible: Vec<u64>,
}

/// All of it.
pub(super) async fn hold(mut ledger: Snapshot, run: &RunDir, meta: &Meta) -> Result<Held> {
    let path = meta.mails.as_deref();
    let path =
        path.context("where the mails are is unknown: only the catcher of `lab up` tells")?;
    let accounts = ledger.accounts(run.id()).await?;
    let dead = ledger.streams(run.id()).2.try_collect().await?;
    // after the moment of the ledger: whatever it says was sent is there by now
    let mails = read(path, run.id()).context("the mails cannot be read")?;
    let asked = asked(run).context("cannot read the load's record")?;
    let messages = numbered(&accounts, &asked, &mails);
    let (effects, copies) = effects(&messages, &mails);
    let at: HashMap<u64, Uuid> = of_numbers(&messages);
    let events = mails.iter().filter_map(|mail| {
        let what = format!("MAIL taken by the server, as {}", mail.message_id);
        Some((*at.get(&mail.number)?, mail.at, what))
    });
    Ok(Held {
        taken_at: ledger.taken_at,
        events: events.collect(),
        messages,
        effects,
        dead,
        broken: Vec::new(),
        mail_copies: Some(copies),
        nodes: Vec::new(),
        ledger: Some(ledger),
    })
}

/// The mails to accounts of this run. A torn last line is none.
fn read(path: &Path, run: &RunId) -> Result<Vec<Mail>> {
    let mut input = BufReader::new(File::open(path)?);
    let (mut mails, mut line) = (Vec::new(), String::new());
    while input.read_line(&mut line)? > 0 {
        if line.ends_with('\n') {
            let caught: Caught = serde_json::from_str(&line).context("a line is damaged")?;
            let numbers = caught.to.iter().filter_map(|to| number_of_address(run, to));
            mails.extend(numbers.map(|number| Mail {
                number,
                message_id: caught.message_id.clone(),
                at: caught.at,
            }));
        }
        line.clear();
    }
    Ok(mails)
}

fn asked(run: &RunDir) -> Result<Asked> {
    let mut asked = Asked::default();
    let log = run.path(requests::FILE);
    if !log.exists() {
        return Ok(asked);
    }
    let mut refused = HashSet::new();
    for line in requests::read(&log)? {
        match line? {
            Line::Offered(offered) => asked.possible.push(offered.number),
            Line::Named(named) => drop(asked.named.insert(named.id, named.number)),
            Line::Answered(answered) if answered.answer == Answer::Refused => {
                refused.insert(answered.number);
            }
            Line::Answered(_) => {}
        }
    }
    asked.possible.retain(|number| !refused.contains(number));
    Ok(asked)
}

/// Each account with the request that it is of.
fn numbered(accounts: &[(Uuid, i64)], asked: &Asked, mails: &[Mail]) -> Vec<MessageRow> {
    let mailed: HashMap<Uuid, u64> = mails
        .iter()
        .filter_map(|mail| Some((mail.id()?, mail.number)))
        .collect();
    let known = |id: &Uuid| asked.named.get(id).or_else(|| mailed.get(id)).copied();
    let taken: HashSet<u64> = accounts.iter().filter_map(|(id, _)| known(id)).collect();
    let named: HashSet<u64> = asked.named.values().copied().collect();
    let open = asked
        .possible
        .iter()
        .filter(|number| !taken.contains(number) && !named.contains(number));
    // those that had a mail, under whatever Message-ID, have an account
    let written: HashSet<u64> = mails.iter().map(|mail| mail.number).collect();
    let (with, without): (Vec<u64>, Vec<u64>) = open.partition(|number| written.contains(number));
    let mut open: VecDeque<u64> = with.into_iter().chain(without).collect();
    let row = |(id, accepted_us): &(Uuid, i64)| MessageRow {
        id: *id,
        number: known(id).or_else(|| open.pop_front()),
        position: 0,
        accepted_us: *accepted_us,
    };
    accounts.iter().map(row).collect()
}

fn of_numbers(messages: &[MessageRow]) -> HashMap<u64, Uuid> {
    messages
        .iter()
        .filter_map(|row| Some((row.number?, row.id)))
        .collect()
}

/// An effect for each Message-ID of each account, and how many mails there are beyond.
fn effects(messages: &[MessageRow], mails: &[Mail]) -> (Vec<EffectRow>, u64) {
    let mut each: BTreeMap<(u64, &str), (DateTime<Utc>, i32)> = BTreeMap::new();
    for mail in mails {
        let (_, count) = each
            .entry((mail.number, &mail.message_id))
            .or_insert((mail.at, 0));
        *count += 1;
    }
    let copies = mails.len() - each.len();
    let ids = of_numbers(messages);
    let rows = each
        .into_iter()
        .map(|((number, _), (at, count))| EffectRow {
            // a mail to an account that is not there belongs to nothing
            id: ids
                .get(&number)
                .copied()
                .unwrap_or_else(|| Uuid::from_u64_pair(u64::MAX, number)),
            processed_us: at.timestamp_micros(),
            attempt: count,
            redelivered: count > 1,
        });
    (rows.collect(), u64::try_from(copies).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn mail(number: u64, id: &Uuid) -> Mail {
        Mail {
            number,
            message_id: format!("{id}@example.test"),
            at: DateTime::from_timestamp(1, 0).unwrap(),
        }
    }

    fn rows(accounts: &[u128], asked: &Asked, mails: &[Mail]) -> Vec<Option<u64>> {
        let accounts: Vec<(Uuid, i64)> = accounts.iter().map(|n| (id(*n), 0)).collect();
        let rows = numbered(&accounts, asked, mails);
        rows.iter().map(|row| row.number).collect()
    }

    #[test]
    fn an_account_is_known_by_what_was_told_by_its_mail_or_as_one_of_the_rest() {
        let asked = Asked {
            named: HashMap::from([(id(10), 0), (id(11), 1)]),
            possible: vec![0, 1, 2, 3, 4],
        };
        let mails = [mail(3, &id(12)), mail(4, &id(99))];
        // 12 by its mail; 13 has to be of a request with a mail and without an account, so 4; 14 is what is left
        assert_eq!(
            rows(&[10, 11, 12, 13, 14], &asked, &mails),
            [Some(0), Some(1), Some(3), Some(4), Some(2)]
        );
        // one more than there are requests is nobody's
        assert_eq!(rows(&[10, 11, 12, 13, 14, 15], &asked, &mails)[5], None);
    }

    #[test]
    fn copies_under_one_message_id_are_one_effect_and_are_told() {
        let row = |n: u128, number| MessageRow {
            id: id(n),
            number: Some(number),
            position: 0,
            accepted_us: 0,
        };
        let messages = [row(10, 0), row(11, 1), row(12, 2)];
        let mails = [
            mail(0, &id(10)),
            mail(1, &id(11)),
            mail(1, &id(11)),
            mail(2, &id(70)),
            mail(2, &id(71)),
            mail(9, &id(72)),
        ];
        let (effects, copies) = effects(&messages, &mails);
        assert_eq!(copies, 1);
        let count = |wanted| effects.iter().filter(|row| row.id == wanted).count();
        assert_eq!([10, 11, 12].map(|n| count(id(n))), [1, 1, 2]);
        assert_eq!(effects.len(), 5);
    }

    #[test]
    fn the_catchers_file_is_read_up_to_a_torn_line() {
        let run: RunId = "r1".parse().unwrap();
        let caught = |to: &str| serde_json::json!({"at": "2026-11-21T09:15:59Z", "message_id": "a@b", "from": "x@y", "to": [to], "subject": "s", "parts": []});
        let text = format!(
            "{}\n{}\n{}",
            caught("r1-0000000003@example.test"),
            caught("r2-0000000003@example.test"),
            caught("r1-0000000004@example.test")
        );
        let path = std::env::temp_dir().join(format!("lab-mails-{:016x}", rand::random::<u64>()));
        std::fs::write(&path, text).unwrap();
        let mails = read(&path, &run).unwrap();
        std::fs::remove_file(&path).unwrap();
        let numbers: Vec<u64> = mails.iter().map(|mail| mail.number).collect();
        assert_eq!(numbers, [3]);
    }
}
