//! The loops that commit: many callers, one transaction, each with its own answer.
//!
//! What they do in it is a [`Deed`]; how that is begun, ended and told is the same for all of them. Between two lines: die
//! before the commit, and nothing happened; die after it, and it is done, and nobody was told. Lost at the commit: the outcome
//! is unknown, and that is what everybody in the group hears.

use std::{pin::pin, slice, sync::Arc, time::Duration};

use chaos::FailPoints;
use daemon::database::is_away;
use group_commit::{Committer, Group, group_commit};
use sqlx::{Connection, PgPool, Postgres, Transaction, pool::PoolConnection};
use tokio::time::{Instant, timeout, timeout_at};
use web::Error;

use crate::{message::BEGIN, numbers};

/// Most callers that wait for a commit; further ones wait for room.
const WAITING: usize = 1_024;
/// How long a caller waits for others at most, when several come at a time: see [`Committer::gathering`].
const GAP: Duration = Duration::from_millis(3);
/// The weight of a group, unless one item alone has more: it must be done well within [`LIMIT`].
const GROUP: usize = 2_000;
/// How long a caller waits for the database before it hears that it is away.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a connection is kept for a turn that does not come, as `messaging::Kept` does, which is not for services without a
/// broker: the pool's test costs three round trips for each use, and a link that goes within it would as likely have gone in
/// the middle of a turn.
const KEPT_FOR: Duration = Duration::from_millis(5);

