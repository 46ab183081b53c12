//! One query for all who look at the same time, see [`super::inbox`].

use std::sync::Arc;

use super::{
    handler::Handler,
    inbox::{Asked, Inbox, Known},
    patience::Fault,
};
use crate::{Kept, bounded};
use group_commit::Committer;

/// Most messages that one query asks about.
pub(super) const GROUP: usize = 1_000;

/// The loop that asks what is known of messages.
pub struct Looker<H: Handler> {
    pub(super) connection: Kept,
    pub(super) handler: Arc<H>,
    pub(super) inbox: Inbox,
    pub(super) asked: Committer<Asked, Result<Known, Fault>>,
}

impl<H: Handler> Looker<H> {
    /// Asks until the processor is gone.
    pub async fn run(mut self) {
        while let Some((asked, answers)) =
            self.connection.while_waiting(self.asked.next(GROUP)).await
        {
            answers.send(match bounded(self.look(&asked)).await {
                Ok(known) => known.into_iter().map(Ok).collect(),
                Err(error) => {
                    let fault = Fault::from(error);
                    asked.iter().map(|_| Err(fault.clone())).collect()
                }
            });
        }
    }

    async fn look(&mut self, asked: &[Asked]) -> Result<Vec<Known>, sqlx::Error> {
        let mut connection = self.connection.take().await?;
        let known = self
            .inbox
            .look(&*self.handler, &mut connection, asked)
            .await?;
        self.connection.put(connection);
        Ok(known)
    }
}
