//! All that is written into the table `processed`: the effect, where it is the message itself.
//!
//! The table is the service's own: its migrations make it, and it reads there what it shows.

use std::{collections::HashSet, time::Duration};

use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::handler::{Effect, Handler};
use crate::message::Message;

/// Adds the effects of messages that were admitted in the same transaction; `took` says how long the work did.
///
/// # Errors
/// The database's.
pub async fn insert<H: Handler<Message = Message>>(
    tx: &mut Transaction<'_, Postgres>,
    node: &str,
    effects: &[&Effect<H>],
    took: impl Fn(&H::Output) -> Duration,
) -> Result<(), sqlx::Error> {
    let received: Vec<_> = effects.iter().map(|effect| &effect.received).collect();
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
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
            .map(|effect| millis(took(&effect.output)))
            .collect::<Vec<_>>(),
    )
    .bind(node)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Which of these messages have their effect. By a subquery for the reason that the inbox has: the index, whatever was planned.
///
/// # Errors
/// The database's.
pub async fn of(connection: &mut PgConnection, ids: &[Uuid]) -> Result<HashSet<Uuid>, sqlx::Error> {
    let done: Vec<Uuid> = sqlx::query_scalar(
        "select asked.id from unnest($1::uuid[]) as asked (id)
          where (select true from processed where message_id = asked.id limit 1)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    Ok(done.into_iter().collect())
}
