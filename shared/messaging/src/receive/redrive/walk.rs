//! Finds the dead letters that fit a selection. There may be millions, so it is one walk, of a bounded time: what did not come
//! to its end would not the next time either, and is said as that. To be away is another thing, and worth trying again.

use std::time::Duration;

use sqlx::{FromRow, Postgres, Row, Transaction, error::DatabaseError};
use tokio::time::timeout;

use super::{
    not_done::NotDone,
    selection::Selection,
    settled,
    table::{MOST, Order},
};

/// How long all of it may take. With the wait for a connection that is less than the gateway waits for a receiver; it would
/// have another one do the same beside it.
const LIMIT: Duration = Duration::from_secs(12);
/// Postgres ended a statement: it took longer than a session's statements may.
const ENDED: &str = "57014";

/// What fits a selection.
const FITS: &str = Selection::FITS;

/// Gives up after [`LIMIT`]. A statement that its own limit has ended is the same to who asked.
pub(super) async fn in_time<T>(
    work: impl Future<Output = Result<T, NotDone>>,
) -> Result<T, NotDone> {
    match timeout(LIMIT, work).await {
        Ok(Err(NotDone::Database(error))) if is_ended(&error) => Err(NotDone::TooLong),
        Ok(done) => done,
        Err(_) => Err(NotDone::TooLong),
    }
}

fn is_ended(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| code == ENDED)
}

/// Those that an order is about.
#[derive(FromRow)]
pub(super) struct Fit {
    /// None: they are more than [`MOST`].
    pub(super) ids: Option<Vec<i64>>,
    pub(super) not_ours: i64,
}

/// In one walk: it may be over everything that is parked, with all bodies.
pub(super) async fn ours(
    tx: &mut Transaction<'_, Postgres>,
    order: &Order,
) -> Result<Fit, sqlx::Error> {
    let sql = format!(
        "select case when ours <= $10 then coalesce(ids, '{{}}') end as ids, not_ours
           from (select count(d.message_id) as ours, count(*) - count(d.message_id) as not_ours,
                        array_agg(d.dead_letter_id) filter (where d.message_id is not null) as ids
                   from dead_letter d
                  where d.dead_at <= (select cut_off from redrive where redrive_id = $9) and {FITS}) as walked"
    );
    let query = order.selection.bind(sqlx::query(sqlx::AssertSqlSafe(sql)));
    let row = query.bind(order.redrive_id).bind(MOST);
    Fit::from_row(&row.fetch_one(&mut **tx).await?)
}

/// One walk finds them, and only these are written, if they are as many as was confirmed.
pub(super) async fn discard(
    tx: &mut Transaction<'_, Postgres>,
    selection: &Selection,
    confirmed: i64,
    who: &str,
) -> Result<i64, NotDone> {
    let ids = fitting(tx, selection).await?;
    let fit = i64::try_from(ids.len()).unwrap_or(i64::MAX);
    if fit == 0 {
        let nothing = settled::nothing(tx, selection, 0).await?;
        if confirmed == 0 || matches!(nothing, NotDone::Settled(_)) {
            return Err(nothing);
        }
    }
    if fit != confirmed {
        return Err(NotDone::NotConfirmed { fit });
    }
    let done = sqlx::query(
        "update dead_letter set state = 'discarded', decided_at = clock_timestamp(), discarded_by = $2
          where dead_letter_id = any ($1) and state = 'parked'",
    )
    .bind(&ids)
    .bind(who)
    .execute(&mut **tx)
    .await?;
    // somebody else may have decided of some of them meanwhile
    match i64::try_from(done.rows_affected()).unwrap_or(i64::MAX) {
        discarded if discarded == confirmed => Ok(discarded),
        fewer => Err(NotDone::NotConfirmed { fit: fewer }),
    }
}

/// What a discard is about: all that fits, of no more than may be.
async fn fitting(
    tx: &mut Transaction<'_, Postgres>,
    selection: &Selection,
) -> Result<Vec<i64>, NotDone> {
    settled::check(tx, selection).await?;
    let sql = format!("select d.dead_letter_id from dead_letter d where {FITS} limit $9");
    let found = selection.bind(sqlx::query(sqlx::AssertSqlSafe(sql)));
    let found = found.bind(MOST + 1).fetch_all(&mut **tx).await?;
    let ids: Vec<i64> = found
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    if i64::try_from(ids.len()).is_ok_and(|fit| fit <= MOST) {
        Ok(ids)
    } else {
        Err(NotDone::TooMany)
    }
}
