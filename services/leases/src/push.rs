//! Pushing: messages are stored at the end of their queue in one commit, and only then is the client told yes.
//!
//! Concurrent pushes share one insert and one commit. A push without an `Idempotency-Key` is just that. One with a key is one
//! push however often it is said, for a day: its key is written in the same transaction, the repetition is answered with what
//! was pushed the first time, and with other bodies under the same key it is refused.
//!
//! Between two lines: die before the commit, and nothing happened; die after it, and the messages are there, the client does
//! not know, and its repetition with the same key learns of it.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::{
    clerk::Deed,
    message, numbers, pushed,
    tally::{Tallies, What},
};

/// One request: one or several messages to one queue.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    pub(crate) queue_id: i32,
    /// Each a JSON document as it was sent.
    pub(crate) bodies: Vec<String>,
    pub(crate) key: Option<String>,
    pub(crate) run: Option<String>,
}

/// What a client gets. Ids are in the order of the bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Receipt {
    Pushed(Vec<Uuid>),
    /// By an earlier request under the same key.
    Repeated(Vec<Uuid>),
    /// The key was used for other messages.
    KeyReused,
}

/// A message that is about to be stored.
pub(crate) struct Pushed<'a> {
    pub(crate) message_id: Uuid,
    pub(crate) queue_id: i32,
    pub(crate) body: &'a str,
    pub(crate) run: Option<&'a str>,
}

/// Stores what is pushed.
pub(crate) struct Pushing {
    pub(crate) tallies: Tallies,
}

impl Push {
    /// Of all bodies; a length before each, so that no two lists of bodies look alike.
    pub(crate) fn digest(&self) -> Vec<u8> {
        let mut digest = Sha256::new();
        for body in &self.bodies {
            digest.update((body.len() as u64).to_be_bytes());
            digest.update(body);
        }
        digest.finalize().to_vec()
    }
}

impl Deed for Pushing {
    type Item = Push;
    type Answer = Receipt;
    const NAME: &'static str = "push";
    const FAIL_POINTS: Option<[&'static str; 2]> =
        Some(["leases.push.before_commit", "leases.push.after_commit"]);

    /// A page of text costs the database about as much as a row.
    fn weight(push: &Push) -> usize {
        let bytes: usize = push.bodies.iter().map(String::len).sum();
        push.bodies.len() + bytes / 4_096
    }

    async fn carry_out(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        group: &[Push],
    ) -> Result<Vec<Receipt>, sqlx::Error> {
        let ids: Vec<Vec<Uuid>> = group
            .iter()
            .map(|push| push.bodies.iter().map(|_| Uuid::now_v7()).collect())
            .collect();
        let repeated = if group.iter().any(|push| push.key.is_some()) {
            repeated(tx, group, &ids).await?
        } else {
            HashMap::new()
        };
        let mut new = Vec::new();
        for (index, (push, ids)) in group.iter().zip(&ids).enumerate() {
            if repeated.contains_key(&index) {
                continue;
            }
            for (body, message_id) in push.bodies.iter().zip(ids) {
                new.push(Pushed {
                    message_id: *message_id,
                    queue_id: push.queue_id,
                    body,
                    run: push.run.as_deref(),
                });
            }
        }
        if !new.is_empty() {
            message::insert(tx, &new).await?;
        }
        Ok(ids
            .into_iter()
            .enumerate()
            .map(|(index, ids)| {
                repeated
                    .get(&index)
                    .cloned()
                    .unwrap_or(Receipt::Pushed(ids))
            })
            .collect())
    }

    fn done(&self, group: &[Push], receipts: &[Receipt]) {
        for (push, receipt) in group.iter().zip(receipts) {
            if let Receipt::Pushed(ids) = receipt {
                numbers::count(numbers::PUSHED, ids.len());
                self.tallies.add(push.queue_id, What::Pushed, ids.len());
            }
        }
    }
}

/// Writes down the keys of a group, and answers those, by their place in it, that were said before: in an earlier group, or
/// earlier in this one.
async fn repeated(
    tx: &mut Transaction<'_, Postgres>,
    group: &[Push],
    ids: &[Vec<Uuid>],
) -> Result<HashMap<usize, Receipt>, sqlx::Error> {
    let mut first: HashMap<(i32, &str), usize> = HashMap::new();
    let mut later: Vec<(usize, usize)> = Vec::new();
    for (index, push) in group.iter().enumerate() {
        if let Some(key) = &push.key {
            match first.get(&(push.queue_id, key.as_str())) {
                Some(before) => later.push((index, *before)),
                None => drop(first.insert((push.queue_id, key), index)),
            }
        }
    }
    let keyed: Vec<(&Push, &[Uuid])> = first
        .values()
        .map(|index| (&group[*index], ids[*index].as_slice()))
        .collect();
    let new: HashSet<(i32, String)> = pushed::insert(tx, &keyed).await?.into_iter().collect();
    let known: Vec<(i32, &str)> = first
        .keys()
        .filter(|(queue_id, key)| !new.contains(&(*queue_id, (*key).to_owned())))
        .copied()
        .collect();
    let mut answers = HashMap::new();
    if !known.is_empty() {
        let earlier = pushed::of_keys(tx, &known).await?;
        for (at, index) in &first {
            if let Some(earlier) = earlier.iter().find(|earlier| earlier.is(*at)) {
                answers.insert(*index, earlier.receipt(&group[*index]));
            }
        }
    }
    for (index, before) in later {
        let same = group[index].digest() == group[before].digest();
        let receipt = match answers.get(&before) {
            _ if !same => Receipt::KeyReused,
            Some(receipt) => receipt.clone(),
            None => Receipt::Repeated(ids[before].clone()),
        };
        answers.insert(index, receipt);
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_lists_of_bodies_apart() {
        let digest = |bodies: &[&str]| {
            let push = Push {
                queue_id: 1,
                bodies: bodies.iter().map(|&body| body.to_owned()).collect(),
                key: None,
                run: None,
            };
            push.digest()
        };
        assert_eq!(digest(&["1", "2"]), digest(&["1", "2"]));
        for other in [&["12"][..], &["2", "1"], &["1"], &["1", "2", ""], &[]] {
            assert_ne!(digest(&["1", "2"]), digest(other), "{other:?}");
        }
    }
}
