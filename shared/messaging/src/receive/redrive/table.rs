//! Orders to send dead letters back: planned, started, cancelled, looked at. All of it may be said twice.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{FromRow, PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    not_done::NotDone,
    selection::Selection,
    settled,
    walk::{self, in_time},
};
use crate::receive::handler::Handler;

/// Dead letters of one order, or of one discard, at most: each is one transaction.
pub(super) const MOST: i64 = 100_000;
/// Ids that are asked about in one query.
const ASK: usize = 5_000;

/// What becomes of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "kebab-case")]
#[sqlx(type_name = "text", rename_all = "kebab-case")]
pub enum State {
    /// It is known what it would do; nothing is done.
    Planned,
    /// Receivers are at it.
    Running,
    /// Ended before its end.
    Cancelled,
    /// Ended.
    Done,
}

impl State {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
        }
    }
}

/// An order, and how far it is.
#[derive(Debug, Clone, Serialize, Deserialize, FromRow)]
pub struct Redrive {
    /// Its id.
    pub redrive_id: Uuid,
    /// Where it stands.
    pub state: State,
    /// What was asked for; null in a list, since it may name very many ids.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub selection: Value,
    /// What was parked later is not in it.
    pub cut_off: DateTime<Utc>,
    /// Messages a second at most.
    pub per_second: i32,
    /// Who asked.
    pub who: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When it was started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Dead letters that it is about.
    pub selected: i64,
    /// How many of them had an effect when it was planned, so that replaying them changes nothing.
    pub had_effect: i64,
    /// Dead letters that fit, and cannot be sent back since they are no messages of ours.
    pub not_ours: i64,
    /// Sent back so far.
    pub redriven: i64,
    /// Found to have their effect, so not sent back.
    pub has_effect: i64,
    /// About which somebody else had decided, or which cannot be read as a message of ours: these stay parked.
    pub gone: i64,
}

impl Redrive {
    /// Of the table, for a list: without the selection, which may be long.
    pub const COLUMNS: &str =
        "redrive_id, state, cut_off, per_second, who, created_at, started_at, ended_at, selected,
         had_effect, not_ours, redriven, has_effect, gone, 'null'::jsonb as selection";

    /// How it stands, for people.
    pub fn word(&self) -> &'static str {
        if self.state == State::Cancelled && self.started_at.is_none() {
            return "given up before it began";
        }
        self.state.word()
    }

    /// In a sentence, what it would do.
    pub fn plan(&self) -> String {
        let new = self.selected - self.had_effect;
        let known = match self.had_effect {
            0 => String::new(),
            1 => "1 already has an effect, so replaying it changes nothing; ".to_owned(),
            some => format!("{some} already have an effect, so replaying them changes nothing; "),
        };
        let not_ours = match self.not_ours {
            0 => String::new(),
            1 => "; 1 more is not a message of ours and stays".to_owned(),
            some => format!("; {some} more are not messages of ours and stay"),
        };
        format!("{} selected: {known}{new} new{not_ours}", self.selected)
    }

    /// Dead letters that are not decided yet. None of an order that is done: what is missing from its counts then was pruned.
    pub fn left(&self) -> i64 {
        match self.state {
            State::Done => 0,
            State::Planned | State::Running | State::Cancelled => {
                self.selected - self.redriven - self.has_effect - self.gone
            }
        }
    }
}

/// What to plan.
#[derive(Debug, Clone)]
pub struct Order {
    /// Made by who asks, so that asking twice is one order.
    pub redrive_id: Uuid,
    /// Which dead letters.
    pub selection: Selection,
    /// Messages a second at most.
    pub per_second: i32,
    /// Who asks.
    pub who: String,
}

/// All orders.
pub struct Redrives<H> {
    pub(super) pool: PgPool,
    pub(super) handler: Arc<H>,
    pub(super) wake: Arc<Notify>,
}

impl<H> Clone for Redrives<H> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            handler: Arc::clone(&self.handler),
            wake: Arc::clone(&self.wake),
        }
    }
}

impl<H: Handler> Redrives<H> {
    /// Of this database. `handler` knows which messages have their effect.
    pub fn new(pool: PgPool, handler: Arc<H>) -> Self {
        Self {
            pool,
            handler,
            wake: Arc::default(),
        }
    }

