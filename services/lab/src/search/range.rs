//! From which number to which a search goes.

use chrono::DateTime;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::query::Query;
use crate::halving::first_since;

// Numbers and times may be out of step by some seconds.
const SURELY_BEFORE: &str = "select accepted_at < $2::timestamptz - interval '10 s'
    from sender.message where number >= $1 order by number limit 1";
const PERHAPS_BEFORE: &str = "select accepted_at < $2::timestamptz + interval '10 s'
    from sender.message where number >= $1 order by number limit 1";

/// A piece of the way, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) low: i64,
    pub(super) high: i64,
}

/// From which number to which: by the times, which ids begin with too.
pub(super) async fn limits(
    tx: &mut Transaction<'_, Postgres>,
    query: &Query,
    newest: i64,
) -> Result<Range, sqlx::Error> {
    if let Some((id, last)) = query.ids
        && id == last
    {
        let number: Option<i64> =
            sqlx::query_scalar("select number from sender.message where message_id = $1")
                .bind(id)
                .fetch_optional(&mut **tx)
                .await?;
        // An empty range where there is none.
        let (low, high) = number.map_or((1, 0), |number| (number, number));
        return Ok(Range { low, high });
    }
    let born = |id: Uuid| {
        let millis = i64::try_from(id.as_u128() >> 80).unwrap_or(i64::MAX);
        DateTime::from_timestamp_millis(millis)
    };
    let ids = query.ids.map(|(low, high)| (born(low), born(high)));
    let from = query.from.max(ids.and_then(|(low, _)| low));
    let to = match (query.to, ids.and_then(|(_, high)| high)) {
        (Some(to), Some(born)) => Some(to.min(born)),
        (to, born) => to.or(born),
    };
    let low = match from {
        Some(from) => first_since(tx, SURELY_BEFORE, from, newest).await?,
        None => 1,
    };
    let high = match to {
        Some(to) => first_since(tx, PERHAPS_BEFORE, to, newest).await?,
        None => newest,
    };
    Ok(Range { low, high })
}
