//! All SQL of pruning.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use daemon::database::within;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::many;
use crate::audit::ledger::{IDENTITY, options};
use crate::run::RunId;
use crate::say::{Usage, grouped};

/// Messages of one transaction.
const BATCH: i64 = 20_000;
const LIMIT: Duration = Duration::from_mins(5);
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// A connection of its own.
pub async fn connect(url: &str) -> Result<PgConnection> {
    let options = options(url)?;
    let connecting = PgConnection::connect_with(&options);
    // sqlx says all of it in one line
    let connected = within(ASK_LIMIT, connecting).await;
    connected.map_err(|error| Usage(format!("the ledger cannot be reached: {error}")).into())
}

/// Messages of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Messages {
    pub done: i64,
    /// Neither processed nor parked, or still in the outbox.
    pub open: i64,
}

impl Messages {
    /// For people.
    pub fn text(self) -> String {
        let done = many(self.done.unsigned_abs(), "message");
        match self.open {
            0 => format!("{done} in the ledger"),
            open => format!(
                "{done} in the ledger; {} stay: nothing came of them yet",
                grouped(open.unsigned_abs())
            ),
        }
    }
}

/// Done: it has an effect or is parked, and nobody will publish it again. One that was sent back is on its way.
const DONE: &str = "not exists (select from sender.outbox o where o.message_id = m.message_id)
    and not exists (select from receiver.outbox o where o.message_id = m.message_id)
    and (exists (select from receiver.processed p where p.message_id = m.message_id)
      or exists (select from receiver.dead_letter d where d.run = $1 and d.message_id = m.message_id
                    and d.state in ('parked', 'discarded')))";

/// How many messages would go, and how many would stay.
pub async fn count(ledger: &mut PgConnection, run: &RunId) -> Result<Messages> {
    let sql = format!(
        "select count(*) filter (where done) as done, count(*) filter (where not done) as open
           from (select {DONE} as done from sender.message m where m.run = $1) as messages"
    );
    let ask = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(run.as_str());
    Ok(within(LIMIT, ask.fetch_one(ledger)).await?)
}

/// Which ledger it is, if it says so.
pub async fn identity(ledger: &mut PgConnection) -> Option<String> {
    let ask = sqlx::query_scalar(IDENTITY);
    within(ASK_LIMIT, ask.fetch_one(ledger)).await.ok()
}

/// What its clock shows.
pub async fn now(ledger: &mut PgConnection) -> Result<DateTime<Utc>> {
    let ask = sqlx::query_scalar("select clock_timestamp()");
    Ok(within(ASK_LIMIT, ask.fetch_one(ledger)).await?)
}

/// How many messages still have rows that name the run.
pub async fn left(ledger: &mut PgConnection, run: &RunId) -> Result<i64> {
    let ask = sqlx::query_scalar(
        "select count(*) from (
             select message_id from sender.message where run = $1
             union select message_id from sender.outbox where run = $1
             union select message_id from receiver.processed where run = $1
             union select message_id from receiver.dead_letter where run = $1 and message_id is not null
         ) as messages",
    );
    Ok(within(LIMIT, ask.bind(run.as_str()).fetch_one(ledger)).await?)
}

