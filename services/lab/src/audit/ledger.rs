//! All SQL of an audit. It reads, as a role that can do nothing else. Which tables it reads is the job's to say
//! ([`Books`]): those of all jobs that have any are of one shape.
//!
//! The streams of a [`Snapshot`] are of one moment: three connections share what the first one sees.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use chrono::{DateTime, Utc};
use daemon::database::within;
use futures::stream::{Stream, StreamExt};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use uuid::Uuid;

use super::figures::{Cause, NodeCounts};
use super::merge::{Dead, DeadRow, EffectRow, MessageRow};
use crate::load::Latency;
use crate::run::RunId;
use crate::run::job::Books;
use crate::say::Usage;

/// The SQL that says which ledger it is: this database, of this cluster.
pub const IDENTITY: &str =
    "select system_identifier || '/' || current_database() from pg_control_system()";
/// Whatever is asked but a stream.
const LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Most causes that are told.
const CAUSES: i64 = 20;

/// The way to the records of sender and receiver.
#[derive(Debug, Clone)]
pub struct Ledger {
    options: PgConnectOptions,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Progress {
    pub messages: i64,
    pub outbox: i64,
    pub effects: i64,
    pub parked: i64,
    /// Failures of the work, of any run.
    pub failures: i64,
    /// Grows with every effect, of any run.
    pub newest: i64,
}

/// What a URL of a ledger says; another one is wrong usage.
pub fn options(url: &str) -> Result<PgConnectOptions, Usage> {
    let shape = "the database's URL is not postgres://ROLE:PASSWORD@HOST:PORT/DATABASE";
    // never repeated: it holds a password
    let options = PgConnectOptions::from_str(url).map_err(|_| Usage(shape.to_owned()))?;
    let scheme = ["postgres://", "postgresql://"];
    if scheme.iter().any(|scheme| url.starts_with(scheme)) {
        Ok(options)
    } else {
        Err(Usage(shape.to_owned()))
    }
}

impl Ledger {
    /// Does not connect.
    pub fn new(url: &str) -> Result<Self, Usage> {
        let options = options(url)?.application_name("lab audit").options([
            ("default_transaction_read_only", "on"),
            ("statement_timeout", "10min"),
            ("idle_in_transaction_session_timeout", "10min"),
            ("tcp_user_timeout", "10s"),
            // the ids are in order already
            ("enable_sort", "off"),
            ("enable_bitmapscan", "off"),
            ("jit", "off"),
        ]);
        Ok(Self { options })
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Result<PgConnection> {
        let connecting = PgConnection::connect_with(&self.options);
        // sqlx says all of it in one line
        let connected = within(CONNECT_LIMIT, connecting).await;
        connected.map_err(|error| anyhow!("the ledger cannot be reached: {error}"))
    }

    /// Which ledger this is, for as long as it exists: this database, of this cluster. A run is judged by the one that it was
    /// offered to, and by no other.
    pub async fn identity(&self) -> Result<String> {
        let mut connection = self.connect().await?;
        let ask = sqlx::query_scalar(IDENTITY);
        within(LIMIT, ask.fetch_one(&mut connection))
            .await
            .context("the ledger does not say which one it is")
    }

    /// The same of the ledger at this address, if it says so.
    pub async fn identity_at(url: &str) -> Option<String> {
        Self::new(url).ok()?.identity().await.ok()
    }

    /// One moment of these books.
    pub async fn snapshot(&self, books: &'static Books) -> Result<Snapshot> {
        let mut messages = self.connect().await?;
        begin(&mut messages, None).await?;
        let ask = sqlx::query_as("select pg_export_snapshot(), clock_timestamp()");
        let (name, taken_at): (String, DateTime<Utc>) =
            within(LIMIT, ask.fetch_one(&mut messages)).await?;
        let mut effects = self.connect().await?;
        begin(&mut effects, Some(&name)).await?;
        let mut dead = self.connect().await?;
        begin(&mut dead, Some(&name)).await?;
        Ok(Snapshot {
            books,
            messages,
            effects,
            dead,
            taken_at,
        })
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

/// A statement about these books.
///
/// The names come from a table of the program; whatever is not the program's own is bound.
fn about(books: &Books, statement: &str) -> AssertSqlSafe<String> {
    let outboxes: Vec<String> = books
        .outboxes
        .iter()
        .map(|outbox| format!("(select count(*) from {outbox} where run = $1)"))
        .collect();
    let said = [
        ("{accepted}", books.accepted),
        ("{accepted_at}", books.accepted_at),
        ("{effects}", books.effects),
        ("{newest}", books.newest),
        ("{processed_at}", books.processed_at),
        ("{work}", books.work),
        ("{accept}", books.accept),
        ("{called}", books.called),
        ("{discarded_by}", books.discarded_by),
        ("{in outboxes}", &outboxes.join(" + ")),
    ];
    let named = |text: String, (name, value): (&str, &str)| text.replace(name, value);
    AssertSqlSafe(said.into_iter().fold(statement.to_owned(), named))
}

/// How far a run is now.
pub async fn progress(
    connection: &mut PgConnection,
    books: &Books,
    run: &RunId,
) -> Result<Progress> {
    let statement = about(
        books,
        "select (select count(*) from {accepted} where run = $1) as messages,
                {in outboxes} as outbox,
                (select count(*) from {effects} where run = $1) as effects,
                (select count(*) from {work}.dead_letter
                  where run = $1 and state in ('parked', 'discarded')) as parked,
                (select count(*) from {work}.failure) as failures,
                (select coalesce(max({newest}), 0) from {effects}) as newest",
    );
    let ask = sqlx::query_as(statement);
    Ok(within(LIMIT, ask.bind(run.as_str()).fetch_one(connection)).await?)
}

/// How many messages of a run have neither an effect nor a dead letter that was not sent back.
pub async fn outstanding(connection: &mut PgConnection, books: &Books, run: &RunId) -> Result<i64> {
    let statement = about(
        books,
        "select count(*) from {accepted} m
          where run = $1
            and not exists (select from {effects} p where p.message_id = m.message_id)
            and not exists (select from {work}.dead_letter d
                             where d.run = $1 and d.message_id = m.message_id
                               and d.state in ('parked', 'discarded'))",
    );
    let ask = sqlx::query_as(statement);
    let (count,) = within(LIMIT, ask.bind(run.as_str()).fetch_one(connection)).await?;
    Ok(count)
}

/// How long messages of a run took from accepted to their first effect; none: there is no effect.
pub async fn processed_us(
    connection: &mut PgConnection,
    books: &Books,
    run: &RunId,
) -> Result<Option<Latency>> {
    let statement = about(
        books,
        "select percentile_disc(array[0.5, 0.9, 0.99, 0.999, 1]) within group (order by us) from (
            select (extract(epoch from min(p.{processed_at}) - min(m.{accepted_at})) * 1000000)::bigint as us
              from {accepted} m join {effects} p using (message_id)
             where m.run = $1 group by m.message_id
         ) each",
    );
    let ask = sqlx::query_as(statement);
    let (times,): (Option<Vec<i64>>,) =
        within(LIMIT, ask.bind(run.as_str()).fetch_one(connection)).await?;
    let us = |time: i64| u64::try_from(time).unwrap_or(0);
    Ok(match times.as_deref() {
        Some(&[p50, p90, p99, p99_9, max]) => Some(Latency {
            p50: us(p50),
            p90: us(p90),
            p99: us(p99),
            p99_9: us(p99_9),
            max: us(max),
        }),
        _ => None,
    })
}

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

fn read<'a, T: 'a>(
    rows: impl Stream<Item = Result<PgRow, sqlx::Error>> + Send + 'a,
    decode: impl Fn(&PgRow) -> Result<T, sqlx::Error> + Send + 'a,
) -> impl Stream<Item = Result<T>> + Send + 'a {
    rows.map(move |row| {
        let row = row.and_then(|row| decode(&row));
        row.context("the ledger cannot be read")
    })
}
