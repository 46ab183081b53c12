//! All that is on record of one message, read at one moment.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use daemon::database::within;
use serde_json::Value;
use sqlx::{AssertSqlSafe, FromRow, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::deliveries::{self, Delivery};
use crate::halving::first_since;

/// What both services stored of a message.
#[derive(Debug, Default)]
pub struct Records {
    pub message: Option<Message>,
    pub outbox: Vec<Outbox>,
    pub publications: Vec<Publication>,
    /// Tries at publishing that were written after this moment were not looked for; none: all were.
    pub tries_upto: Option<DateTime<Utc>>,
    /// Also those of which only what came of them is on record.
    pub deliveries: Vec<Delivery>,
    pub failures: Vec<Failure>,
    pub effects: Vec<Effect>,
    pub given_up: Vec<GivenUp>,
    pub dead_letters: Vec<DeadLetter>,
}

#[derive(Debug, Clone, FromRow)]
pub struct Message {
    pub number: i64,
    pub text: String,
    pub accepted_at: DateTime<Utc>,
    pub node: String,
    pub session: Option<Uuid>,
    pub run: Option<String>,
}

#[derive(Debug, Clone, FromRow)]
pub struct Outbox {
    pub state: String,
    pub tries: i32,
    pub leased: bool,
}

#[derive(Debug, Clone, FromRow)]
pub struct Publication {
    pub node: String,
    pub r#try: i32,
    pub outcome: String,
    pub published_at: DateTime<Utc>,
    pub confirm_ms: i32,
    /// The broker's word may have waited long to be written.
    pub written_at: DateTime<Utc>,
    /// By a receiver, which sends a dead letter back.
    pub again: bool,
}

#[derive(Debug, Clone, FromRow)]
pub struct Failure {
    pub node: String,
    pub attempt: i32,
    pub reason: String,
    pub failed_at: DateTime<Utc>,
}

#[derive(Debug, Clone, FromRow)]
pub struct Effect {
    pub number: i64,
    pub text: String,
    pub run: Option<String>,
    pub node: String,
    pub attempt: i32,
    pub redelivered: bool,
    pub received_at: DateTime<Utc>,
    pub took_ms: i64,
    pub processed_at: DateTime<Utc>,
}

#[derive(Debug, Clone, FromRow)]
pub struct GivenUp {
    pub reason: String,
    pub attempts: i32,
    pub node: String,
    pub given_up_at: DateTime<Utc>,
}

#[derive(Debug, Clone, FromRow)]
pub struct DeadLetter {
    pub reason: String,
    pub attempts: Option<i32>,
    pub node: String,
    pub dead_at: DateTime<Utc>,
    pub run: Option<String>,
    pub redrive: i32,
    /// The whole row but body and headers: what somebody decided about it, where the receiver keeps that.
    pub row: Value,
}

impl DeadLetter {
    /// Whether it was sent back on purpose.
    pub fn is_redriven(&self) -> bool {
        self.row["state"] == "redriven"
    }

    /// When somebody decided about it.
    pub fn decided_at(&self) -> Option<DateTime<Utc>> {
        let at = DateTime::parse_from_rfc3339(self.row["decided_at"].as_str()?);
        Some(at.ok()?.to_utc())
    }
}

/// How long tries at publishing are looked for: they have no index by message.
const BUDGET: Duration = Duration::from_millis(500);

/// Longer than any of its statements takes on a server that answers.
const LIMIT: Duration = Duration::from_secs(10);

/// Reads it.
///
/// # Errors
/// The database is away, silent, or does not do what it should.
pub async fn read(pool: &PgPool, id: Uuid) -> Result<Records, sqlx::Error> {
    read_for(pool, id, BUDGET).await
}

/// The same, with another time for which tries are looked for; for tests.
///
/// # Errors
/// The same.
pub async fn read_for(pool: &PgPool, id: Uuid, budget: Duration) -> Result<Records, sqlx::Error> {
    let reading = async {
        let mut tx = pool
            .begin_with("begin isolation level repeatable read read only")
            .await?;
        let records = read_in(&mut tx, id, budget).await?;
        tx.rollback().await?;
        Ok(records)
    };
    within(LIMIT, reading).await
}

async fn read_in(
    tx: &mut Transaction<'_, Postgres>,
    id: Uuid,
    budget: Duration,
) -> Result<Records, sqlx::Error> {
    let message: Option<Message> = sqlx::query_as(
        "select number, text, accepted_at, node, session, run from sender.message where message_id = $1",
    )
    .bind(id)
    .fetch_optional(&mut **tx)
    .await?;
    let outbox = sqlx::query_as(
        "select state, tries, lease is not null and free_at > clock_timestamp() as leased
           from sender.outbox where message_id = $1",
    )
    .bind(id)
    .fetch_all(&mut **tx)
    .await?;
    let accepted_at = message.as_ref().map(|message| message.accepted_at);
    let (mut publications, mut tries_upto) =
        tries(tx, id, accepted_at.or_else(|| born(id)), budget, false).await?;
    // No receiver has ever been started: the sender's half is all there is.
    let received: bool = sqlx::query_scalar("select to_regclass('receiver.processed') is not null")
        .fetch_one(&mut **tx)
        .await?;
    if !received {
        return Ok(Records {
            message,
            outbox,
            publications,
            tries_upto,
            ..Records::default()
        });
    }
    let effects: Vec<Effect> = sqlx::query_as(
        "select number, text, run, node, attempt, redelivered, received_at, took_ms, processed_at
           from receiver.processed where message_id = $1 order by processed_at",
    )
    .bind(id)
    .fetch_all(&mut **tx)
    .await?;
    let failures: Vec<Failure> = sqlx::query_as(
        "select node, attempt, reason, failed_at from receiver.failure where message_id = $1 order by failed_at",
    )
    .bind(id)
    .fetch_all(&mut **tx)
    .await?;
    let deliveries = deliveries::read(tx, id, &effects, &failures).await?;
    let given_up = sqlx::query_as(
        "select reason, attempts, node, given_up_at from receiver.given_up where message_id = $1",
    )
    .bind(id)
    .fetch_all(&mut **tx)
    .await?;
    // A message of ours has its id for a fingerprint, and that is indexed.
    let dead_letters: Vec<DeadLetter> = sqlx::query_as(
        "select reason, attempts, node, dead_at, run, redrive, to_jsonb(d) - 'body' - 'headers' as row
           from receiver.dead_letter d where fingerprint = $1::text and message_id = $1 order by redrive",
    )
    .bind(id)
    .fetch_all(&mut **tx)
    .await?;
    // Receivers publish only what was sent back, and not before that.
    let sent_back = dead_letters.iter().filter(|dead| dead.is_redriven());
    if let Some(first) = sent_back.filter_map(DeadLetter::decided_at).min() {
        let (again, upto) = tries(tx, id, Some(first), budget, true).await?;
        publications.extend(again);
        tries_upto = tries_upto.into_iter().chain(upto).min();
    }
    Ok(Records {
        message,
        outbox,
        publications,
        tries_upto,
        deliveries,
        failures,
        effects,
        given_up,
        dead_letters,
    })
}

/// When an id was made, where it says that.
fn born(id: Uuid) -> Option<DateTime<Utc>> {
    let millis = i64::try_from(id.as_u128() >> 80).ok()?;
    (id.get_version_num() == 7)
        .then(|| DateTime::from_timestamp_millis(millis))
        .flatten()
}

/// When a try was written: its own time may lie long before.
const WRITTEN: &str = "published_at + late_ms * interval '1 ms'";

/// Rows that are looked through at once.
const SLICE: i64 = 20_000;
/// Nobody takes a message any more whose confirm is marked. So much later who had it in hand has published it, and written so.
const AGAIN: TimeDelta = TimeDelta::minutes(5);

/// Tries that were written a minute late have an index by message. The others have none. Their numbers grow with the time of
/// writing, so what was written before the message was there is skipped by halving; from there on they are looked through slice
/// by slice, until some minutes after a confirmed one, or until the time is over. Then it is said up to when they were looked for.
async fn tries(
    tx: &mut Transaction<'_, Postgres>,
    id: Uuid,
    from: Option<DateTime<Utc>>,
    budget: Duration,
    again: bool,
) -> Result<(Vec<Publication>, Option<DateTime<Utc>>), sqlx::Error> {
    let table = if again { "receiver" } else { "sender" };
    let newest = format!("select coalesce(max(publication_id), 0) from {table}.publication");
    let newest: i64 = sqlx::query_scalar(AssertSqlSafe(newest))
        .fetch_one(&mut **tx)
        .await?;
    let written = format!(
        "select {WRITTEN} from {table}.publication where publication_id >= $1 order by publication_id limit 1"
    );
    let mut low = match from {
        Some(from) => {
            let is_before = format!(
                "select {WRITTEN} < $2 - interval '10 s' from {table}.publication
                  where publication_id >= $1 order by publication_id limit 1"
            );
            first_since(tx, &is_before, from, newest).await?
        }
        None => 0,
    };
    let found = format!(
        "select node, try, outcome, published_at, confirm_ms, {WRITTEN} as written_at,
                $2::bool as again
           from {table}.publication where message_id = $1"
    );
    let began = Instant::now();
    let mut all: Vec<Publication> =
        sqlx::query_as(AssertSqlSafe(format!("{found} and late_ms > 60000")))
            .bind(id)
            .bind(again)
            .fetch_all(&mut **tx)
            .await?;
    let slice = format!(
        "{found} and late_ms <= 60000 and publication_id >= $3 and publication_id < $4 order by publication_id"
    );
    let mut upto = None;
    while low <= newest {
        let found: Vec<Publication> = sqlx::query_as(AssertSqlSafe(slice.clone()))
            .bind(id)
            .bind(again)
            .bind(low)
            .bind(low + SLICE)
            .fetch_all(&mut **tx)
            .await?;
        all.extend(found);
        low += SLICE;
        let at: Option<DateTime<Utc>> = sqlx::query_scalar(AssertSqlSafe(written.clone()))
            .bind(low)
            .fetch_optional(&mut **tx)
            .await?;
        let Some(at) = at else { break };
        let confirmed = all.iter().filter(|row| row.outcome == "confirmed");
        let marked = confirmed.map(|row| row.written_at).min();
        // a sender publishes it once, but it may be sent back from the dead letters at any time
        if !again && marked.is_some_and(|marked| at > marked + AGAIN) {
            break;
        }
        if began.elapsed() >= budget {
            upto = Some(at);
            break;
        }
    }
    all.sort_by_key(|row| row.published_at);
    Ok((all, upto))
}
