//! What the ledger knows of dead letters, read by the role `auditor`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use daemon::database::within;
use messaging::receive::redrive::{Redrive, Selection, State};
use serde::Serialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, PgPool, Row};
use uuid::Uuid;

/// Above what the server lets a statement take.
const LIMIT: Duration = Duration::from_secs(12);
const NO_TABLE: &str = "42P01";
/// Groups that are told apart.
const GROUPS: i64 = 50;
/// Orders that are listed.
const ORDERS: i64 = 20;

/// Dead letters with one reason, numbers in it aside.
#[derive(Debug, Clone, Serialize, FromRow)]
pub(super) struct Group {
    pub(super) reason: String,
    pub(super) count: i64,
    pub(super) newest: DateTime<Utc>,
}

/// One that waits to be decided.
#[derive(Debug, Clone, Serialize, FromRow)]
pub(super) struct Letter {
    pub(super) dead_letter_id: i64,
    pub(super) message_id: Option<Uuid>,
    #[serde(skip)]
    body: Vec<u8>,
    pub(super) reason: String,
    pub(super) attempts: Option<i32>,
    pub(super) node: String,
    pub(super) run: Option<String>,
    /// How often it had been sent back when it died.
    pub(super) redrive: i32,
    pub(super) dead_at: DateTime<Utc>,
    pub(super) state: String,
    pub(super) decided_at: Option<DateTime<Utc>>,
    pub(super) redriven_by: Option<Uuid>,
    pub(super) discarded_by: Option<String>,
}

const LETTER: &str = "d.dead_letter_id, d.message_id, d.body, d.reason, d.attempts, d.node, d.run, d.redrive, d.dead_at,
    d.state, d.decided_at, d.redriven_by, d.discarded_by";

impl Letter {
    /// What a person wrote, or the bytes of what nobody of ours wrote.
    pub(super) fn text(&self) -> String {
        let json: Option<Value> = serde_json::from_slice(&self.body).ok();
        let text = json.as_ref().and_then(|body| body["text"].as_str());
        text.map_or_else(
            || String::from_utf8_lossy(&self.body).into_owned(),
            str::to_owned,
        )
    }
}

/// What became of what an order sent back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, FromRow)]
pub(super) struct Outcome {
    pub(super) processed: i64,
    pub(super) parked_again: i64,
    pub(super) on_their_way: i64,
}

/// With a limit on our side: a server that hangs says nothing. Before any receiver was started there are no tables of theirs,
/// so there is nothing.
async fn ask<T: Default>(
    query: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match within(LIMIT, query).await {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(NO_TABLE) => {
            Ok(T::default())
        }
        answer => answer,
    }
}

/// By reason, the most frequent first.
pub(super) async fn groups(
    pool: &PgPool,
    selection: &Selection,
) -> Result<Vec<Group>, sqlx::Error> {
    let sql = format!(
        "select regexp_replace(d.reason, '[0-9]+', '#', 'g') as reason, count(*) as count, max(d.dead_at) as newest
           from receiver.dead_letter d where {} group by 1 order by 2 desc limit $9",
        Selection::FITS
    );
    let query = selection.bind(sqlx::query(AssertSqlSafe(sql))).bind(GROUPS);
    let rows = ask(query.fetch_all(pool)).await?;
    rows.iter().map(Group::from_row).collect()
}

/// The newest below a number, the newest first.
pub(super) async fn letters(
    pool: &PgPool,
    selection: &Selection,
    below: i64,
    most: i64,
) -> Result<Vec<Letter>, sqlx::Error> {
    let sql = format!(
        "select {LETTER} from receiver.dead_letter d where {} and d.dead_letter_id < $9
          order by d.dead_letter_id desc limit $10",
        Selection::FITS
    );
    let query = selection.bind(sqlx::query(AssertSqlSafe(sql)));
    let rows = ask(query.bind(below).bind(most).fetch_all(pool)).await?;
    rows.iter().map(Letter::from_row).collect()
}

/// A dead letter of another service: no more of it than the auditor may read of sign-up's too.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Parked {
    pub(super) message_id: Option<Uuid>,
    pub(super) reason: String,
    pub(super) node: String,
    pub(super) dead_at: DateTime<Utc>,
}

