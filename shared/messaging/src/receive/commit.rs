//! The inbox rows and the effects of many deliveries in one commit.

use std::sync::Arc;

use chaos::FailPoints;
use group_commit::Committer;
use sqlx::Connection;
use tracing::warn;
use uuid::Uuid;

use super::{
    handler::{Effect, Handler},
    inbox::{Admitted, Inbox},
    patience::Fault,
};
use crate::{Kept, bounded};

/// Most effects in one commit.
pub(super) const GROUP: usize = 500;

/// The loop that commits effects.
pub struct EffectCommitter<H: Handler> {
    pub(super) connection: Kept,
    pub(super) handler: Arc<H>,
    pub(super) inbox: Inbox,
    pub(super) fail_points: FailPoints,
    pub(super) effects: Committer<Arc<Effect<H>>, Result<Admitted, Fault>>,
}

impl<H: Handler> EffectCommitter<H> {
    /// Commits effects until the processor is gone.
    pub async fn run(mut self) {
        while let Some((effects, answers)) = self
            .connection
            .while_waiting(self.effects.next(GROUP))
            .await
        {
            let results = match bounded(self.commit(&effects)).await {
                Ok(admitted) => admitted.into_iter().map(Ok).collect(),
                // The database is away, or the fault is this one effect's own.
                Err(fault) if effects.len() == 1 || is_away(&fault) => {
                    let fault = Fault::from(fault);
                    effects.iter().map(|_| Err(fault.clone())).collect()
                }
                Err(fault) => {
                    warn!(%fault, effects = effects.len(), "a group failed, each is tried alone");
                    let mut results = Vec::with_capacity(effects.len());
                    for effect in &effects {
                        let alone = bounded(self.commit(std::slice::from_ref(effect))).await;
                        results.push(alone.map(|admitted| admitted[0]).map_err(Fault::from));
                    }
                    results
                }
            };
            answers.send(results);
        }
    }

    /// The inbox rows and the effects of those that are new, in one commit.
    async fn commit(&mut self, effects: &[Arc<Effect<H>>]) -> Result<Vec<Admitted>, sqlx::Error> {
        let mut connection = self.connection.take().await?;
        let mut tx = connection.begin().await?;
        let ids: Vec<Uuid> = effects.iter().map(|e| e.received.inbox_id).collect();
        let admitted = self.inbox.admit(&*self.handler, &mut tx, &ids).await?;
        let first: Vec<&Effect<H>> = effects
            .iter()
            .zip(&admitted)
            .filter(|(_, admitted)| **admitted == Admitted::First)
            .map(|(effect, _)| &**effect)
            .collect();
        if !first.is_empty() {
            self.handler.store(&mut tx, &first).await?;
        }
        let name = "consumer.before_commit";
        self.fail_points
            .hit(name)
            .await
            .map_err(|e| sqlx::Error::Protocol(e.to_string()))?;
        let stored = first.len();
        tx.commit().await?;
        self.connection.put(connection);
        self.handler.stored(stored);
        Ok(admitted)
    }
}

/// No connection to be had, or the one we had is gone: trying each effect alone would only take longer.
pub(super) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        // 57P0x: it is being stopped, or just starting.
        sqlx::Error::Database(said) => said.code().is_some_and(|code| code.starts_with("57P")),
        sqlx::Error::Protocol(_) => false,
        _ => true,
    }
}
