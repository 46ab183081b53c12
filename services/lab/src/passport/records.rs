//! All that is on record of one message, read at one moment.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::halving::first_since;

/// What both services stored of a message.
#[derive(Debug, Default)]
pub struct Records {
    pub message: Option<Message>,
    pub outbox: Vec<Outbox>,
    pub publications: Vec<Publication>,
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
    /// By a receiver, which sends a dead letter back.
    pub again: bool,
}

/// A row of `delivery`, with what is on record of its session and its node.
#[derive(Debug, Clone, Default, FromRow)]
pub struct Delivery {
    pub node: String,
    pub attempt: i32,
    pub redelivered: bool,
    pub earlier: Option<i32>,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub outcome: Option<String>,
    pub cause: Option<String>,
    pub answer: Option<String>,
    /// How the session ended in which it came, when, and in whose words.
    pub ended_by: Option<String>,
    pub session_ended_at: Option<DateTime<Utc>>,
    pub why: Option<String>,
    /// When the same process opened its next session.
    pub next_session_at: Option<DateTime<Utc>>,
    /// When another process of this node's name opened its first.
    pub next_boot_at: Option<DateTime<Utc>>,
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

/// Reads it.
pub async fn read(pool: &PgPool, id: Uuid) -> Result<Records, sqlx::Error> {
    let mut tx = pool
        .begin_with("begin isolation level repeatable read read only")
        .await?;
    let records = read_in(&mut tx, id).await?;
    tx.rollback().await?;
    Ok(records)
}

async fn read_in(tx: &mut Transaction<'_, Postgres>, id: Uuid) -> Result<Records, sqlx::Error> {
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
    let publications = publications(tx, id, accepted_at).await?;
    // No receiver has ever been started: the sender's half is all there is.
    let received: bool = sqlx::query_scalar("select to_regclass('receiver.processed') is not null")
        .fetch_one(&mut **tx)
        .await?;
    if !received {
        return Ok(Records {
            message,
            outbox,
            publications,
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
    let deliveries = deliveries(tx, id, &effects).await?;
    let failures = sqlx::query_as(
        "select node, attempt, reason, failed_at from receiver.failure where message_id = $1 order by failed_at",
    )
    .bind(id)
    .fetch_all(&mut **tx)
    .await?;
    let given_up = sqlx::query_as(
        "select reason, attempts, node, given_up_at from receiver.given_up where message_id = $1",
    )
    .bind(id)
    .fetch_all(&mut **tx)
    .await?;
    // A message of ours has its id for a fingerprint, and that is indexed.
    let dead_letters = sqlx::query_as(
        "select reason, attempts, node, dead_at, run, redrive, to_jsonb(d) - 'body' - 'headers' as row
           from receiver.dead_letter d where fingerprint = $1::text and message_id = $1 order by redrive",
    )
    .bind(id)
    .fetch_all(&mut **tx)
    .await?;
    Ok(Records {
        message,
        outbox,
        publications,
        deliveries,
        failures,
        effects,
        given_up,
        dead_letters,
    })
}

/// Those that brought no effect have an index. For the others none is paid: their ids begin with the time at which they came
/// in, which the effect knows.
async fn deliveries(
    tx: &mut Transaction<'_, Postgres>,
    id: Uuid,
    effects: &[Effect],
) -> Result<Vec<Delivery>, sqlx::Error> {
    let around = |seconds: i64| {
        let moments = effects.iter().map(|effect| effect.received_at);
        let moments = moments.map(|at| at + chrono::TimeDelta::seconds(seconds));
        moments.map(first_id).collect::<Vec<Uuid>>()
    };
    sqlx::query_as(
        "with mine as (
           select * from receiver.delivery where message_id = $1 and outcome is distinct from 'processed'
           union all
           select d.* from unnest($2::uuid[], $3::uuid[]) as near (low, high)
             join receiver.delivery d on d.delivery_id between low and high
            where d.message_id = $1 and d.outcome = 'processed'
         )
         select distinct on (d.started_at, d.delivery_id)
                d.node, d.attempt, d.redelivered, d.earlier, d.started_at, d.ended_at, d.outcome, d.cause, d.answer,
                s.ended_by, s.ended_at as session_ended_at, s.why,
                (select min(o.began_at) from receiver.session o
                  where o.node = d.node and o.boot = d.boot and o.session <> d.session
                    and o.began_at > d.started_at) as next_session_at,
                (select min(o.began_at) from receiver.session o
                  where o.node = d.node and o.boot <> d.boot and o.began_at > d.started_at) as next_boot_at
           from mine d left join receiver.session s on s.session = d.session
          order by d.started_at, d.delivery_id",
    )
    .bind(id)
    .bind(around(-CLOCKS))
    .bind(around(CLOCKS))
    .fetch_all(&mut **tx)
    .await
}

/// Seconds by which the clocks of a node and of the database may differ.
const CLOCKS: i64 = 2;

/// The least UUID v7 of a moment.
fn first_id(at: DateTime<Utc>) -> Uuid {
    let millis = u128::from(at.timestamp_millis().max(0).unsigned_abs());
    Uuid::from_u128(millis << 80)
}

const PUBLISHED_BEFORE: &str = "select published_at < $2 - interval '10 s'
    from sender.publication where publication_id >= $1 order by publication_id limit 1";

/// Tries have no index by message either. Their numbers grow with time, so what was before the message is skipped by halving.
async fn publications(
    tx: &mut Transaction<'_, Postgres>,
    id: Uuid,
    accepted_at: Option<DateTime<Utc>>,
) -> Result<Vec<Publication>, sqlx::Error> {
    let low = match accepted_at {
        Some(at) => {
            let newest: Option<i64> =
                sqlx::query_scalar("select max(publication_id) from sender.publication")
                    .fetch_one(&mut **tx)
                    .await?;
            first_since(tx, PUBLISHED_BEFORE, at, newest.unwrap_or(0)).await?
        }
        None => 0,
    };
    let mut all: Vec<Publication> = sqlx::query_as(
        "select node, try, outcome, published_at, confirm_ms, false as again
           from sender.publication where publication_id >= $2 and message_id = $1 order by publication_id",
    )
    .bind(id)
    .bind(low)
    .fetch_all(&mut **tx)
    .await?;
    let receivers: bool =
        sqlx::query_scalar("select to_regclass('receiver.publication') is not null")
            .fetch_one(&mut **tx)
            .await?;
    if receivers {
        let again: Vec<Publication> = sqlx::query_as(
            "select node, try, outcome, published_at, confirm_ms, true as again
               from receiver.publication where message_id = $1 order by publication_id",
        )
        .bind(id)
        .fetch_all(&mut **tx)
        .await?;
        all.extend(again);
    }
    Ok(all)
}
