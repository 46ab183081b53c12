//! All SQL of an audit. It reads, as a role that can do nothing else. Which tables it reads is the job's to say
//! ([`Books`]): those of all jobs that have any are of one shape.
//!
//! Here is the way to it and how far a run is; `snapshot.rs` reads what an audit judges.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use daemon::database::within;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::snapshot::Snapshot;
use crate::load::Latency;
use crate::run::RunId;
use crate::run::job::Books;
use crate::say::Usage;

/// The SQL that says which ledger it is: this database, of this cluster.
pub const IDENTITY: &str =
    "select system_identifier || '/' || current_database() from pg_control_system()";
/// Whatever is asked but a stream.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

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
        Snapshot::take(self, books).await
    }
}

/// A statement about these books.
///
/// The names come from a table of the program; whatever is not the program's own is bound.
pub(super) fn about(books: &Books, statement: &str) -> AssertSqlSafe<String> {
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
