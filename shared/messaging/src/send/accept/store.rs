//! The loop that stores submissions: many in one commit, each with its own answer.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chaos::FailPoints;
use group_commit::Committer;
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    AcceptSettings,
    ledger::{self, Earlier, NewMessage, Stored},
    submission::{Accepted, Answer, Submission, SubmitError, repetition},
};
use crate::{
    Kept,
    envelope::Envelope,
    message::Message,
    send::{
        outbox::{self, Depth},
        relay::{Handover, Reservation},
    },
    text::Text,
    watching::{Sight, What},
};

/// Most messages in one commit, unless one submission alone has more: it must be done well within
/// [`STORE_LIMIT`].
const GROUP: usize = 2_000;
/// Within this many rows of the limit it is always looked at exactly: a count is a second old or more.
const FEW: u64 = 10_000;
/// How long a client waits for the database before it hears that it is away.
const STORE_LIMIT: Duration = Duration::from_secs(5);

/// The loop that stores submissions.
pub struct Store {
    pub(super) connection: Kept,
    pub(super) settings: AcceptSettings,
    pub(super) handover: Handover,
    pub(super) fail_points: FailPoints,
    pub(super) submissions: Committer<Submission, Answer>,
    pub(super) depth: watch::Receiver<Depth>,
    /// Rows added by this node since `depth` was counted.
    pub(super) since: Arc<AtomicI64>,
}

impl Store {
    /// Stores submissions until nobody can hand any in.
    pub async fn run(mut self) {
        let messages = |submission: &Submission| submission.texts.len();
        while let Some((group, answers)) = self
            .connection
            .while_waiting(self.submissions.next_weighed(GROUP, messages))
            .await
        {
            let results = match self.store(&group).await {
                Ok(results) => results,
                // Something about one of them: each alone.
                Err(error @ (StoreError::Database(_) | StoreError::Crowded)) if group.len() > 1 => {
                    info!(%error, submissions = group.len(), "a group failed, each is tried alone");
                    self.each_alone(&group).await
                }
                Err(error) => {
                    warn!(%error, submissions = group.len(), "nothing could be stored");
                    let error = self.tell(&error);
                    group.iter().map(|_| Err(error.clone())).collect()
                }
            };
            answers.send(results);
        }
    }

    /// One after the other, until the database is away: nobody after that has to wait to hear it.
    async fn each_alone(&mut self, group: &[Submission]) -> Vec<Answer> {
        let mut results: Vec<Answer> = Vec::with_capacity(group.len());
        for submission in group {
            match self.store(std::slice::from_ref(submission)).await {
                Ok(mut one) => results.append(&mut one),
                Err(error) => {
                    let told = self.tell(&error);
                    if matches!(error, StoreError::Away(_)) {
                        let rest = group.len() - results.len();
                        results.extend(std::iter::repeat_n(Err(told), rest));
                        break;
                    }
                    results.push(Err(told));
                }
            }
        }
        results
    }

    async fn store(&mut self, group: &[Submission]) -> Result<Vec<Answer>, StoreError> {
        let until = Instant::now() + STORE_LIMIT;
        let late = |_| StoreError::Away("no answer in time".to_owned());
        let taken = timeout_at(until, self.connection.take()).await;
        let mut connection = taken.map_err(late)?.map_err(StoreError::before_commit)?;
        let reservation = self.handover.reserve();
        let lease = reservation.as_ref().map(Reservation::lease);
        let prepare = self.prepare(&mut connection, group, lease);
        let (tx, answers, rows) = timeout_at(until, prepare).await.map_err(late)??;
        let name = "submit.before_commit";
        if let Err(injected) = self.fail_points.hit(name).await {
            // Nothing may be left to chance: say what was done, not what was meant.
            let _ = tokio::time::timeout(STORE_LIMIT, tx.rollback()).await;
            return Err(StoreError::Away(injected.to_string()));
        }
        if rows.is_empty() {
            // Only repetitions: nothing to commit, and the lock on the outbox, if any, must go.
            if let Ok(Ok(())) = tokio::time::timeout(STORE_LIMIT, tx.rollback()).await {
                self.connection.put(connection);
            }
            return Ok(answers);
        }
        match tokio::time::timeout(STORE_LIMIT, tx.commit()).await {
            Ok(committed) => committed.map_err(StoreError::at_commit)?,
            Err(_) => return Err(StoreError::Unknown("no answer to the commit".to_owned())),
        }
        self.connection.put(connection);
        self.since.fetch_add(
            i64::try_from(rows.len()).unwrap_or(i64::MAX),
            Ordering::Relaxed,
        );
        self.tell_of(&rows);
        match reservation {
            Some(reservation) => reservation.hand_over(rows),
            None => self.handover.announce(),
        }
        let name = "submit.after_commit";
        if let Err(injected) = self.fail_points.hit(name).await {
            return Err(StoreError::Unknown(injected.to_string()));
        }
        Ok(answers)
    }
}

