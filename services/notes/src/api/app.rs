//! What every deed of an API node shares.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use daemon::{database::Database, tally::Tally};
use messaging::{
    send::{
        accept::{Accepted, Submission, Submissions, SubmitError},
        outbox::Depth,
    },
    text::Text,
};
use tokio::sync::watch;
use web::Error;

use crate::list::Lists;

pub struct App {
    pub(crate) database: Database,
    pub(crate) lists: Lists,
    /// What waits in the outbox, counted about once a second.
    pub(crate) depth: watch::Receiver<Depth>,
    pub(crate) submissions: Submissions,
    pub(crate) tally: Arc<Tally>,
}

impl App {
    /// Stores a note; when this says yes, it is committed.
    pub(crate) async fn accept(
        &self,
        key: String,
        content: Text,
        run: Option<String>,
    ) -> Result<Accepted, Error> {
        let submission = Submission {
            key,
            texts: vec![content],
            session: None,
            run,
        };
        let accepted = self.submissions.submit(submission).await.map_err(told)?;
        let Some(accepted) = accepted.into_iter().next() else {
            return Err(Error::internal(anyhow::anyhow!("nothing was answered")));
        };
        if !accepted.repeated {
            self.tally.add(1, accepted.accepted_at);
        }
        Ok(accepted)
    }

    /// How many notes this node has accepted since it started, and when the last.
    pub(crate) fn accepted(&self) -> (u64, Option<DateTime<Utc>>) {
        self.tally.read()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn told(error: SubmitError) -> Error {
    let said = match error {
        SubmitError::KeyReused => Error::unprocessable(error.detail()),
        _ => Error::away(error.detail()),
    };
    said.coded(error.code())
}
