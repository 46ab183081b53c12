//! All SQL of a benchmark: it looks, fills tables, and commits bare rows. As the database's owner, since services may not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use hdrhistogram::Histogram;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::run::RunId;

/// The database of a scene.
pub(super) struct Book {
    url: String,
    connection: PgConnection,
}

/// What is in the messages that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Texts {
    /// The same, but for a number.
    Alike,
    /// Each its own, some with a word to search for: `common` in nine of ten, `needle` in one of a hundred.
    Searched,
}

/// What became of the messages of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effects {
    pub(super) count: u64,
    /// From the first to the last.
    pub(super) span: Duration,
}

impl Effects {
    /// Effects a second.
    pub(super) fn rate(&self) -> f64 {
        super::sheet::real(self.count.saturating_sub(1)) / self.span.as_secs_f64().max(1e-9)
    }
}

/// What the database wrote so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) wal_bytes: u64,
    pub(super) commits: u64,
}

impl Book {
    pub(super) async fn open(url: &str) -> Result<Self> {
        let connection = PgConnection::connect(url).await;
        Ok(Self {
            url: url.to_owned(),
            connection: connection.context("the database cannot be reached")?,
        })
    }

    /// One more connection.
    pub(super) async fn another(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.url).await?)
    }

    async fn number(&mut self, sql: &str) -> Result<u64> {
        let sql = format!("select ({sql})::bigint");
        let (number,): (i64,) = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_one(&mut self.connection)
            .await?;
        Ok(u64::try_from(number)?)
    }

    /// Messages that the broker has not confirmed.
    pub(super) async fn outbox(&mut self) -> Result<u64> {
        self.number("select count(*) from sender.outbox").await
    }

    /// How large a table and its indexes are, in bytes.
    pub(super) async fn size(&mut self, table: &str) -> Result<u64> {
        self.number(&format!("pg_total_relation_size('{table}')"))
            .await
    }

    /// Rows that nobody sees any more and that still take room, and how often they were cleared away.
    pub(super) async fn dead_rows(&mut self, table: &str) -> Result<(u64, u64)> {
        let of = |column: &str| {
            format!("select {column} from pg_stat_all_tables where relid = '{table}'::regclass")
        };
        let dead = self.number(&of("n_dead_tup")).await?;
        Ok((dead, self.number(&of("autovacuum_count")).await?))
    }

    /// The effects of a run, each message with one; else it is an error.
    pub(super) async fn effects(&mut self, run: &RunId, accepted: u64) -> Result<Effects> {
        let sql = "select count(*), count(distinct message_id), \
                   coalesce(extract(epoch from max(processed_at) - min(processed_at)), 0)::float8 \
                   from receiver.processed where run = $1";
        let (count, distinct, span): (i64, i64, f64) = sqlx::query_as(sql)
            .bind(run.as_str())
            .fetch_one(&mut self.connection)
            .await?;
        let (count, distinct) = (u64::try_from(count)?, u64::try_from(distinct)?);
        ensure!(
            count == accepted && distinct == accepted,
            "{accepted} messages were accepted, {distinct} have an effect, and there are {count} effects"
        );
        Ok(Effects {
            count,
            span: Duration::from_secs_f64(span.max(0.0)),
        })
    }

    /// Effects of the last seconds, by the database's clock.
    pub(super) async fn effects_within(&mut self, last: Duration) -> Result<u64> {
        let sql = "select count(*) from receiver.processed \
                   where processed_at > clock_timestamp() - make_interval(secs => $1)";
        let (count,): (i64,) = sqlx::query_as(sql)
            .bind(last.as_secs_f64())
            .fetch_one(&mut self.connection)
            .await?;
        Ok(u64::try_from(count)?)
    }

    /// From accepted to effect, in microseconds, by the database's clock.
    pub(super) async fn latencies(&mut self, run: &RunId) -> Result<Histogram<u64>> {
        let sql = "select (extract(epoch from effect.processed_at - message.accepted_at) * 1e6)::bigint \
                   from receiver.processed effect join sender.message message using (message_id) \
                   where effect.run = $1";
        let mut times = Histogram::new(3)?;
        let mut rows = sqlx::query(sql)
            .bind(run.as_str())
            .fetch(&mut self.connection);
        while let Some(row) = rows.next().await {
            let us: i64 = row?.try_get(0)?;
            times.record(u64::try_from(us).unwrap_or(0))?;
        }
        Ok(times)
    }

    /// Bytes of the log and commits so far, of all databases of the server.
    pub(super) async fn written(&mut self) -> Result<Written> {
        Ok(Written {
            wal_bytes: self
                .number("pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")
                .await?,
            commits: self
                .number("select sum(xact_commit) from pg_stat_database")
                .await?,
        })
    }

    /// Makes rows of messages that were accepted and processed long ago, until there are so many. As large as those that
    /// are offered, with ids in the order of time; statistics and visibility are as after a vacuum.
    pub(super) async fn fill(&mut self, rows: u64, size: usize, texts: Texts) -> Result<()> {
        let have = self.number("select count(*) from sender.message").await?;
        let (from, to) = (i64::try_from(have)?, i64::try_from(rows)? - 1);
        if from <= to {
            for sql in [FILL_MESSAGES, FILL_EFFECTS, FILL_INBOX, FILL_PUBLICATIONS] {
                sqlx::query(sql)
                    .bind(from)
                    .bind(to)
                    .bind(i32::try_from(size)?)
                    .bind(texts == Texts::Searched)
                    .execute(&mut self.connection)
                    .await?;
            }
        }
        for table in [
            "sender.message",
            "sender.publication",
            "receiver.processed",
            "receiver.inbox",
        ] {
            self.vacuum(table).await?;
        }
        // what was written must not be flushed while something is measured
        sqlx::query("checkpoint")
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Clears a table up and looks at what is in it.
    pub(super) async fn vacuum(&mut self, table: &str) -> Result<()> {
        let sql = format!("vacuum (analyze) {table}");
        let vacuum = sqlx::query(AssertSqlSafe(sql));
        vacuum.execute(&mut self.connection).await?;
        Ok(())
    }

    /// Whether the console has made its index, however much is in it.
    pub(super) async fn has_index_of_texts(&mut self) -> Result<bool> {
        let there = "(to_regclass('lab.message_text') is not null)::int";
        Ok(self.number(&format!("select {there}")).await? == 1)
    }

    /// One setting of the server.
    pub(super) async fn shows(&mut self, setting: &str) -> Result<String> {
        let (value,): (String,) = sqlx::query_as("select current_setting($1)")
            .bind(setting)
            .fetch_one(&mut self.connection)
            .await?;
        Ok(value)
    }
}

