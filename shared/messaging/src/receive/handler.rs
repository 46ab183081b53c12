//! What a service does with a message: its work, and the effect of it.

use std::{collections::HashSet, time::Instant};

use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::settle::Settle;
use crate::envelope::{Envelope, NotOurs};

/// A message in hand.
#[derive(Debug)]
pub struct Received<M> {
    /// All that travelled along.
    pub envelope: Envelope,
    /// By what the inbox knows it: the message id, unless the guarantee `message-id` is off.
    pub inbox_id: Uuid,
    /// The body, read.
    pub message: M,
    /// The how manieth delivery this is, from 1. Where the broker does not count: one more than the
    /// failures of its work that are known, and at least 2 when it was delivered before.
    pub attempt: u32,
    /// The broker's hint that it was delivered before.
    pub redelivered: bool,
    /// When it came in.
    pub came_in: Instant,
}

/// Why the work did not succeed. A decision about the message, not about the infrastructure: a
/// database that is away is no reason to fail a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Counted; the message goes back to the queue until it failed too often.
    Retry(String),
    /// The same, in this way instead of the one that the settings say.
    RetryBy(Settle, String),
    /// Counted; the message is given up on at once.
    Reject(String),
    /// Counted, and acked though there is no effect: what no sound receiver does.
    Swallow(String),
}

impl Failure {
    /// In words.
    pub fn reason(&self) -> &str {
        match self {
            Self::Retry(reason)
            | Self::RetryBy(_, reason)
            | Self::Reject(reason)
            | Self::Swallow(reason) => reason,
        }
    }
}

/// Why there is no effect to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// The work failed.
    Failed(Failure),
    /// The node stops before the work could be done: the message goes back as it came.
    Stopped,
}

impl From<Failure> for Undone {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A kind of message and what is done with it.
pub trait Handler: Send + Sync + 'static {
    /// The kind that is consumed, as in [`Envelope::kind`].
    const KIND: &'static str;
    /// The body.
    type Message: Send + Sync;
    /// What the work leaves to be stored.
    type Output: Send + Sync;

    /// Reads the body.
    ///
    /// # Errors
    /// It is not what its kind says.
    fn read(&self, envelope: &Envelope) -> Result<Self::Message, NotOurs>;

    /// The work: outside any transaction, repeated at every attempt, dropped if the link dies.
    fn work(
        &self,
        received: &Received<Self::Message>,
    ) -> impl Future<Output = Result<Self::Output, Undone>> + Send;

    /// Stores the effects of messages that are admitted in the same transaction. An error rolls all
    /// of it back; each is then tried alone.
    fn store(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        effects: &[&Effect<Self>],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send
    where
        Self: Sized;

    /// Which of these have their effect, by the ids that the inbox knows them by. Asked about ids that the inbox may have
    /// forgotten, so it needs an index.
    fn done(
        &self,
        connection: &mut PgConnection,
        ids: &[Uuid],
    ) -> impl Future<Output = Result<HashSet<Uuid>, sqlx::Error>> + Send;

    /// So many effects were committed.
    fn stored(&self, effects: usize);
}

/// A message whose work is done, with what the work left.
#[derive(Debug)]
pub struct Effect<H: Handler> {
    /// The message.
    pub received: Received<H::Message>,
    /// What its work left.
    pub output: H::Output,
}
