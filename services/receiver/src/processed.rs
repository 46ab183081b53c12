//! All SQL of the table `processed`: the effect.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use messaging::receive::handler::Effect;
use serde::Serialize;
use sqlx::{FromRow, PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::process::Work;

/// Adds the effects of messages that were admitted in the same transaction.
pub(crate) async fn insert(
    tx: &mut Transaction<'_, Postgres>,
    node: &str,
    effects: &[&Effect<Work>],
) -> Result<(), sqlx::Error> {
    let received: Vec<_> = effects.iter().map(|effect| &effect.received).collect();
    let millis =
        |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    sqlx::query(
        "insert into processed (message_id, number, text, run, node, attempt, redelivered,
                                received_at, took_ms)
         select id, number, text, run, $9, attempt, redelivered,
                clock_timestamp() - age * interval '1 ms', took
           from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::int[], $6::bool[],
                       $7::bigint[], $8::bigint[])
             as row (id, number, text, run, attempt, redelivered, age, took)",
    )
    .bind(
        received
            .iter()
            .map(|r| r.envelope.message_id)
            .collect::<Vec<_>>(),
    )
    .bind(
        received
            .iter()
            .map(|r| r.message.number)
            .collect::<Vec<_>>(),
    )
    .bind(
        received
            .iter()
            .map(|r| r.message.text.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        received
            .iter()
            .map(|r| r.envelope.run.as_deref())
            .collect::<Vec<_>>(),
    )
    .bind(
        received
            .iter()
            .map(|r| i32::try_from(r.attempt).unwrap_or(i32::MAX))
            .collect::<Vec<_>>(),
    )
    .bind(received.iter().map(|r| r.redelivered).collect::<Vec<_>>())
    .bind(
        received
            .iter()
            .map(|r| millis(r.came_in.elapsed()))
            .collect::<Vec<_>>(),
    )
    .bind(
        effects
            .iter()
            .map(|effect| millis(effect.output.took))
            .collect::<Vec<_>>(),
    )
    .bind(node)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Which of these messages have their effect. By a subquery for the reason that the inbox has: the index, whatever was planned.
pub(crate) async fn of(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let done: Vec<Uuid> = sqlx::query_scalar(
        "select asked.id from unnest($1::uuid[]) as asked (id)
          where (select true from processed where message_id = asked.id limit 1)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    Ok(done.into_iter().collect())
}

/// An effect as the page and the API show it.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct ProcessedRow {
    pub message_id: Uuid,
    pub number: i64,
    pub node: String,
    pub received_at: DateTime<Utc>,
    pub took_ms: i64,
    pub attempt: i32,
    pub text: String,
}

/// The newest effects, the newest first. Not those of pruned runs, of which only the ids are left: their numbers are negative.
pub async fn newest(pool: &PgPool, limit: i64) -> Result<Vec<ProcessedRow>, sqlx::Error> {
    sqlx::query_as(
        "select message_id, number, node, received_at, took_ms, attempt, text from processed
          where processed_id > 0
          order by processed_id desc limit $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await
}