/// Removes all rows of the messages of a run that are done; returns how many rows.
///
/// What keeps a copy of one from a second effect goes only if it is older than `until`, and without it never: the row of the
/// inbox, and the effect, which is asked when the inbox has forgotten it. An effect that stays is a bare row: it has no run
/// and no text any more, and the negative of its own number, which no receiver gives.
pub async fn remove_rows(
    ledger: &mut PgConnection,
    run: &RunId,
    until: Option<DateTime<Utc>>,
) -> Result<u64> {
    // in the order of the index of each table: no message is looked at twice, and those that stay are passed over
    let stored = format!(
        "select m.message_id, {DONE} as done from sender.message m
          where m.run = $1 and m.message_id > $2 order by m.message_id limit $3"
    );
    // what the sender does not know: effects and dead letters of ids that were never stored
    let strays = [
        "select distinct on (message_id) message_id, not exists (select from sender.message m where m.message_id = p.message_id)
            and not exists (select from sender.outbox o where o.message_id = p.message_id)
            and not exists (select from receiver.outbox o where o.message_id = p.message_id) as done
           from receiver.processed p where run = $1 and message_id > $2 order by message_id limit $3",
        "select distinct on (message_id) message_id, not exists (select from sender.message m where m.message_id = d.message_id)
            and not exists (select from sender.outbox o where o.message_id = d.message_id)
            and not exists (select from receiver.outbox o where o.message_id = d.message_id) as done
           from receiver.dead_letter d where run = $1 and message_id > $2 order by message_id limit $3",
    ];
    let mut removed = 0;
    for sql in [stored.as_str()].into_iter().chain(strays) {
        let mut last = Uuid::nil();
        loop {
            let ask = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).bind(run.as_str());
            let rows = within(LIMIT, ask.bind(last).bind(BATCH).fetch_all(&mut *ledger)).await?;
            let Some(end) = rows.last() else { break };
            last = end.try_get("message_id")?;
            let mut ids: Vec<Uuid> = Vec::new();
            for row in &rows {
                if row.try_get("done")? {
                    ids.push(row.try_get("message_id")?);
                }
            }
            if !ids.is_empty() {
                removed += remove(ledger, &ids, until).await?;
            }
        }
    }
    Ok(removed)
}

async fn remove(
    ledger: &mut PgConnection,
    ids: &[Uuid],
    until: Option<DateTime<Utc>>,
) -> Result<u64> {
    let tables = [
        "sender.message",
        "sender.publication",
        "receiver.failure",
        "receiver.given_up",
        "receiver.delivery",
        "receiver.dead_letter",
        "receiver.publication",
    ];
    let mut removed = 0;
    let mut transaction = within(ASK_LIMIT, ledger.begin()).await?;
    for table in tables {
        let sql = format!("delete from {table} where message_id = any($1)");
        let delete = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(ids);
        removed += within(LIMIT, delete.execute(&mut *transaction))
            .await?
            .rows_affected();
    }
    if let Some(until) = until {
        for sql in [
            "delete from receiver.inbox where message_id = any($1) and admitted_at < $2",
            "delete from receiver.processed where message_id = any($1) and processed_at < $2",
        ] {
            let delete = sqlx::query(sql).bind(ids).bind(until);
            removed += within(LIMIT, delete.execute(&mut *transaction))
                .await?
                .rows_affected();
        }
    }
    let bare = sqlx::query(
        "with gone as (delete from receiver.processed where message_id = any($1) and processed_id > 0 returning *)
         insert into receiver.processed (processed_id, message_id, number, text, node, attempt, redelivered, received_at,
                                         took_ms, processed_at)
         overriding system value
         select -processed_id, message_id, number, '', node, attempt, redelivered, received_at, took_ms, processed_at
           from gone",
    );
    within(LIMIT, bare.bind(ids).execute(&mut *transaction)).await?;
    within(ASK_LIMIT, transaction.commit()).await?;
    Ok(removed)
}

/// Removes the bare rows that were left when it was not certain that the queues are empty, if they are older than `until`;
/// returns how many.
pub async fn remove_bare(ledger: &mut PgConnection, until: DateTime<Utc>) -> Result<u64> {
    let (mut last, mut removed) = (i64::MIN, 0);
    loop {
        let delete = sqlx::query_scalar(
            "delete from receiver.processed where processed_id = any (array(
                 select processed_id from receiver.processed
                  where processed_id > $1 and processed_id < 0 and processed_at < $2
                  order by processed_id limit $3))
             returning processed_id",
        );
        let delete = delete.bind(last).bind(until).bind(BATCH);
        let gone: Vec<i64> = within(LIMIT, delete.fetch_all(&mut *ledger)).await?;
        let Some(end) = gone.iter().max() else {
            return Ok(removed);
        };
        last = *end;
        removed += gone.len() as u64;
    }
}
