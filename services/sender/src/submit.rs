//! Accepting messages: valid, stored together with their outbox rows in one commit, and only then is
//! the client told yes.
//!
//! Concurrent submissions share one commit. A submission is known by its idempotency key: repeated, it
//! is answered with what was stored the first time; with other texts under the same key it is refused.
//!
//! Between two lines: die before the commit: nothing happened, and the client got no answer. Die after
//! it: the message is accepted, the client does not know, and its repetition learns of it. Lose the
//! database at the commit: the outcome is unknown, and that is what the client is told.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use group_commit::{Committer, Group, group_commit};
use uuid::Uuid;

use crate::{message::Earlier, text::Text};

/// Most submissions that may wait for a commit.
const WAITING: usize = 256;
/// How long a request waits for others at most, when several come at a time: see [`Committer::gathering`].
const GAP: Duration = Duration::from_millis(3);

/// One request: one or several messages under one idempotency key.
#[derive(Debug, Clone)]
pub struct Submission {
    pub key: String,
    pub texts: Vec<Text>,
    pub session: Option<Uuid>,
    pub run: Option<String>,
}

/// A message that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub message_id: Uuid,
    pub number: i64,
    pub accepted_at: DateTime<Utc>,
    /// It was stored by an earlier request with the same key.
    pub repeated: bool,
}

/// Why nothing is known to be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    #[error("this Idempotency-Key was used for another message")]
    KeyReused,
    #[error("{max} messages wait to be published, and no more are accepted")]
    Full { max: u64 },
    /// Nothing was stored.
    #[error("the database is away; nothing was stored")]
    Away,
    /// It may or may not have been stored.
    #[error("whether the message was stored is unknown; repeat with the same Idempotency-Key")]
    Unknown,
}

pub(crate) type Answer = Result<Vec<Accepted>, SubmitError>;

/// Where submissions are handed in.
#[derive(Clone)]
pub struct Submissions(Group<Submission, Answer>);

impl Submissions {
    /// Waits until the submission is committed, or is known or feared not to be.
    pub async fn submit(&self, submission: Submission) -> Answer {
        self.0
            .hand_in(submission)
            .await
            .unwrap_or(Err(SubmitError::Unknown))
    }
}

/// Both ends.
pub(crate) fn submissions() -> (Submissions, Committer<Submission, Answer>) {
    let (group, committer) = group_commit(WAITING);
    (Submissions(group), committer.gathering(GAP))
}

/// The answer to a request whose key was used before: what was stored then, if it was the same.
pub(crate) fn repetition(
    submission: &Submission,
    earlier: &HashMap<String, Vec<Earlier>>,
) -> Answer {
    let earlier = earlier
        .get(&submission.key)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let same = earlier
        .iter()
        .map(|e| e.text.as_str())
        .eq(submission.texts.iter().map(Text::as_str));
    if !same {
        return Err(SubmitError::KeyReused);
    }
    Ok(earlier
        .iter()
        .map(|Earlier { stored, .. }| Accepted {
            message_id: stored.message_id,
            number: stored.number,
            accepted_at: stored.accepted_at,
            repeated: true,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Stored;

    #[test]
    fn a_key_stands_for_the_same_texts_only() {
        let submission = |texts: &[&str]| Submission {
            key: "k".to_owned(),
            texts: texts
                .iter()
                .map(|text| Text::parse(text).unwrap())
                .collect(),
            session: None,
            run: None,
        };
        let stored = |number| Stored {
            message_id: Uuid::now_v7(),
            number,
            accepted_at: DateTime::from_timestamp_micros(0).unwrap(),
        };
        let earlier = |number, text: &str| Earlier {
            idempotency_key: "k".to_owned(),
            stored: stored(number),
            text: text.to_owned(),
        };
        let known = HashMap::from([("k".to_owned(), vec![earlier(1, "a"), earlier(2, "b")])]);
        let again = repetition(&submission(&["a", "b"]), &known).unwrap();
        assert_eq!(
            again
                .iter()
                .map(|a| (a.number, a.repeated))
                .collect::<Vec<_>>(),
            [(1, true), (2, true)]
        );
        for other in [&["a"][..], &["a", "c"], &["a", "b", "c"]] {
            assert_eq!(
                repetition(&submission(other), &known),
                Err(SubmitError::KeyReused)
            );
        }
    }
}
