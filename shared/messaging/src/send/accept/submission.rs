//! What is handed in to be accepted, and what its sender is told.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use group_commit::{Committer, Group, group_commit};
use uuid::Uuid;

use super::ledger::Earlier;
use crate::{numbers, text::Text};

/// Most submissions that may wait for a commit.
const WAITING: usize = 256;
/// How long a request waits for others at most, when several come at a time: see [`Committer::gathering`].
const GAP: Duration = Duration::from_millis(3);

/// One request: one or several messages under one idempotency key.
#[derive(Debug, Clone)]
pub struct Submission {
    /// By what it is known, however often it comes.
    pub key: String,
    /// One message each.
    pub texts: Vec<Text>,
    /// The public reference of the session that sent it, if any.
    pub session: Option<Uuid>,
    /// The run that it belongs to, if any.
    pub run: Option<String>,
}

/// A message that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Made once.
    pub message_id: Uuid,
    /// For people.
    pub number: i64,
    /// By the database's clock.
    pub accepted_at: DateTime<Utc>,
    /// It was stored by an earlier request with the same key.
    pub repeated: bool,
}

/// Why nothing is known to be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// A repetition must be one.
    #[error("this Idempotency-Key was used for another message")]
    KeyReused,
    /// Nothing was stored.
    #[error("{max} messages wait to be published, and no more are accepted")]
    Full {
        /// As many as may.
        max: u64,
    },
    /// Nothing was stored.
    #[error("the database is away; nothing was stored")]
    Away,
    /// It may or may not have been stored.
    #[error("whether the message was stored is unknown; repeat with the same Idempotency-Key")]
    Unknown,
}

impl SubmitError {
    /// Its name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyReused => "key_reused",
            Self::Full { .. } => "outbox_full",
            Self::Away => "database_away",
            Self::Unknown => "outcome_unknown",
        }
    }

    /// What a client reads.
    pub fn detail(&self) -> String {
        if *self == Self::Away {
            return "The database is away; nothing was stored. Try again.".to_owned();
        }
        let text = self.to_string();
        let mut letters = text.chars();
        let first = letters
            .next()
            .map(|letter| letter.to_uppercase().to_string());
        format!("{}{}.", first.unwrap_or_default(), letters.as_str())
    }
}

pub(super) type Answer = Result<Vec<Accepted>, SubmitError>;

/// Where submissions are handed in.
#[derive(Clone)]
pub struct Submissions(Group<Submission, Answer>);

impl Submissions {
    /// Waits until the submission is committed, or is known or feared not to be.
    ///
    /// # Errors
    /// Why nothing is known to be stored.
    pub async fn submit(&self, submission: Submission) -> Result<Vec<Accepted>, SubmitError> {
        let answer = self.0.hand_in(submission).await;
        let answer = answer.unwrap_or(Err(SubmitError::Unknown));
        match &answer {
            Ok(accepted) => {
                for Accepted {
                    message_id, number, ..
                } in accepted.iter().filter(|accepted| !accepted.repeated)
                {
                    tracing::info!(message.id = %message_id, number, "accepted");
                    metrics::counter!(numbers::ACCEPTED).increment(1);
                }
            }
            Err(error) => tracing::info!(%error, "not accepted"),
        }
        answer
    }
}

/// Both ends.
pub(super) fn submissions() -> (Submissions, Committer<Submission, Answer>) {
    let (group, committer) = group_commit(WAITING);
    (Submissions(group), committer.gathering(GAP))
}

/// The answer to a request whose key was used before: what was stored then, if it was the same.
pub(super) fn repetition(
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
    use crate::send::accept::ledger::Stored;

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
    #[test]
    fn a_client_reads_a_sentence() {
        assert_eq!(
            SubmitError::KeyReused.detail(),
            "This Idempotency-Key was used for another message."
        );
        let full = SubmitError::Full { max: 10 };
        assert_eq!(
            full.detail(),
            "10 messages wait to be published, and no more are accepted."
        );
    }
}
