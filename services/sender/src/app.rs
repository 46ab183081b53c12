//! What every deed of a sender shares.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use chrono::{DateTime, Utc};
use daemon::{database::Database, node::Node, parts::Parts};
use messaging::send::outbox::Depth;
use tokio::sync::watch;
use web::session::Sessions;

use crate::submit::{Accepted, Submission, Submissions, SubmitError};

#[derive(Clone)]
pub struct App {
    pub node: Arc<Node>,
    pub database: Database,
    pub parts: Parts,
    pub sessions: Sessions,
    /// What waits in the outbox, counted about once a second.
    pub depth: watch::Receiver<Depth>,
    pub(crate) submissions: Submissions,
    pub(crate) tally: Arc<Tally>,
}

/// What this process has accepted since it started.
#[derive(Default)]
pub(crate) struct Tally {
    count: AtomicU64,
    last: Mutex<Option<DateTime<Utc>>>,
}

impl App {
    /// Stores the messages of a request; when this says yes, they are committed.
    pub async fn submit(&self, submission: Submission) -> Result<Vec<Accepted>, SubmitError> {
        let answer = self.submissions.submit(submission).await;
        match &answer {
            Ok(accepted) => self.tally.add(accepted),
            Err(error) => tracing::info!(%error, "not accepted"),
        }
        answer
    }

    /// How many messages this node has accepted since it started, and when the last.
    pub fn accepted(&self) -> (u64, Option<DateTime<Utc>>) {
        let last = *self
            .tally
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (self.tally.count.load(Ordering::Relaxed), last)
    }
}

impl Tally {
    fn add(&self, accepted: &[Accepted]) {
        let new = accepted.iter().filter(|accepted| !accepted.repeated);
        let mut count = 0;
        for accepted in new {
            count += 1;
            tracing::info!(message.id = %accepted.message_id, number = accepted.number, "accepted");
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = (*last).max(Some(accepted.accepted_at));
        }
        self.count.fetch_add(count, Ordering::Relaxed);
        metrics::counter!("unacked_messages_accepted_total").increment(count);
    }
}