    /// Fixes what an order is about, and stores it; a dry run stores nothing. Asked for a second time it is as it was.
    ///
    /// # Errors
    /// See [`NotDone`]: nothing is stored then. So it is with an order of nothing.
    pub async fn plan(&self, order: &Order, dry_run: bool) -> Result<Redrive, NotDone> {
        let mut tx = self.pool.begin().await?;
        let new = sqlx::query(
            "insert into redrive (redrive_id, selection, per_second, who) values ($1, $2, $3, $4)
             on conflict do nothing",
        )
        .bind(order.redrive_id)
        .bind(serde_json::json!(order.selection))
        .bind(order.per_second)
        .bind(&order.who)
        .execute(&mut *tx)
        .await?;
        if new.rows_affected() == 1 {
            in_time(self.select(&mut tx, order)).await?;
        }
        let planned = get(&mut tx, order.redrive_id).await?;
        if dry_run {
            tx.rollback().await?;
        } else {
            tx.commit().await?;
        }
        Ok(planned)
    }

    async fn select(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        order: &Order,
    ) -> Result<(), NotDone> {
        settled::check(tx, &order.selection).await?;
        let fit = walk::ours(tx, order).await?;
        let ids = fit.ids.ok_or(NotDone::TooMany)?;
        let items = sqlx::query(
            "insert into redrive_item (redrive_id, dead_letter_id)
             select $1, d.dead_letter_id from dead_letter d where d.dead_letter_id = any ($2)",
        )
        .bind(order.redrive_id)
        .bind(&ids)
        .execute(&mut **tx)
        .await?;
        if items.rows_affected() == 0 {
            return Err(settled::nothing(tx, &order.selection, fit.not_ours).await?);
        }
        self.count(tx, order.redrive_id, fit.not_ours).await
    }

    /// Notes how many an order is about, and how many of them have their effect.
    async fn count(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        redrive_id: Uuid,
        not_ours: i64,
    ) -> Result<(), NotDone> {
        let ids: Vec<Uuid> = sqlx::query_scalar(
            "select d.message_id from redrive_item i join dead_letter d using (dead_letter_id)
              where i.redrive_id = $1",
        )
        .bind(redrive_id)
        .fetch_all(&mut **tx)
        .await?;
        let done = effects(&*self.handler, tx, &ids).await?;
        let had_effect = ids.iter().filter(|id| done.contains(*id)).count();
        sqlx::query(
            "update redrive set selected = $2, had_effect = $3, not_ours = $4 where redrive_id = $1",
        )
        .bind(redrive_id)
        .bind(i64::try_from(ids.len()).unwrap_or(i64::MAX))
        .bind(i64::try_from(had_effect).unwrap_or(i64::MAX))
        .bind(not_ours)
        .execute(&mut **tx)
        .await?;
        Ok(())
    }

    /// Lets receivers at it.
    ///
    /// # Errors
    /// It was cancelled, or never planned.
    pub async fn start(&self, redrive_id: Uuid) -> Result<Redrive, NotDone> {
        let started = self
            .turn(
                "update redrive set state = 'running', started_at = coalesce(started_at, clock_timestamp())
                  where redrive_id = $1 and state in ('planned', 'running')",
                redrive_id,
            )
            .await?;
        self.wake.notify_waiters();
        match started.state {
            State::Cancelled => Err(NotDone::Ended),
            State::Planned | State::Running | State::Done => Ok(started),
        }
    }

    /// Ends it. Waits for the batch that is being done, so that its counts are final.
    ///
    /// # Errors
    /// There is no such order.
    pub async fn cancel(&self, redrive_id: Uuid) -> Result<Redrive, NotDone> {
        self.turn(
            "update redrive set state = 'cancelled', ended_at = clock_timestamp(), lease = null, leased_until = null
              where redrive_id = $1 and state in ('planned', 'running')",
            redrive_id,
        )
        .await
    }