/// What is done for a group in one transaction.
pub(crate) trait Deed: Send + Sync {
    /// What one caller hands in.
    type Item: Send + Sync;
    /// What it gets.
    type Answer: Send;
    /// In metrics.
    const NAME: &'static str;
    /// Before and after the commit.
    const FAIL_POINTS: Option<[&'static str; 2]>;

    /// What it adds to a group.
    fn weight(item: &Self::Item) -> usize;

    /// Everything but the commit: the answers that will be true after it, one for each item.
    fn carry_out(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        group: &[Self::Item],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, sqlx::Error>> + Send;

    /// Counts what was committed.
    fn done(&self, group: &[Self::Item], answers: &[Self::Answer]);
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    /// There was no database to speak of, before anything was committed.
    #[error("the database is away; nothing was done: {0}")]
    Away(String),
    /// It went silent at the commit.
    #[error("whether it was done is unknown: {0}")]
    Unknown(String),
    /// The database said no, and rolled back.
    #[error("the database refused: {0}")]
    Refused(Arc<sqlx::Error>),
}

/// Where a deed is asked for. Clones share the loop.
pub(crate) struct Desk<D: Deed>(Group<D::Item, Result<D::Answer, Failure>>);

impl<D: Deed> Desk<D> {
    /// Waits until it is committed, or is known or feared not to be.
    pub(crate) async fn ask(&self, item: D::Item) -> Result<D::Answer, Failure> {
        let closed = |_| Failure::Unknown("the process is stopping".to_owned());
        self.0.hand_in(item).await.map_err(closed)?
    }
}

/// The loop that does a deed.
pub(crate) struct Clerk<D: Deed> {
    deed: D,
    asked: Committer<D::Item, Result<D::Answer, Failure>>,
    pool: PgPool,
    kept: Option<PoolConnection<Postgres>>,
    fail_points: FailPoints,
}

/// Both ends.
pub(crate) fn clerk<D: Deed>(
    deed: D,
    pool: &PgPool,
    fail_points: &FailPoints,
) -> (Desk<D>, Clerk<D>) {
    let (group, committer) = group_commit(WAITING);
    let clerk = Clerk {
        deed,
        asked: committer.gathering(GAP),
        pool: pool.clone(),
        kept: None,
        fail_points: fail_points.clone(),
    };
    (Desk(group), clerk)
}

impl<D: Deed> Clerk<D> {
    /// Works until nobody can ask any more.
    pub(crate) async fn run(mut self) {
        while let Some((group, answers)) = self.next().await {
            let results = match self.commit(&group).await {
                Ok(results) => results.into_iter().map(Ok).collect(),
                // Something about one of them: each alone.
                Err(Failure::Refused(error)) if group.len() > 1 => {
                    tracing::info!(%error, deed = D::NAME, items = group.len(), "a group failed, each is tried alone");
                    self.each_alone(&group).await
                }
                Err(failure) => {
                    tracing::warn!(%failure, deed = D::NAME, items = group.len(), "not done");
                    group.iter().map(|_| Err(failure.clone())).collect()
                }
            };
            answers.send(results);
        }
    }

    /// The next group. When it does not come soon, the pool gets the connection back.
    async fn next(
        &mut self,
    ) -> Option<(
        Vec<D::Item>,
        group_commit::Answers<Result<D::Answer, Failure>>,
    )> {
        let mut next = pin!(self.asked.next_weighed(GROUP, D::weight));
        if self.kept.is_some() {
            if let Ok(soon) = timeout(KEPT_FOR, &mut next).await {
                return soon;
            }
            self.kept = None;
        }
        next.await
    }

    /// One after the other, until the database is away: nobody after that has to wait to hear it.
    async fn each_alone(&mut self, group: &[D::Item]) -> Vec<Result<D::Answer, Failure>> {
        let mut results: Vec<Result<D::Answer, Failure>> = Vec::with_capacity(group.len());
        for item in group {
            let away = match results.last() {
                Some(Err(Failure::Away(why))) => Some(Failure::Away(why.clone())),
                _ => None,
            };
            results.push(match away {
                Some(away) => Err(away),
                None => match self.commit(slice::from_ref(item)).await {
                    Ok(answers) => answers
                        .into_iter()
                        .next()
                        .ok_or_else(|| Failure::Unknown("nothing was answered".to_owned())),
                    Err(failure) => Err(failure),
                },
            });
        }
        results
    }

    async fn commit(&mut self, group: &[D::Item]) -> Result<Vec<D::Answer>, Failure> {
        let until = Instant::now() + LIMIT;
        let late = |_| Failure::Away("no answer in time".to_owned());
        let mut connection = match self.kept.take() {
            Some(connection) => connection,
            None => timeout_at(until, self.pool.acquire())
                .await
                .map_err(late)?
                .map_err(Failure::before_commit)?,
        };
        let prepare = async {
            let mut tx = connection.begin_with(BEGIN).await?;
            let answers = self.deed.carry_out(&mut tx, group).await?;
            Ok((tx, answers))
        };
        let prepared = timeout_at(until, prepare).await.map_err(late)?;
        let (tx, answers) = prepared.map_err(Failure::before_commit)?;
        if let Some([before, _]) = D::FAIL_POINTS
            && let Err(injected) = self.fail_points.hit(before).await
        {
            // Nothing may be left to chance: say what was done, not what was meant.
            let _ = timeout(LIMIT, tx.rollback()).await;
            return Err(Failure::Away(injected.to_string()));
        }
        match timeout(LIMIT, tx.commit()).await {
            Ok(committed) => committed.map_err(Failure::at_commit)?,
            Err(_) => return Err(Failure::Unknown("no answer to the commit".to_owned())),
        }
        self.kept = Some(connection);
        numbers::committed(D::NAME);
        self.deed.done(group, &answers);
        if let Some([_, after]) = D::FAIL_POINTS
            && let Err(injected) = self.fail_points.hit(after).await
        {
            return Err(Failure::Unknown(injected.to_string()));
        }
        Ok(answers)
    }
}

impl Failure {
    fn before_commit(error: sqlx::Error) -> Self {
        if is_away(&error) {
            Self::Away(error.to_string())
        } else {
            Self::Refused(Arc::new(error))
        }
    }

    fn at_commit(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(_) => Self::before_commit(error),
            _ => Self::Unknown(error.to_string()),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let cause = anyhow::Error::new(failure.clone());
        match failure {
            Failure::Away(_) => away().because(cause),
            Failure::Unknown(_) => Self::away(
                "The database went silent at the commit, so whether this was done is unknown.",
            )
            .coded("outcome_unknown")
            .because(cause),
            Failure::Refused(_) => Self::internal(cause),
        }
    }
}

/// 503: nothing was done.
pub(crate) fn away() -> Error {
    Error::away("The database is away; nothing was done. Try again.").coded("database_away")
}
