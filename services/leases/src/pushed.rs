//! All SQL of the table `pushed`: which requests came with an `Idempotency-Key`, kept for a day.

use sqlx::{FromRow, PgPool, Postgres, Transaction};
use uuid::Uuid;

use crate::push::{Push, Receipt};

/// Writes down requests under their keys, and gives those that are new. Waits for a transaction that writes the same. Sorted,
/// so that two groups with common keys cannot wait for each other.
pub(crate) async fn insert(
    tx: &mut Transaction<'_, Postgres>,
    pushes: &[(&Push, &[Uuid])],
) -> Result<Vec<(i32, String)>, sqlx::Error> {
    // an array of arrays must be a rectangle; a text per request need not
    let ids = pushes.iter().map(|(_, ids)| {
        format!(
            "{{{}}}",
            ids.iter()
                .map(Uuid::to_string)
                .collect::<Vec<_>>()
                .join(",")
        )
    });
    sqlx::query_as(
        "insert into pushed (queue_id, idempotency_key, message_ids, digest)
         select queue_id, key, ids::uuid[], digest
           from unnest($1::int[], $2::text[], $3::text[], $4::bytea[]) as row (queue_id, key, ids, digest)
          order by queue_id, key
         on conflict (queue_id, idempotency_key) do nothing
         returning queue_id, idempotency_key",
    )
    .bind(pushes.iter().map(|(push, _)| push.queue_id).collect::<Vec<_>>())
    .bind(pushes.iter().map(|(push, _)| push.key.as_deref()).collect::<Vec<_>>())
    .bind(ids.collect::<Vec<_>>())
    .bind(pushes.iter().map(|(push, _)| push.digest()).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await
}

/// A request said earlier.
#[derive(Debug, FromRow)]
pub(crate) struct Earlier {
    queue_id: i32,
    idempotency_key: String,
    message_ids: Vec<Uuid>,
    digest: Vec<u8>,
}

impl Earlier {
    pub(crate) fn is(&self, (queue_id, key): (i32, &str)) -> bool {
        self.queue_id == queue_id && self.idempotency_key == key
    }

    /// The answer to a request under the same key.
    pub(crate) fn receipt(&self, push: &Push) -> Receipt {
        if self.digest == push.digest() {
            Receipt::Repeated(self.message_ids.clone())
        } else {
            Receipt::KeyReused
        }
    }
}

/// What was said under these keys.
pub(crate) async fn of_keys(
    tx: &mut Transaction<'_, Postgres>,
    keys: &[(i32, &str)],
) -> Result<Vec<Earlier>, sqlx::Error> {
    sqlx::query_as(
        "select queue_id, idempotency_key, message_ids, digest from pushed
          where (queue_id, idempotency_key) in (select * from unnest($1::int[], $2::text[]))",
    )
    .bind(
        keys.iter()
            .map(|(queue_id, _)| *queue_id)
            .collect::<Vec<_>>(),
    )
    .bind(keys.iter().map(|(_, key)| *key).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await
}

/// Forgets keys that are older than a day, so many at most; how many.
pub(crate) async fn prune(pool: &PgPool, most: i64) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "delete from pushed where ctid = any (array(
                select ctid from pushed where pushed_at < now() - interval '1 day'
                 order by pushed_at limit $1 for update skip locked))",
    )
    .bind(most)
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}
