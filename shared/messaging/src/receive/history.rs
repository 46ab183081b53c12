//! Deliveries, for people to read. Best effort: rows are dropped, and counted, when the database is
//! slow or away, and no verdict rests on them.
//!
//! A delivery that is settled quickly is one row, written afterwards. One that is still in hand after
//! [`VISIBLE_AFTER`] gets its row then, or with the others that are just gathering, so that a node that dies leaves a trace of
//! what it held.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::mpsc;
use tracing::debug;
use uuid::Uuid;

use crate::{bounded, numbers};

/// From when on a delivery in hand is seen.
pub const VISIBLE_AFTER: Duration = Duration::from_millis(50);

/// Most rows that wait to be written.
const CAPACITY: usize = 4_096;
/// How long rows of settled deliveries gather before they are written: each writing is a commit.
const GATHER: Duration = Duration::from_millis(100);

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its effect was committed.
    Processed,
    /// An earlier delivery's effect was committed already.
    Duplicate,
    /// Its work failed, and it went back to the queue.
    Failed,
    /// It was given up on.
    DeadLettered,
    /// It went back without having been worked on, or its link was lost.
    Returned,
}

impl Ending {
    fn as_str(self) -> &'static str {
        match self {
            Self::Processed => "processed",
            Self::Duplicate => "duplicate",
            Self::Failed => "failed",
            Self::DeadLettered => "dead-lettered",
            Self::Returned => "returned",
        }
    }
}

/// What is known of a delivery at its start.
#[derive(Debug, Clone)]
pub struct Begun {
    /// Its own id, made here.
    pub delivery_id: Uuid,
    /// The message, if it is one of ours.
    pub message_id: Option<Uuid>,
    /// From 1.
    pub attempt: i32,
    /// The broker's hint.
    pub redelivered: bool,
    /// When it came in.
    pub at: Instant,
}

struct Line {
    begun: Begun,
    ended: Option<(Instant, Ending, Option<String>)>,
}

/// Where deliveries are told. Never waits.
#[derive(Clone)]
pub struct History(mpsc::Sender<Line>);

/// The loop that writes them.
pub struct Recorder {
    lines: mpsc::Receiver<Line>,
    pool: PgPool,
    node: String,
}

/// Both ends.
pub fn history(pool: PgPool, node: String) -> (History, Recorder) {
    let (sender, lines) = mpsc::channel(CAPACITY);
    (History(sender), Recorder { lines, pool, node })
}

impl History {
    /// Follows one delivery; tell it the end, or drop it when the link is lost.
    pub fn begin(&self, begun: Begun) -> InHand<'_> {
        InHand {
            history: self,
            begun: Some(begun),
        }
    }

    fn tell(&self, line: Line) {
        if self.0.try_send(line).is_err() {
            metrics::counter!(numbers::HISTORY_DROPPED).increment(1);
        }
    }
}

/// A delivery in hand.
pub struct InHand<'a> {
    history: &'a History,
    begun: Option<Begun>,
}

impl InHand<'_> {
    /// It has been in hand for a while: let it be seen.
    pub fn show(&self) {
        if let Some(begun) = &self.begun {
            self.history.tell(Line {
                begun: begun.clone(),
                ended: None,
            });
        }
    }

    /// It ended.
    pub fn end(mut self, ending: Ending, cause: Option<String>) {
        if let Some(begun) = self.begun.take() {
            self.history.tell(Line {
                begun,
                ended: Some((Instant::now(), ending, cause)),
            });
        }
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            let cause = "the session with RabbitMQ ended".to_owned();
            let ended = Some((Instant::now(), Ending::Returned, Some(cause)));
            self.history.tell(Line { begun, ended });
        }
    }
}

impl Recorder {
    /// Writes lines until every [`History`] is gone.
    pub async fn run(mut self) {
        let mut lines = Vec::new();
        while self.lines.recv_many(&mut lines, CAPACITY).await > 0 {
            // What is still in hand begins no wait: it is the trace of a node that may die.
            if lines.iter().all(|line| line.ended.is_some()) {
                tokio::time::sleep(GATHER).await;
            }
            while let Ok(line) = self.lines.try_recv() {
                lines.push(line);
            }
            if let Err(error) = bounded(self.write(&lines)).await {
                debug!(%error, "a piece of history is lost");
                metrics::counter!(numbers::HISTORY_DROPPED)
                    .increment(u64::try_from(lines.len()).unwrap_or(0));
            }
            lines.clear();
        }
    }

    async fn write(&self, lines: &[Line]) -> Result<(), sqlx::Error> {
        // One statement may touch a row once only: keep the last line of each delivery.
        let mut last = std::collections::BTreeMap::new();
        for line in lines {
            last.insert(line.begun.delivery_id, line);
        }
        let lines: Vec<&Line> = last.into_values().collect();
        // Times are told as ages, so that the database's clock is the only one.
        let age = |at: Instant| i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX);
        let ended = |line: &&Line| line.ended.as_ref().map(|(at, ..)| age(*at));
        let outcome = |line: &&Line| line.ended.as_ref().map(|(_, ending, _)| ending.as_str());
        let cause = |line: &&Line| line.ended.as_ref().and_then(|(_, _, cause)| cause.clone());
        sqlx::query(
            "insert into delivery (delivery_id, message_id, node, attempt, redelivered, started_at,
                                   ended_at, outcome, cause)
             select id, message_id, $9, attempt, redelivered,
                    clock_timestamp() - begun * interval '1 ms',
                    clock_timestamp() - ended * interval '1 ms', outcome, cause
               from unnest($1::uuid[], $2::uuid[], $3::int[], $4::bool[], $5::bigint[], $6::bigint[],
                           $7::text[], $8::text[])
                 as row (id, message_id, attempt, redelivered, begun, ended, outcome, cause)
             on conflict (delivery_id) do update
                set ended_at = excluded.ended_at, outcome = excluded.outcome, cause = excluded.cause",
        )
        .bind(lines.iter().map(|l| l.begun.delivery_id).collect::<Vec<_>>())
        .bind(lines.iter().map(|l| l.begun.message_id).collect::<Vec<_>>())
        .bind(lines.iter().map(|l| l.begun.attempt).collect::<Vec<_>>())
        .bind(lines.iter().map(|l| l.begun.redelivered).collect::<Vec<_>>())
        .bind(lines.iter().map(|l| age(l.begun.at)).collect::<Vec<_>>())
        .bind(lines.iter().map(ended).collect::<Vec<_>>())
        .bind(lines.iter().map(outcome).collect::<Vec<_>>())
        .bind(lines.iter().map(cause).collect::<Vec<_>>())
        .bind(&self.node)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
