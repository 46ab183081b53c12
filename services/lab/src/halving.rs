//! From when on rows of a table are, where times have no index: by halving the keys, which grow with the times.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Postgres, Transaction};

/// About the first key of the rows that are not before a moment, from 1 up to one after the `newest`.
///
/// `is_before` says of the first row from the key `$1` on whether it was written before the moment `$2`, with some slack: keys
/// are given out in order, and rows are stored in any. What else is noted in a row may have happened long before it was written.
///
/// # Errors
/// The database's.
pub async fn first_since(
    tx: &mut Transaction<'_, Postgres>,
    is_before: &str,
    moment: DateTime<Utc>,
    newest: i64,
) -> Result<i64, sqlx::Error> {
    let (mut low, mut high) = (1, newest.saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        let before: Option<bool> = sqlx::query_scalar(AssertSqlSafe(is_before.to_owned()))
            .bind(middle)
            .bind(moment)
            .fetch_optional(&mut **tx)
            .await?;
        if before == Some(true) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