impl Store {
    /// Everything but the commit: the answers that will be true after it, and the rows to publish.
    async fn prepare<'c>(
        &self,
        connection: &'c mut PgConnection,
        group: &[Submission],
        lease: Option<Uuid>,
    ) -> Result<(Transaction<'c, Postgres>, Vec<Answer>, Vec<Envelope>), StoreError> {
        let begin = connection.begin().await;
        let mut tx = begin.map_err(StoreError::before_commit)?;
        let room = self.room(&mut tx, group).await?;
        let ids: Vec<Vec<Uuid>> = group
            .iter()
            .map(|submission| submission.texts.iter().map(|_| Uuid::now_v7()).collect())
            .collect();
        let new = |which: &dyn Fn(usize, usize) -> bool| -> Vec<NewMessage<'_>> {
            let mut messages = Vec::new();
            for (index, submission) in group.iter().enumerate() {
                for (position, text) in submission.texts.iter().enumerate() {
                    if which(index, position) {
                        messages.push(NewMessage {
                            message_id: ids[index][position],
                            text: text.as_str(),
                            session: submission.session,
                            run: submission.run.as_deref(),
                            key: &submission.key,
                            position: i32::try_from(position).unwrap_or(i32::MAX),
                        });
                    }
                }
            }
            messages
        };
        // The first message of a request decides whether its key is new; the others follow it.
        let mut stored = self
            .insert(&mut tx, &new(&|_, position| position == 0))
            .await?;
        let is_new: Vec<bool> = ids.iter().map(|ids| stored.contains_key(&ids[0])).collect();
        let followers = new(&|index, position| position > 0 && is_new[index]);
        if !followers.is_empty() {
            stored.extend(self.insert(&mut tx, &followers).await?);
        }
        let repeated: HashSet<&str> = group
            .iter()
            .zip(&is_new)
            .filter(|(_, is_new)| !**is_new)
            .map(|(submission, _)| submission.key.as_str())
            .collect();
        let earlier = self.earlier(&mut tx, &repeated).await?;
        if room.is_some_and(|room| u64::try_from(stored.len()).unwrap_or(u64::MAX) > room) {
            // Of several, some may fit. A lone one that only repeats stored nothing, and fits.
            return Err(if group.len() > 1 {
                StoreError::Crowded
            } else {
                StoreError::Full
            });
        }
        let mut answers = Vec::with_capacity(group.len());
        let mut rows = Vec::with_capacity(stored.len());
        for ((submission, ids), is_new) in group.iter().zip(&ids).zip(&is_new) {
            if !is_new {
                answers.push(repetition(submission, &earlier));
                continue;
            }
            let mut accepted = Vec::with_capacity(ids.len());
            for (id, text) in ids.iter().zip(&submission.texts) {
                let Some(stored) = stored.get(id) else {
                    let lost = sqlx::Error::Protocol("an inserted row was not returned".to_owned());
                    return Err(StoreError::Database(lost));
                };
                rows.push(self.envelope(submission, text, stored));
                accepted.push(Accepted {
                    message_id: stored.message_id,
                    number: stored.number,
                    accepted_at: stored.accepted_at,
                    repeated: false,
                });
            }
            answers.push(Ok(accepted));
        }
        if !rows.is_empty() {
            self.handover
                .append(&mut tx, &rows, lease)
                .await
                .map_err(StoreError::before_commit)?;
        }
        Ok((tx, answers, rows))
    }

    /// How many rows still fit: `None` for plenty. Counted exactly, at the price of waiting for other
    /// nodes that do the same, only where the last count is within a tenth of the limit.
    async fn room(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        group: &[Submission],
    ) -> Result<Option<u64>, StoreError> {
        let new: usize = group.iter().map(|submission| submission.texts.len()).sum();
        let since = u64::try_from(self.since.load(Ordering::Relaxed)).unwrap_or(0);
        let waiting = u64::try_from(self.depth.borrow().waiting).unwrap_or(0);
        let known = waiting.saturating_add(since).saturating_add(new as u64);
        if known.saturating_add((self.settings.outbox_max / 10).max(FEW)) < self.settings.outbox_max
        {
            return Ok(None);
        }
        outbox::room(tx, self.settings.outbox_max)
            .await
            .map(Some)
            .map_err(StoreError::before_commit)
    }

    async fn insert(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        messages: &[NewMessage<'_>],
    ) -> Result<HashMap<Uuid, Stored>, StoreError> {
        ledger::insert(tx, &self.settings.node, messages)
            .await
            .map_err(StoreError::before_commit)
    }

    /// After the commit, and before they are handed over: nobody hears of a publish before.
    fn tell_of(&self, rows: &[Envelope]) {
        for row in rows {
            let sight = Sight::new(What::Accepted, row.message_id);
            self.settings.watching.tell(&sight.run(row.run.as_deref()));
        }
    }

    async fn earlier(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        keys: &HashSet<&str>,
    ) -> Result<HashMap<String, Vec<Earlier>>, StoreError> {
        let mut by_key: HashMap<String, Vec<Earlier>> = HashMap::new();
        if !keys.is_empty() {
            let keys: Vec<&str> = keys.iter().copied().collect();
            for row in ledger::of_keys(tx, &keys)
                .await
                .map_err(StoreError::before_commit)?
            {
                by_key
                    .entry(row.idempotency_key.clone())
                    .or_default()
                    .push(row);
            }
        }
        Ok(by_key)
    }

    /// What the client is told of an error.
    fn tell(&self, error: &StoreError) -> SubmitError {
        match error {
            StoreError::Database(_) | StoreError::Away(_) | StoreError::Crowded => {
                SubmitError::Away
            }
            StoreError::Full => SubmitError::Full {
                max: self.settings.outbox_max,
            },
            StoreError::Unknown(_) => SubmitError::Unknown,
        }
    }

    fn envelope(&self, submission: &Submission, text: &Text, stored: &Stored) -> Envelope {
        let message = Message {
            number: stored.number,
            text: text.as_str().to_owned(),
        };
        Envelope {
            message_id: stored.message_id,
            kind: self.settings.kind.to_owned(),
            accepted_at: stored.accepted_at,
            node: self.settings.node.clone(),
            run: submission.run.clone(),
            attempts: 0,
            redrive: 0,
            body: message.to_body(),
        }
    }
}

/// Why a group was not stored, as far as is known.
#[derive(Debug, thiserror::Error)]
enum StoreError {
    /// The database said no, and rolled back.
    #[error("{0}")]
    Database(sqlx::Error),
    /// There was no database to speak of, before anything was committed.
    #[error("{0}")]
    Away(String),
    /// Not all of the group fits into the outbox.
    #[error("the group does not fit into the outbox")]
    Crowded,
    /// The outbox is full.
    #[error("the outbox is full")]
    Full,
    /// It went silent at the commit.
    #[error("{0}")]
    Unknown(String),
}

impl StoreError {
    fn before_commit(error: sqlx::Error) -> Self {
        match &error {
            // 57P0x: it is being stopped, or just starting
            sqlx::Error::Database(said) if !said.code().is_some_and(|c| c.starts_with("57P")) => {
                Self::Database(error)
            }
            _ => Self::Away(error.to_string()),
        }
    }

    fn at_commit(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(_) => Self::Database(error),
            _ => Self::Unknown(error.to_string()),
        }
    }
}
