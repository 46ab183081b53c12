//! Storing an account: with the outbox row of its welcome mail, in one commit, and only then is anybody told yes.
//!
//! Between two lines: die before the commit: nothing happened, and the client got no answer. Die after
//! it: the account is there and its mail goes out; the client does not know, tries again, and learns that the
//! address has an account, which a login then opens. Lose the database at the commit: the outcome is unknown,
//! and that is what the client is told.

use std::time::Duration;

use messaging::{
    envelope::Envelope,
    send::{outbox, relay::Reservation},
};
use sqlx::{Postgres, Transaction};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;
use uuid::Uuid;
use web::Error;

use super::{
    account::{self, NewAccount},
    app::App,
    check::Right,
};
use crate::message::{KIND, Welcome};

/// How long a client waits for the database before it hears that it is away.
const STORE_LIMIT: Duration = Duration::from_secs(5);
/// Within this many rows of the limit of the outbox it is looked at exactly: a count is a second old or more, and no more
/// passwords than this are hashed in that time.
const FEW: u64 = 10_000;

/// An account that is stored.
pub(super) struct Stored {
    pub(super) user_id: Uuid,
    pub(super) message_id: Uuid,
}

/// Why none is known to be stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotStored {
    /// There is one for this address.
    #[error("there is an account for this address")]
    Taken,
    /// As many mails wait as may.
    #[error("the outbox is full")]
    Full,
    /// Nothing was stored.
    #[error("{0}")]
    Away(String),
    /// It may or may not have been stored.
    #[error("{0}")]
    Unknown(String),
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
impl NotStored {
    fn before_commit(error: sqlx::Error) -> Self {
        Self::Away(error.to_string())
    }

    fn late<T>(_: T) -> Self {
        Self::Away("no answer in time".to_owned())
    }

    fn at_commit(error: sqlx::Error) -> Self {
        match error {
            // It said no, and rolled back.
            sqlx::Error::Database(_) => Self::Away(error.to_string()),
            _ => Self::Unknown(error.to_string()),
        }
    }
}

impl From<NotStored> for Error {
    fn from(not: NotStored) -> Self {
        match not {
            NotStored::Taken => Self::new(axum::http::StatusCode::CONFLICT, "There is an account for this address."),
            NotStored::Full => Self::away(
                "Too many mails wait to be sent, and no more accounts are taken. Please try again in a while.",
            )
            .coded("outbox_full"),
            NotStored::Away(_) => Self::away("The database is away; nothing was stored. Please try again in a moment.")
                .coded("database_away"),
            NotStored::Unknown(_) => Self::away(
                "Whether the account was stored is not known. Please try again; if it is said then that there is an \
                 account, it is this one, and you can log in.",
            )
            .coded("outcome_unknown"),
        }
    }
}

/// Stores it with this hash; when this says yes, it is committed.
pub(super) async fn store(
    app: &App,
    right: &Right,
    password_hash: &str,
    run: Option<&str>,
) -> Result<Stored, NotStored> {
    let stored = Stored {
        user_id: Uuid::now_v7(),
        message_id: Uuid::now_v7(),
    };
    let until = Instant::now() + STORE_LIMIT;
    let account = NewAccount {
        user_id: stored.user_id,
        message_id: stored.message_id,
        first_name: &right.first_name,
        last_name: &right.last_name,
        email: &right.email,
        password_hash,
        node: &app.node.name,
        run,
    };
    let reservation = app.handover.reserve();
    let lease = reservation.as_ref().map(Reservation::lease);
    let prepared = timeout_at(until, prepare(app, &account, lease)).await;
    let (tx, row) = prepared.map_err(NotStored::late)??;
    if let Err(injected) = app.fail_points.hit("signup.before_commit").await {
        // Nothing may be left to chance: say what was done, not what was meant.
        let _ = timeout(STORE_LIMIT, tx.rollback()).await;
        return Err(NotStored::Away(injected.to_string()));
    }
    match timeout(STORE_LIMIT, tx.commit()).await {
        Ok(committed) => committed.map_err(NotStored::at_commit)?,
        Err(_) => return Err(NotStored::Unknown("no answer to the commit".to_owned())),
    }
    match reservation {
        Some(reservation) => reservation.hand_over(vec![row]),
        None => app.handover.announce(),
    }
    if let Err(injected) = app.fail_points.hit("signup.after_commit").await {
        warn!(user_id = %stored.user_id, "stored, and not answered with yes");
        return Err(NotStored::Unknown(injected.to_string()));
    }
    Ok(stored)
}

/// Everything but the commit.
async fn prepare(
    app: &App,
    account: &NewAccount<'_>,
    lease: Option<Uuid>,
) -> Result<(Transaction<'static, Postgres>, Envelope), NotStored> {
    let begun = app.database.pool.begin().await;
    let mut tx = begun.map_err(NotStored::before_commit)?;
    let waiting = u64::try_from(app.depth.borrow().waiting).unwrap_or(0);
    if waiting.saturating_add(FEW) >= app.outbox_max {
        let room = outbox::room(&mut tx, app.outbox_max).await;
        if room.map_err(NotStored::before_commit)? == 0 {
            return Err(NotStored::Full);
        }
    }
    let created_at = account::insert(&mut tx, account).await;
    let created_at = created_at.map_err(NotStored::before_commit)?;
    let accepted_at = created_at.ok_or(NotStored::Taken)?;
    let welcome = Welcome {
        user_id: account.user_id,
        first_name: account.first_name.to_owned(),
        last_name: account.last_name.to_owned(),
        email: account.email.to_owned(),
    };
    let row = Envelope {
        message_id: account.message_id,
        kind: KIND.to_owned(),
        accepted_at,
        node: account.node.to_owned(),
        run: account.run.map(str::to_owned),
        attempts: 0,
        redrive: 0,
        body: welcome.to_body(),
    };
    let appended = app
        .handover
        .append(&mut tx, std::slice::from_ref(&row), lease)
        .await;
    appended.map_err(NotStored::before_commit)?;
    Ok((tx, row))
}
