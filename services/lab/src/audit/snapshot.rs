//! One moment of the ledger, and what an audit reads of it: all SQL but that of how far a run is (`ledger.rs`).
//!
//! The streams of a [`Snapshot`] are of one moment: three connections share what the first one sees.

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use daemon::database::within;
use futures::stream::{Stream, StreamExt};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use super::figures::{Cause, NodeCounts};
use super::ledger::{LIMIT, Ledger, about};
use super::merge::{Dead, DeadRow, EffectRow, MessageRow};
use crate::run::RunId;
use crate::run::job::Books;

/// Most causes that are told.
const CAUSES: i64 = 20;

/// One moment of the ledger, on three connections.
#[derive(Debug)]
pub struct Snapshot {
    books: &'static Books,
    messages: PgConnection,
    effects: PgConnection,
    dead: PgConnection,
    /// When it was, by the database's clock.
    pub taken_at: DateTime<Utc>,
}

impl Snapshot {
    /// That of now.
    pub(super) async fn take(ledger: &Ledger, books: &'static Books) -> Result<Self> {
        let mut messages = ledger.connect().await?;
        begin(&mut messages, None).await?;
        let ask = sqlx::query_as("select pg_export_snapshot(), clock_timestamp()");
        let (name, taken_at): (String, DateTime<Utc>) =
            within(LIMIT, ask.fetch_one(&mut messages)).await?;
        let mut effects = ledger.connect().await?;
        begin(&mut effects, Some(&name)).await?;
        let mut dead = ledger.connect().await?;
        begin(&mut dead, Some(&name)).await?;
        Ok(Self {
            books,
            messages,
            effects,
            dead,
            taken_at,
        })
    }

