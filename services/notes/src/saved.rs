//! What is read of the table `processed`: the notes that are saved. [`messaging::receive::processed`] writes it.

use sqlx::PgPool;

use crate::note::{Asked, Listed, Saved};

/// Some of what is saved, the newest first. Places begin at 1.
pub async fn list(pool: &PgPool, asked: Asked) -> Result<Listed, sqlx::Error> {
    let limit = usize::from(asked.limit);
    let mut notes: Vec<Saved> = sqlx::query_as(
        "select message_id as id, number, text as content, processed_at as saved_at, node as saved_by, processed_id as place
           from processed
          where processed_id > 0 and processed_id < $1
          order by processed_id desc limit $2",
    )
    .bind(asked.before.unwrap_or(i64::MAX))
    // One more tells whether there are more.
    .bind(i64::from(asked.limit) + 1)
    .fetch_all(pool)
    .await?;
    let more = notes.len() > limit;
    notes.truncate(limit);
    let next = notes.last().map(|last| last.place).filter(|_| more);
    Ok(Listed { notes, next })
}
