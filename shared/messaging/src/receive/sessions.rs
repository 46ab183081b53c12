//! Sessions of a consumer, for people to read: why what was in hand came back.
//!
//! Best effort like the deliveries ([`super::history`]), by the same loop. A session without an end on record belongs to a
//! process that died, or that could not reach the database when it ended.

use std::{sync::Mutex, time::Instant};

use lapin::{ErrorKind, protocol::AMQPErrorKind};
use sqlx::PgPool;
use uuid::Uuid;

use super::history::History;
use crate::Error;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// The node was told to stop, and finished what it had in hand.
    Stopped,
    /// The broker ended the consumer.
    Cancelled,
    /// The broker closed the channel.
    ChannelClosed,
    /// The broker closed the channel, since a delivery was in hand for too long.
    AckTimeout,
    /// The broker closed the connection.
    ConnectionClosed,
    /// The link broke, or went silent.
    ConnectionLost,
    /// A failure of the work was to drop the connection.
    Dropped,
    /// Something else.
    Other,
}

impl EndedBy {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
            Self::ChannelClosed => "channel-closed",
            Self::AckTimeout => "ack-timeout",
            Self::ConnectionClosed => "connection-closed",
            Self::ConnectionLost => "connection-lost",
            Self::Dropped => "dropped",
            Self::Other => "other",
        }
    }

    fn of(error: &Error) -> Self {
        match error {
            Error::ConsumerEnded(_) => Self::Cancelled,
            Error::Deadline { .. } => Self::ConnectionLost,
            Error::Dropped => Self::Dropped,
            Error::Broker(error) => Self::of_library(error),
            _ => Self::Other,
        }
    }

    fn of_library(error: &lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(said) => match said.kind() {
                AMQPErrorKind::Hard(_) => Self::ConnectionClosed,
                AMQPErrorKind::Soft(_)
                    if error.to_string().contains("delivery acknowledgement") =>
                {
                    Self::AckTimeout
                }
                AMQPErrorKind::Soft(_) => Self::ChannelClosed,
            },
            ErrorKind::IOError(_) | ErrorKind::MissingHeartbeatError => Self::ConnectionLost,
            _ => Self::Other,
        }
    }
}

/// One line about a session.
#[derive(Debug, Clone)]
pub(super) struct Told {
    session: Uuid,
    at: Instant,
    end: Option<(EndedBy, Option<String>)>,
}

/// The session that a consumer has now. One at a time: what an old one had in hand is dropped before the next begins.
#[derive(Debug, Default)]
pub struct Current(Mutex<Option<Uuid>>);

impl Current {
    /// In which session a delivery comes in.
    pub fn id(&self) -> Option<Uuid> {
        *self.slot()
    }

    /// One begins.
    pub fn opened(&self, history: &History) {
        let session = Uuid::now_v7();
        *self.slot() = Some(session);
        let at = Instant::now();
        history.session(Told {
            session,
            at,
            end: None,
        });
    }

    /// It ends: by this error, or because the node stops.
    pub fn ended(&self, history: &History, error: Option<&Error>) {
        let Some(session) = self.slot().take() else {
            return;
        };
        let by = error.map_or(EndedBy::Stopped, EndedBy::of);
        history.session(Told {
            session,
            at: Instant::now(),
            end: Some((by, error.map(ToString::to_string))),
        });
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Uuid>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Writes what was told. One session may begin and end within it.
pub(super) async fn write(
    pool: &PgPool,
    boot: Uuid,
    node: &str,
    told: &[Told],
) -> Result<(), sqlx::Error> {
    for told in told {
        let age = i64::try_from(told.at.elapsed().as_millis()).unwrap_or(i64::MAX);
        let (by, why) = told.end.clone().unzip();
        // The beginning may have been lost; its end is worth a row too.
        sqlx::query(
            "insert into session (session, boot, node, began_at, ended_at, ended_by, why)
             select $1, $2, $3, at, case when $5 is not null then at end, $5, $6
               from (select clock_timestamp() - $4 * interval '1 ms') as told (at)
             on conflict (session) do update
                set ended_at = excluded.ended_at, ended_by = excluded.ended_by, why = excluded.why",
        )
        .bind(told.session)
        .bind(boot)
        .bind(node)
        .bind(age)
        .bind(by.map(EndedBy::as_str))
        .bind(why.flatten())
        .execute(pool)
        .await?;
    }
    Ok(())
}