    /// The rows of a run, each stream in the order of message ids; one that is not read asks nothing.
    pub fn streams<'a>(
        &'a mut self,
        run: &'a RunId,
    ) -> (
        impl Stream<Item = Result<MessageRow>> + Send + 'a,
        impl Stream<Item = Result<EffectRow>> + Send + 'a,
        impl Stream<Item = Result<DeadRow>> + Send + 'a,
    ) {
        let books = self.books;
        let messages = sqlx::query(about(
            books,
            "select message_id, idempotency_key, position, {accepted_at}
               from {accepted} where run = $1 order by message_id",
        ));
        let effects = sqlx::query(about(
            books,
            "select message_id, {processed_at}, attempt, redelivered
               from {effects} where run = $1 order by message_id",
        ));
        let dead = sqlx::query(about(
            books,
            // what was sent back is on its way like any other; what was discarded was given up on all the same
            "select message_id, dead_at, state = 'discarded', case when state = 'redriven' then decided_at end
               from {work}.dead_letter
              where run = $1 and message_id is not null and state in ('parked', 'discarded', 'redriven')
              order by message_id",
        ));
        let us = |row: &PgRow, column: usize| -> Result<i64, sqlx::Error> {
            Ok(row.try_get::<DateTime<Utc>, _>(column)?.timestamp_micros())
        };
        let message = move |row: &PgRow| -> Result<MessageRow, sqlx::Error> {
            Ok(MessageRow {
                id: row.try_get(0)?,
                number: run.number_of(row.try_get(1)?),
                position: row.try_get(2)?,
                accepted_us: us(row, 3)?,
            })
        };
        let effect = move |row: &PgRow| -> Result<EffectRow, sqlx::Error> {
            Ok(EffectRow {
                id: row.try_get(0)?,
                processed_us: us(row, 1)?,
                attempt: row.try_get(2)?,
                redelivered: row.try_get(3)?,
            })
        };
        let parked = move |row: &PgRow| -> Result<DeadRow, sqlx::Error> {
            let sent_back: Option<DateTime<Utc>> = row.try_get(3)?;
            let now = match sent_back {
                Some(at) => Dead::SentBack(at.timestamp_micros()),
                None if row.try_get(2)? => Dead::Discarded,
                None => Dead::Parked,
            };
            Ok(DeadRow {
                id: row.try_get(0)?,
                dead_us: us(row, 1)?,
                now,
            })
        };
        (
            read(
                messages.bind(run.as_str()).fetch(&mut self.messages),
                message,
            ),
            read(effects.bind(run.as_str()).fetch(&mut self.effects), effect),
            read(dead.bind(run.as_str()).fetch(&mut self.dead), parked),
        )
    }

    /// The accounts of a run, in the order of the ids of their mails: id, and when it was made.
    pub async fn accounts(&mut self, run: &RunId) -> Result<Vec<(Uuid, i64)>> {
        let ask = sqlx::query_as(about(
            self.books,
            "select message_id, {accepted_at} from {accepted} where run = $1 order by message_id",
        ));
        let rows: Vec<(Uuid, DateTime<Utc>)> =
            within(LIMIT, ask.bind(run.as_str()).fetch_all(&mut self.messages)).await?;
        let rows = rows.into_iter();
        Ok(rows.map(|(id, at)| (id, at.timestamp_micros())).collect())
    }

    /// What each node did.
    pub async fn nodes(&mut self, run: &RunId) -> Result<Vec<(String, NodeCounts)>> {
        let ask = sqlx::query_as(about(
            self.books,
            "select node, sum(accepted)::bigint, sum(effects)::bigint, sum(parked)::bigint from (
                select node, count(*) as accepted, 0 as effects, 0 as parked
                  from {accepted} where run = $1 group by node
                union all
                select node, 0, count(*), 0 from {effects} where run = $1 group by node
                union all
                select node, 0, 0, count(*) from {work}.dead_letter
                 where run = $1 and state in ('parked', 'discarded') group by node
             ) each group by node",
        ));
        let rows: Vec<(String, i64, i64, i64)> =
            within(LIMIT, ask.bind(run.as_str()).fetch_all(&mut self.messages)).await?;
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        let rows = rows.into_iter().map(|(node, accepted, effects, parked)| {
            let counts = NodeCounts {
                accepted: count(accepted),
                effects: count(effects),
                parked: count(parked),
            };
            (node, counts)
        });
        Ok(rows.collect())
    }

    /// How many failures of the work there were, and why deliveries ended without an effect.
    pub async fn causes(&mut self, run: &RunId) -> Result<(u64, Vec<Cause>)> {
        let ask = sqlx::query_as(about(
            self.books,
            "select count(*) from {work}.failure join {accepted} m using (message_id)
              where m.run = $1",
        ));
        let (failures,): (i64,) =
            within(LIMIT, ask.bind(run.as_str()).fetch_one(&mut self.dead)).await?;
        let ask = sqlx::query_as(about(
            self.books,
            "select coalesce(d.outcome, 'unsettled'), d.cause, count(*)
               from {work}.delivery d join {accepted} m using (message_id)
              where m.run = $1 and d.outcome is distinct from 'processed'
              group by 1, 2 order by 3 desc, 1, 2 limit $2",
        ));
        let rows: Vec<(String, Option<String>, i64)> = within(
            LIMIT,
            ask.bind(run.as_str())
                .bind(CAUSES)
                .fetch_all(&mut self.effects),
        )
        .await?;
        let causes = rows.into_iter().map(|(outcome, cause, deliveries)| Cause {
            outcome,
            cause,
            deliveries: u64::try_from(deliveries).unwrap_or(0),
        });
        Ok((u64::try_from(failures).unwrap_or(0), causes.collect()))
    }

    /// The messages stored under these keys: id, key and position.
    pub async fn of_keys(&mut self, keys: &[String]) -> Result<Vec<(Uuid, String, i32)>> {
        let ask = sqlx::query_as(about(
            self.books,
            "select message_id, idempotency_key, position from {accepted}
              where idempotency_key = any($1) order by idempotency_key, position, message_id",
        ));
        Ok(within(LIMIT, ask.bind(keys).fetch_all(&mut self.messages)).await?)
    }

    /// The keys of these messages, where they are stored.
    pub async fn of_ids(&mut self, ids: &[Uuid]) -> Result<Vec<(Uuid, String, i32)>> {
        let ask = sqlx::query_as(about(
            self.books,
            "select message_id, idempotency_key, position from {accepted}
              where message_id = any($1) order by message_id",
        ));
        Ok(within(LIMIT, ask.bind(ids).fetch_all(&mut self.messages)).await?)
    }

    /// Everything about these messages, in the order of time: id, when, what.
    pub async fn history(&mut self, ids: &[Uuid]) -> Result<Vec<(Uuid, DateTime<Utc>, String)>> {
        let ask = sqlx::query_as(about(
            self.books,
            "select message_id, at, what from (
                select message_id, {accepted_at} as at, 1 as turn,
                       format('accepted by %s as %s', node, {called}) as what
                  from {accepted} where message_id = any($1)
                union all
                select message_id, accepted_at, 2,
                       format('in the outbox: %s, %s tries so far', state, tries)
                  from {accept}.outbox where message_id = any($1)
                union all
                select message_id, published_at, 3,
                       format('published by %s, try %s: %s after %s ms', node, try, outcome, confirm_ms)
                  from {accept}.publication where message_id = any($1)
                union all
                select message_id, started_at, 4,
                       format('delivered to %s, attempt %s%s: %s%s%s', node, attempt,
                              case when redelivered then ', redelivered' end,
                              coalesce(outcome, 'not settled as far as is known'),
                              ' (' || cause || ')',
                              ' after ' || (extract(epoch from ended_at - started_at) * 1000)::bigint || ' ms')
                  from {work}.delivery where message_id = any($1)
                union all
                select message_id, failed_at, 5,
                       format('its work failed at %s, attempt %s: %s', node, attempt, reason)
                  from {work}.failure where message_id = any($1)
                union all
                select message_id, {processed_at}, 6,
                       format('EFFECT by %s, attempt %s%s, after %s ms in hand', node, attempt,
                              case when redelivered then ', redelivered' end, took_ms)
                  from {effects} where message_id = any($1)
                union all
                select message_id, dead_at, 7, format('parked by %s: %s', node, reason)
                  from {work}.dead_letter where message_id = any($1)
                union all
                select message_id, decided_at, 8,
                       case state when 'redriven' then format('sent back on purpose, by redrive %s', redriven_by)
                                  when 'discarded' then format('discarded by %s', {discarded_by})
                                  else 'not sent back: it has its effect' end
                  from {work}.dead_letter where message_id = any($1) and decided_at is not null
                union all
                select message_id, accepted_at, 9,
                       format('in the outbox of the receivers: %s, %s tries so far', state, tries)
                  from {work}.outbox where message_id = any($1) and '{work}' <> '{accept}'
                union all
                select message_id, published_at, 10,
                       format('published by %s, try %s: %s after %s ms', node, try, outcome, confirm_ms)
                  from {work}.publication where message_id = any($1) and '{work}' <> '{accept}'
             ) each order by message_id, at, turn",
            ));
        Ok(within(LIMIT, ask.bind(ids).fetch_all(&mut self.messages)).await?)
    }
}

async fn begin(connection: &mut PgConnection, share: Option<&str>) -> Result<(), sqlx::Error> {
    let begin = "begin transaction isolation level repeatable read read only";
    let begin = match share {
        Some(name) => format!("{begin}; set transaction snapshot '{name}'"),
        None => begin.to_owned(),
    };
    within(
        LIMIT,
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(connection),
    )
    .await?;
    Ok(())
}

fn read<'a, T: 'a>(
    rows: impl Stream<Item = Result<PgRow, sqlx::Error>> + Send + 'a,
    decode: impl Fn(&PgRow) -> Result<T, sqlx::Error> + Send + 'a,
) -> impl Stream<Item = Result<T>> + Send + 'a {
    rows.map(move |row| {
        let row = row.and_then(|row| decode(&row));
        row.context("the ledger cannot be read")
    })
}
