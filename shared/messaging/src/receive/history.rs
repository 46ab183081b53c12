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

use super::sessions::{self, Told};
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

/// How a delivery left the hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is dealt with.
    Ack,
    /// Back to the queue.
    Nack,
    /// The same by basic.reject.
    Reject,
    /// Acked, after a rung of the ladder has confirmed it.
    Ladder,
    /// By the end of the session.
    Drop,
    /// To the dead letters.
    DeadLetter,
}

impl Answer {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Nack => "nack",
            Self::Reject => "reject",
            Self::Ladder => "ladder",
            Self::Drop => "drop",
            Self::DeadLetter => "dead-letter",
        }
    }
}

/// The end of a delivery.
#[derive(Debug, Clone)]
pub struct End {
    /// How it ended.
    pub ending: Ending,
    /// Why, in words.
    pub cause: Option<String>,
    /// How it leaves the hand; none where its session ended first.
    pub answer: Option<Answer>,
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
    /// The broker's count of earlier deliveries, where it counts.
    pub earlier: Option<i32>,
    /// The session in which it came.
    pub session: Option<Uuid>,
    /// The broker's hint.
    pub redelivered: bool,
    /// When it came in.
    pub at: Instant,
}

struct Line {
    begun: Begun,
    ended: Option<(Instant, End)>,
}

/// What a session comes to, see [`super::sessions`].
enum News {
    Delivery(Line),
    Session(Told),
}

/// Where deliveries are told. Never waits.
#[derive(Clone)]
pub struct History(mpsc::Sender<News>);

/// The loop that writes them.
pub struct Recorder {
    news: mpsc::Receiver<News>,
    pool: PgPool,
    node: String,
    /// This process.
    boot: Uuid,
}

/// Both ends.
pub fn history(pool: PgPool, node: String) -> (History, Recorder) {
    let (sender, news) = mpsc::channel(CAPACITY);
    let boot = Uuid::now_v7();
    (
        History(sender),
        Recorder {
            news,
            pool,
            node,
            boot,
        },
    )
}

impl History {
    /// Follows one delivery; tell it the end, or drop it when the link is lost.
    pub fn begin(&self, begun: Begun) -> InHand<'_> {
        InHand {
            history: self,
            begun: Some(begun),
        }
    }

    /// Of a session.
    pub(super) fn session(&self, told: Told) {
        self.send(News::Session(told));
    }

    fn tell(&self, line: Line) {
        self.send(News::Delivery(line));
    }

    fn send(&self, news: News) {
        if self.0.try_send(news).is_err() {
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
    pub fn end(mut self, end: End) {
        if let Some(begun) = self.begun.take() {
            self.history.tell(Line {
                begun,
                ended: Some((Instant::now(), end)),
            });
        }
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            let end = End {
                ending: Ending::Returned,
                cause: Some("the session with RabbitMQ ended".to_owned()),
                answer: None,
            };
            let ended = Some((Instant::now(), end));
            self.history.tell(Line { begun, ended });
        }
    }
}

impl Recorder {
    /// Writes news until every [`History`] is gone.
    pub async fn run(mut self) {
        let mut news = Vec::new();
        while self.news.recv_many(&mut news, CAPACITY).await > 0 {
            // What is still in hand begins no wait: it is the trace of a node that may die.
            let settled =
                |news: &News| matches!(news, News::Delivery(line) if line.ended.is_some());
            if news.iter().all(settled) {
                tokio::time::sleep(GATHER).await;
            }
            while let Ok(more) = self.news.try_recv() {
                news.push(more);
            }
            let (mut lines, mut sessions) = (Vec::new(), Vec::new());
            for news in news.drain(..) {
                match news {
                    News::Delivery(line) => lines.push(line),
                    News::Session(told) => sessions.push(told),
                }
            }
            self.keep(sessions::write(
                &self.pool, self.boot, &self.node, &sessions,
            ))
            .await;
            if !lines.is_empty() && !self.keep(self.write(&lines)).await {
                metrics::counter!(numbers::HISTORY_DROPPED)
                    .increment(u64::try_from(lines.len()).unwrap_or(0));
            }
        }
    }

    /// Whether it was written.
    async fn keep(&self, written: impl Future<Output = Result<(), sqlx::Error>>) -> bool {
        match bounded(written).await {
            Ok(()) => true,
            Err(error) => {
                debug!(%error, "a piece of history is lost");
                false
            }
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
        let ended = |line: &&Line| line.ended.as_ref().map(|(at, _)| age(*at));
        let end = |line: &&Line| line.ended.as_ref().map(|(_, end)| end.clone());
        let outcome = |line: &&Line| end(line).map(|end| end.ending.as_str());
        let cause = |line: &&Line| end(line).and_then(|end| end.cause);
        let answer = |line: &&Line| end(line).and_then(|end| end.answer).map(Answer::as_str);
        sqlx::query(
            "insert into delivery (delivery_id, message_id, node, attempt, redelivered, started_at,
                                   ended_at, outcome, cause, answer, earlier, session, boot)
             select id, message_id, $9, attempt, redelivered,
                    clock_timestamp() - begun * interval '1 ms',
                    clock_timestamp() - ended * interval '1 ms', outcome, cause, answer, earlier, session, $13
               from unnest($1::uuid[], $2::uuid[], $3::int[], $4::bool[], $5::bigint[], $6::bigint[],
                           $7::text[], $8::text[], $10::text[], $11::int[], $12::uuid[])
                 as row (id, message_id, attempt, redelivered, begun, ended, outcome, cause, answer, earlier,
                         session)
             on conflict (delivery_id) do update
                set ended_at = excluded.ended_at, outcome = excluded.outcome, cause = excluded.cause,
                    answer = excluded.answer",
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
        .bind(lines.iter().map(answer).collect::<Vec<_>>())
        .bind(lines.iter().map(|l| l.begun.earlier).collect::<Vec<_>>())
        .bind(lines.iter().map(|l| l.begun.session).collect::<Vec<_>>())
        .bind(self.boot)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