    async fn turn(&self, sql: &'static str, redrive_id: Uuid) -> Result<Redrive, NotDone> {
        let mut tx = self.pool.begin().await?;
        sqlx::query(sql).bind(redrive_id).execute(&mut *tx).await?;
        let now = get(&mut tx, redrive_id).await?;
        tx.commit().await?;
        Ok(now)
    }

    /// One of them.
    ///
    /// # Errors
    /// There is no such order.
    pub async fn get(&self, redrive_id: Uuid) -> Result<Redrive, NotDone> {
        let mut connection = self.pool.acquire().await?;
        get(&mut connection, redrive_id).await
    }

    /// The newest, the newest first, without their selections.
    ///
    /// # Errors
    /// The database's.
    pub async fn list(&self, most: i64) -> Result<Vec<Redrive>, NotDone> {
        let sql = format!(
            "select {} from redrive order by created_at desc limit $1",
            Redrive::COLUMNS
        );
        let list = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(most);
        Ok(list.fetch_all(&self.pool).await?)
    }

    /// Throws dead letters away: their rows stay, with who said so and when. Only if there are as many as was confirmed. Said
    /// twice it finds none the second time, so it must not be repeated by who does not ask a person again.
    ///
    /// # Errors
    /// There are more or fewer, none, or too many, or one that is named is not parked; nothing is done then.
    pub async fn discard(
        &self,
        selection: &Selection,
        confirmed: i64,
        who: &str,
    ) -> Result<i64, NotDone> {
        let mut tx = self.pool.begin().await?;
        let discarded = in_time(walk::discard(&mut tx, selection, confirmed, who)).await?;
        tx.commit().await?;
        tracing::info!(discarded, who, "dead letters were discarded");
        Ok(discarded)
    }
}

async fn get(connection: &mut PgConnection, redrive_id: Uuid) -> Result<Redrive, NotDone> {
    let found = sqlx::query_as("select * from redrive where redrive_id = $1").bind(redrive_id);
    let found: Option<Redrive> = found.fetch_optional(connection).await?;
    found.ok_or(NotDone::Unknown(redrive_id))
}

/// Which of these messages have their effect: by the inbox, and of those that it does not know by the effects themselves.
pub(super) async fn effects<H: Handler>(
    handler: &H,
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let mut all = HashSet::new();
    for some in ids.chunks(ASK) {
        let known: Vec<Uuid> = sqlx::query_scalar(
            "select asked.id from unnest($1::uuid[]) as asked (id)
              where (select true from inbox where inbox.message_id = asked.id)",
        )
        .bind(some)
        .fetch_all(&mut *connection)
        .await?;
        all.extend(known);
        let others: Vec<Uuid> = some
            .iter()
            .copied()
            .filter(|id| !all.contains(id))
            .collect();
        all.extend(handler.done(connection, &others).await?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(selected: i64, had_effect: i64, not_ours: i64) -> Redrive {
        let at = DateTime::default();
        Redrive {
            redrive_id: Uuid::nil(),
            state: State::Planned,
            selection: Value::Null,
            cut_off: at,
            per_second: 1,
            who: String::new(),
            created_at: at,
            started_at: None,
            ended_at: None,
            selected,
            had_effect,
            not_ours,
            redriven: 0,
            has_effect: 0,
            gone: 0,
        }
    }

    fn plan(selected: i64, had_effect: i64, not_ours: i64) -> String {
        order(selected, had_effect, not_ours).plan()
    }

    #[test]
    fn a_cancelled_one_tells_whether_it_had_begun() {
        let mut redrive = order(3, 0, 0);
        assert_eq!(redrive.word(), "planned");
        redrive.state = State::Cancelled;
        assert_eq!(redrive.word(), "given up before it began");
        redrive.started_at = Some(DateTime::default());
        assert_eq!(redrive.word(), "cancelled");
    }

    #[test]
    fn a_plan_says_what_replaying_would_change() {
        assert_eq!(
            plan(412, 9, 0),
            "412 selected: 9 already have an effect, so replaying them changes nothing; 403 new"
        );
        assert_eq!(plan(1, 0, 0), "1 selected: 1 new");
        assert_eq!(
            plan(3, 1, 2),
            "3 selected: 1 already has an effect, so replaying it changes nothing; 2 new; 2 more are not messages of ours and stay"
        );
    }
}
