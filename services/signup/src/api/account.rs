//! All SQL of the tables `account` and `revoked`: who there is, and which tokens were given back.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::token::{Claims, LEEWAY_SECS};

/// An account that is about to be stored.
pub(crate) struct NewAccount<'a> {
    pub(crate) user_id: Uuid,
    pub(crate) message_id: Uuid,
    pub(crate) first_name: &'a str,
    pub(crate) last_name: &'a str,
    pub(crate) email: &'a str,
    pub(crate) password_hash: &'a str,
    pub(crate) node: &'a str,
    pub(crate) run: Option<&'a str>,
}

/// Stores it and gives its time; `None` if there is one for this address, however it is written. Waits for a transaction that is
/// storing the same address.
pub(crate) async fn insert(
    tx: &mut Transaction<'_, Postgres>,
    account: &NewAccount<'_>,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar(
        r#"insert into account (user_id, message_id, first_name, last_name, email, password_hash, node, run)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (lower(email collate "C")) do nothing
         returning created_at"#,
    )
    .bind(account.user_id)
    .bind(account.message_id)
    .bind(account.first_name)
    .bind(account.last_name)
    .bind(account.email)
    .bind(account.password_hash)
    .bind(account.node)
    .bind(account.run)
    .fetch_optional(&mut **tx)
    .await
}

/// What a login needs to know.
#[derive(FromRow)]
pub(crate) struct Known {
    pub(crate) user_id: Uuid,
    pub(crate) password_hash: String,
}

/// Of this address, however it is written.
pub(crate) async fn by_email(pool: &PgPool, email: &str) -> Result<Option<Known>, sqlx::Error> {
    sqlx::query_as(
        r#"select user_id, password_hash from account
            where lower(email collate "C") = lower($1 collate "C")"#,
    )
    .bind(email)
    .fetch_optional(pool)
    .await
}

/// Where the welcome mail is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub(crate) enum Mail {
    /// On its way.
    Waiting,
    /// A mail server has taken it.
    Sent,
    /// It was given up on.
    Failed,
}

/// An account as its page shows it.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Account {
    pub(crate) user_id: Uuid,
    pub(crate) first_name: String,
    pub(crate) last_name: String,
    pub(crate) email: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) message_id: Uuid,
    pub(crate) mail: Mail,
    pub(crate) sent_at: Option<DateTime<Utc>>,
}

/// The account of a token that was not given back.
pub(crate) async fn of(pool: &PgPool, claims: &Claims) -> Result<Option<Account>, sqlx::Error> {
    sqlx::query_as(
        "select user_id, first_name, last_name, email, created_at, message_id, sent_at,
                case when sent_at is not null then 'sent'
                     when exists (select from dead_letter
                                   where dead_letter.message_id = account.message_id
                                     and dead_letter.state in ('parked', 'discarded')) then 'failed'
                     else 'waiting' end as mail
           from account
           left join lateral (select min(mail.sent_at) as sent_at from mail
                               where mail.message_id = account.message_id) as mailed on true
          where user_id = $1 and not exists (select from revoked where jti = $2)",
    )
    .bind(claims.sub)
    .bind(claims.jti)
    .fetch_optional(pool)
    .await
}

/// Gives a token back: from the commit on no node takes it.
pub(crate) async fn revoke(pool: &PgPool, claims: &Claims) -> Result<(), sqlx::Error> {
    sqlx::query("insert into revoked (jti, ends_at) values ($1, $2) on conflict do nothing")
        .bind(claims.jti)
        .bind(claims.ends_at())
        .execute(pool)
        .await?;
    Ok(())
}

/// Forgets tokens that nobody would take any more: not before the last clock says so.
pub(crate) async fn prune_revoked(pool: &PgPool) -> Result<(), sqlx::Error> {
    let leeway = i32::try_from(LEEWAY_SECS * 10).unwrap_or(i32::MAX);
    sqlx::query("delete from revoked where ends_at < clock_timestamp() - $1 * interval '1 second'")
        .bind(leeway)
        .execute(pool)
        .await?;
    Ok(())
}