/// Those that are parked there, the newest first.
pub(super) async fn of_other(
    pool: &PgPool,
    schema: &'static str,
    most: i64,
) -> Result<Vec<Parked>, sqlx::Error> {
    let sql = format!(
        "select message_id, reason, node, dead_at from {schema}.dead_letter where state = 'parked'
          order by dead_letter_id desc limit $1"
    );
    let letters = sqlx::query_as(AssertSqlSafe(sql)).bind(most);
    ask(letters.fetch_all(pool)).await
}

/// All dead letters of a message, also those that are decided.
pub(super) async fn of(pool: &PgPool, message_id: Uuid) -> Result<Vec<Letter>, sqlx::Error> {
    let sql = format!(
        "select {LETTER} from receiver.dead_letter d where d.message_id = $1 order by d.redrive"
    );
    let letters = sqlx::query_as(AssertSqlSafe(sql)).bind(message_id);
    ask(letters.fetch_all(pool)).await
}

/// The newest orders, the newest first.
pub(super) async fn orders(pool: &PgPool) -> Result<Vec<Redrive>, sqlx::Error> {
    let sql = format!(
        "select {} from receiver.redrive order by created_at desc limit $1",
        Redrive::COLUMNS
    );
    let orders = sqlx::query_as(AssertSqlSafe(sql)).bind(ORDERS);
    ask(orders.fetch_all(pool)).await
}

/// One order.
pub(super) async fn order(pool: &PgPool, id: Uuid) -> Result<Option<Redrive>, sqlx::Error> {
    let order = sqlx::query_as("select * from receiver.redrive where redrive_id = $1");
    ask(order.bind(id).fetch_optional(pool)).await
}

/// How those fared that an order sent back.
pub(super) async fn outcome(pool: &PgPool, id: Uuid) -> Result<Outcome, sqlx::Error> {
    let outcome = sqlx::query_as(
        "select count(*) filter (where done) as processed,
                count(*) filter (where not done and again) as parked_again,
                count(*) filter (where not done and not again) as on_their_way
           from (select exists (select from receiver.processed p where p.message_id = d.message_id) as done,
                        exists (select from receiver.dead_letter n
                                 where n.message_id = d.message_id and n.redrive > d.redrive) as again
                   from receiver.redrive_item i join receiver.dead_letter d using (dead_letter_id)
                  where i.redrive_id = $1 and i.state = 'redriven') as redriven",
    )
    .bind(id)
    .fetch_one(pool);
    ask(outcome).await
}

/// How far an order is, by the dead letters themselves.
#[derive(Debug, Clone, Copy, FromRow)]
pub(crate) struct Sent {
    pub(crate) state: State,
    pub(crate) selected: i64,
    pub(crate) redriven: i64,
    pub(crate) has_effect: i64,
}

/// The same of this order; none: there is no such order.
pub(crate) async fn sent(
    connection: &mut PgConnection,
    id: Uuid,
) -> Result<Option<Sent>, sqlx::Error> {
    let sent = sqlx::query_as(
        "select r.state, r.selected,
                count(d.dead_letter_id) filter (where d.state = 'redriven') as redriven,
                count(d.dead_letter_id) filter (where d.state = 'has-effect') as has_effect
           from receiver.redrive r left join receiver.dead_letter d on d.redriven_by = r.redrive_id
          where r.redrive_id = $1 group by r.redrive_id",
    );
    sent.bind(id).fetch_optional(connection).await
}

/// How many dead letters fit that are messages of ours, so that they can be sent back.
pub(crate) async fn of_ours(
    connection: &mut PgConnection,
    selection: &Selection,
) -> Result<i64, sqlx::Error> {
    let sql = format!(
        "select count(*) from receiver.dead_letter d where {} and d.message_id is not null",
        Selection::FITS
    );
    let query = selection.bind(sqlx::query(AssertSqlSafe(sql)));
    query.fetch_one(connection).await?.try_get(0)
}

/// The runs whose messages an order is about: to be audited afterwards.
pub(super) async fn runs(pool: &PgPool, id: Uuid) -> Result<Vec<String>, sqlx::Error> {
    let runs = sqlx::query_scalar(
        "select distinct d.run from receiver.redrive_item i join receiver.dead_letter d using (dead_letter_id)
          where i.redrive_id = $1 and d.run is not null order by 1",
    )
    .bind(id)
    .fetch_all(pool);
    ask(runs).await
}
