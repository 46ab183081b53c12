//! Saving a note: the work is to look once more whether it may be one, the effect is one row in `processed`.
//!
//! Between two lines: die before the commit: delivered again, and saved then. Die between the commit and the word to the
//! cache: the note is saved, and lists without it are shown until they are too old.

use std::{collections::HashSet, time::Duration};

use messaging::{
    envelope::{Envelope, NotOurs},
    message::Message,
    receive::{
        handler::{Effect, Failure, Handler, Received, Undone},
        processed,
    },
    text::Text,
};
use sqlx::{PgConnection, Postgres, Transaction};
use tokio::sync::watch;
use uuid::Uuid;

use super::pace::Pace;
use crate::note::KIND;

/// Saves notes.
pub struct Write {
    pub(super) node: String,
    pub(super) pace: Pace,
    /// Who tells the cache.
    pub(super) committed: watch::Sender<()>,
}

/// How long it took, with the wait for its turn.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    took: Duration,
}

impl Handler for Write {
    const KIND: &'static str = KIND;
    type Message = Message;
    type Output = Done;

    fn read(&self, envelope: &Envelope) -> Result<Message, NotOurs> {
        Message::read(envelope)
    }

    async fn work(&self, received: &Received<Message>) -> Result<Done, Undone> {
        if let Err(error) = Text::parse(&received.message.text) {
            return Err(Failure::Reject(error.about("content")).into());
        }
        self.pace.turn().await;
        Ok(Done {
            took: received.came_in.elapsed(),
        })
    }

    async fn store(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        effects: &[&Effect<Self>],
    ) -> Result<(), sqlx::Error> {
        processed::insert(tx, &self.node, effects, |done| done.took).await
    }

    async fn done(
        &self,
        connection: &mut PgConnection,
        ids: &[Uuid],
    ) -> Result<HashSet<Uuid>, sqlx::Error> {
        processed::of(connection, ids).await
    }

    fn stored(&self, effects: usize) {
        if effects > 0 {
            self.committed.send_replace(());
        }
    }
}
