//! What every deed of a sender shares.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use daemon::{database::Database, node::Node, parts::Parts, tally::Tally};
use messaging::send::{
    accept::{Accepted, Submission, Submissions, SubmitError},
    outbox::Depth,
};
use tokio::sync::watch;
use web::{Together, live::LivePage, session::Sessions};

use crate::message::MessageRow;

pub struct App {
    pub node: Arc<Node>,
    pub database: Database,
    pub parts: Parts,
    pub sessions: Sessions,
    /// The newest messages.
    pub(crate) newest: Together<Arc<[MessageRow]>>,
    /// What waits in the outbox, counted about once a second.
    pub depth: watch::Receiver<Depth>,
    pub(crate) live: LivePage,
    pub(crate) submissions: Submissions,
    pub(crate) tally: Arc<Tally>,
}

impl App {
    /// Stores the messages of a request; when this says yes, they are committed.
    pub async fn submit(&self, submission: Submission) -> Result<Vec<Accepted>, SubmitError> {
        let accepted = self.submissions.submit(submission).await?;
        for new in accepted.iter().filter(|accepted| !accepted.repeated) {
            self.tally.add(1, new.accepted_at);
        }
        Ok(accepted)
    }

    /// How many messages this node has accepted since it started, and when the last.
    pub fn accepted(&self) -> (u64, Option<DateTime<Utc>>) {
        self.tally.read()
    }
}