/// A UUID v7 of a year ago, one a millisecond; all four tables mean the same messages.
macro_rules! with_ids {
    ($insert:literal, $select:literal) => {
        concat!(
            "insert into ",
            $insert,
            " select ",
            $select,
            " from (select n, (lpad(to_hex((extract(epoch from now()) * 1000)::bigint - 31536000000 + n), 12, '0') \
             || '70008000' || lpad(to_hex(n), 12, '0'))::uuid as id, \
             now() - interval '365 days' + n * interval '1 millisecond' as at, \
             case when not $4 then rpad('behind ' || n, $3, 'abcdefghijklmnopqrstuvwxyz') \
             else rpad('behind ' || n || case when n % 10 > 0 then ' common' else '' end \
             || case when n % 100 = 50 then ' needle' else '' end, $3, ' ' || md5(n::text)) end as body \
             from generate_series($1, $2) n) rows order by n"
        )
    };
}

const FILL_MESSAGES: &str = with_ids!(
    "sender.message (message_id, text, accepted_at, node, run, idempotency_key)",
    "id, body, at, 'sender-behind', 'behind', 'behind-' || n"
);
const FILL_EFFECTS: &str = with_ids!(
    "receiver.processed (message_id, number, text, run, node, attempt, redelivered, received_at, took_ms, processed_at)",
    "id, n, body, 'behind', 'receiver-behind', 1, false, at, 0, at"
);
const FILL_INBOX: &str = with_ids!("receiver.inbox (message_id, admitted_at)", "id, at");
const FILL_PUBLICATIONS: &str = with_ids!(
    "sender.publication (message_id, node, try, outcome, published_at, confirm_ms)",
    "id, 'sender-behind', 1, 'confirmed', at, 1"
);
