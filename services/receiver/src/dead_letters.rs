//! Dead letters, as the page shows them; [`messaging::receive::dead_letter`] parks them.

use sqlx::PgPool;

/// Beyond this many the page only says "over".
pub const COUNT_MAX: i64 = 10_000;

/// How many are parked, and not sent back or discarded; one more than [`COUNT_MAX`] stands for any number above it, so that the page
/// costs the same with any number of them.
pub async fn count(pool: &PgPool) -> Result<i64, sqlx::Error> {
    let (count,) = sqlx::query_as(
        "select count(*) from (select from dead_letter where state = 'parked' limit $1) as counted",
    )
    .bind(COUNT_MAX + 1)
    .fetch_one(pool)
    .await?;
    Ok(count)
}
