//! The work on a welcome mail: a mail server takes it.
//!
//! The effect is one row in `mail`; see [`messaging::receive::processor`] for what makes it happen
//! once. The mail itself cannot be made to go out exactly once: a mail server knows no transaction of ours,
//! so between its yes and our commit there is a moment in which it has the mail and we do not know it.
//!
//! Between two lines: die before the server's yes: delivered again, sent. Die after it and before our
//! commit: delivered again, and sent *twice*. Lose the link while the yes is on its way: nobody knows, so it is sent
//! again too, as a failure that is counted, and not without end. All copies carry one
//! Message-ID, made of the message's id, so that mail programs that look at it show one; that is all that can
//! be done, and more than most do. Die after the commit: delivered again, and known.
//!
//! What a server says of this mail is this mail's failure, and so is its silence when it had the whole mail. While the
//! server is away the mail is held and tried again with pauses, which counts no failure. RabbitMQ takes back what is held for
//! half an hour, and whatever a lost connection held: each of these is a delivery more, and after `MAX_DELIVERIES` of them,
//! which at half an hour each and by default are three weeks, the mail is given up on and parked.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use chaos::FailPoints;
use daemon::{parts::Part, tally::Tally};
use lettre::Address;
use messaging::{
    connection::Backoff,
    envelope::{Envelope, NotOurs},
    receive::handler::{Effect, Failure, Handler, Received, Undone},
};
use sqlx::{PgConnection, Postgres, Transaction};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    mail, numbers,
    smtp::{MailId, NotSent, Server},
};
use crate::message::{KIND, Welcome};

/// Longest pause before a server that was away is asked again.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Sends welcome mails.
pub(super) struct Deliver {
    pub(super) server: Server,
    pub(super) mail_id: MailId,
    pub(super) node: String,
    pub(super) fail_points: FailPoints,
    /// The mail server.
    pub(super) part: Part,
    pub(super) stop: CancellationToken,
    pub(super) tally: Arc<Tally>,
}

/// How long the mail server took, with the wait for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) took: Duration,
}

impl Deliver {
    /// Until the server has said something about this mail. At a stop it goes back as it came.
    async fn send(&self, to: &Address, mail: &[u8]) -> Result<(), Undone> {
        let mut backoff = Backoff::default();
        loop {
            let why = match self.server.send(to, mail).await {
                Ok(()) => {
                    self.part.up();
                    return Ok(());
                }
                Err(NotSent::Away(why)) => why,
                Err(error @ NotSent::Later(_)) => {
                    self.part.up();
                    numbers::count(numbers::LATER);
                    return Err(Failure::Retry(error.to_string()).into());
                }
                Err(error @ NotSent::Unknown(_)) => {
                    self.part.away(error.to_string());
                    numbers::count(numbers::UNKNOWN);
                    return Err(Failure::Retry(error.to_string()).into());
                }
                Err(error @ NotSent::Never(_)) => {
                    self.part.up();
                    numbers::count(numbers::NEVER);
                    return Err(Failure::Reject(error.to_string()).into());
                }
            };
            tracing::warn!(why, "the mail server is away; the mail is held");
            numbers::count(numbers::AWAY);
            self.part.away(why);
            let pause = backoff.next_pause().min(PAUSE_MAX);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return Err(Undone::Stopped),
            }
        }
    }
}

impl Handler for Deliver {
    const KIND: &'static str = KIND;
    type Message = Welcome;
    type Output = Sent;

    fn read(&self, envelope: &Envelope) -> Result<Welcome, NotOurs> {
        let welcome = Welcome::read(envelope)?;
        match welcome.email.parse::<Address>() {
            Ok(_) => Ok(welcome),
            Err(_) => Err(NotOurs::Body("its address is none".to_owned())),
        }
    }

    async fn work(&self, received: &Received<Welcome>) -> Result<Sent, Undone> {
        let welcome = &received.message;
        let began = Instant::now();
        let unwritten = |error: &dyn std::fmt::Display| {
            Failure::Reject(format!("it cannot be written: {error}"))
        };
        let to: Address = welcome.email.parse().map_err(|error| unwritten(&error))?;
        let id = received.envelope.message_id;
        let mail = mail::write(welcome, to.clone(), &self.server.from, id, self.mail_id);
        let mail = mail.map_err(|error| unwritten(&error))?;
        self.send(&to, &mail).await?;
        // From here to our commit the mail server has the mail and our database does not know it.
        let hit = self.fail_points.hit("welcome.after_smtp").await;
        numbers::count(numbers::SENT);
        hit.map_err(|injected| Failure::Retry(injected.to_string()))?;
        Ok(Sent {
            took: began.elapsed(),
        })
    }

    async fn store(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        effects: &[&Effect<Self>],
    ) -> Result<(), sqlx::Error> {
        mail::insert(tx, &self.node, effects).await
    }

    async fn done(
        &self,
        connection: &mut PgConnection,
        ids: &[Uuid],
    ) -> Result<HashSet<Uuid>, sqlx::Error> {
        mail::of(connection, ids).await
    }

    fn stored(&self, effects: usize) {
        self.tally.add(effects, daemon::clock::now());
    }
}
