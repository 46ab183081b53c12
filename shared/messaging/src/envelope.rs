//! What is on the wire: a body, and around it what every message of ours carries.
//!
//! The id, kind, time and delivery mode travel as AMQP properties; node and run as headers, so that
//! tools show them without knowing the body. A message that lacks any of it is not ours, and
//! [`Envelope::read`] says why in words fit for the reason of a dead letter.

use chrono::{DateTime, Utc};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};
use uuid::Uuid;

/// The header with the name of the node that accepted the message.
const NODE: &str = "x-lab-node";
/// The header with the run that the message belongs to.
const RUN: &str = "x-lab-run";
/// The header with the time of acceptance in microseconds (the property has seconds only).
const ACCEPTED_US: &str = "x-lab-accepted-us";
/// The header with the deliveries that the message had before it was last published: a queue counts
/// its own only. Absent for none.
const ATTEMPTS: &str = "x-lab-attempts";
/// The header with the how manieth redrive this is; absent for a message that was never sent back on purpose.
const REDRIVE: &str = "x-lab-redrive";
/// The header with the true message id, only where the property has another ([`Identity::NewEachTime`]).
const ORIGIN: &str = "x-lab-origin";

/// A message with all that travels along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Made once, when the message was accepted; the same at every publish and every delivery.
    pub message_id: Uuid,
    /// What the body is, with its version, such as `message.v1`.
    pub kind: String,
    /// When the sender's database accepted it.
    pub accepted_at: DateTime<Utc>,
    /// The node that accepted it.
    pub node: String,
    /// The run it belongs to, if any.
    pub run: Option<String>,
    /// Deliveries that it had before it was published this time; 0 but after a time on the ladder.
    pub attempts: u32,
    /// How often it was sent back on purpose, from the dead letters.
    pub redrive: u32,
    /// JSON.
    pub body: Vec<u8>,
}

/// Where a classic queue keeps a message; a quorum queue keeps every message on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryMode {
    /// On disk: it outlives the broker.
    Persistent,
    /// In memory.
    Transient,
}

/// What the property message-id holds, by which the receiver's inbox knows a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The message's id, the same at every publish.
    MadeOnce,
    /// Another one at every publish, so that the inbox knows nothing again. The true id travels as a
    /// header, for the ledger only.
    NewEachTime,
}

/// Why a delivery is not a message of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotOurs {
    /// Without an id it cannot be told from its own redelivery.
    #[error("it has no message id that is a UUID")]
    NoId,
    /// The body is of another kind than this queue is for.
    #[error("its kind is {0:?}, not {1:?}")]
    Kind(String, &'static str),
    /// A header of ours is absent or of the wrong type.
    #[error("its header {0} is missing or malformed")]
    Header(&'static str),
    /// The body could not be read.
    #[error("its body is not what its kind says: {0}")]
    Body(String),
}

impl Envelope {
    /// The AMQP properties to publish it with.
    pub(crate) fn properties(&self, mode: DeliveryMode, identity: Identity) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert(
            NODE.into(),
            AMQPValue::LongString(self.node.as_str().into()),
        );
        headers.insert(
            ACCEPTED_US.into(),
            AMQPValue::LongLongInt(self.accepted_at.timestamp_micros()),
        );
        if let Some(run) = &self.run {
            headers.insert(RUN.into(), AMQPValue::LongString(run.as_str().into()));
        }
        if self.attempts > 0 {
            headers.insert(ATTEMPTS.into(), AMQPValue::LongUInt(self.attempts));
        }
        if self.redrive > 0 {
            headers.insert(REDRIVE.into(), AMQPValue::LongUInt(self.redrive));
        }
        let message_id = match identity {
            Identity::MadeOnce => self.message_id,
            Identity::NewEachTime => {
                let id = self.message_id.to_string();
                headers.insert(ORIGIN.into(), AMQPValue::LongString(id.into()));
                Uuid::now_v7()
            }
        };
        BasicProperties::default()
            .with_message_id(message_id.to_string().into())
            .with_type(self.kind.as_str().into())
            .with_app_id("unacked".into())
            .with_content_type("application/json".into())
            .with_timestamp(u64::try_from(self.accepted_at.timestamp()).unwrap_or_default())
            .with_delivery_mode(match mode {
                DeliveryMode::Persistent => 2,
                DeliveryMode::Transient => 1,
            })
            .with_headers(headers)
    }

    /// Reads a delivery that must be of `kind`.
    ///
    /// # Errors
    /// Why it is not one of ours.
    pub fn read(delivery: &Delivery, kind: &'static str) -> Result<Self, NotOurs> {
        let properties = &delivery.properties;
        let message_id = message_id(properties).ok_or(NotOurs::NoId)?;
        let found = properties
            .kind()
            .as_ref()
            .map(ShortString::as_str)
            .unwrap_or_default();
        if found != kind {
            return Err(NotOurs::Kind(found.to_owned(), kind));
        }
        let accepted_us = match header(properties, ACCEPTED_US) {
            Some(AMQPValue::LongLongInt(micros)) => *micros,
            _ => return Err(NotOurs::Header(ACCEPTED_US)),
        };
        let accepted_at =
            DateTime::from_timestamp_micros(accepted_us).ok_or(NotOurs::Header(ACCEPTED_US))?;
        Ok(Self {
            message_id,
            kind: found.to_owned(),
            accepted_at,
            node: text(properties, NODE).ok_or(NotOurs::Header(NODE))?,
            run: match header(properties, RUN) {
                None => None,
                Some(_) => Some(text(properties, RUN).ok_or(NotOurs::Header(RUN))?),
            },
            attempts: attempts(properties),
            redrive: header(properties, REDRIVE).and_then(integer).unwrap_or(0),
            body: delivery.data.clone(),
        })
    }
}

impl Envelope {
    /// A message that was parked, to be published once more: from the headers as they were stored. None: they are not
    /// those of a message of ours.
    pub(crate) fn parked(
        message_id: Uuid,
        kind: String,
        headers: &serde_json::Value,
        redrive: u32,
        run: Option<String>,
        body: Vec<u8>,
    ) -> Option<Self> {
        let accepted_at = headers.get(ACCEPTED_US)?.as_i64()?;
        Some(Self {
            message_id,
            kind,
            accepted_at: DateTime::from_timestamp_micros(accepted_at)?,
            node: headers.get(NODE)?.as_str()?.to_owned(),
            run,
            attempts: 0,
            redrive,
            body,
        })
    }
}

/// The message's id, if it is one that we could have made.
pub(crate) fn message_id(properties: &BasicProperties) -> Option<Uuid> {
    match text(properties, ORIGIN) {
        None => inbox_id(properties),
        Some(origin) => Uuid::try_parse(&origin).ok(),
    }
}

/// The id by which the inbox knows a message: the property, whatever the message's id is.
pub(crate) fn inbox_id(properties: &BasicProperties) -> Option<Uuid> {
    Uuid::try_parse(properties.message_id().as_ref()?.as_str()).ok()
}

/// Deliveries before this publish.
pub(crate) fn attempts(properties: &BasicProperties) -> u32 {
    header(properties, ATTEMPTS).and_then(integer).unwrap_or(0)
}

/// How often the broker gave this message out before, by its own count; `None` where it does not
/// count (classic queues), which is not the same as never. Quorum queues leave the header out at the
/// first delivery and, from RabbitMQ 4.3 on, count acquisitions apart.
pub(crate) fn earlier_deliveries(properties: &BasicProperties) -> Option<u32> {
    header(properties, "x-acquired-count")
        .or_else(|| header(properties, "x-delivery-count"))
        .and_then(integer)
}

fn integer(value: &AMQPValue) -> Option<u32> {
    let count = match value {
        AMQPValue::LongLongInt(n) => *n,
        AMQPValue::LongInt(n) => i64::from(*n),
        AMQPValue::LongUInt(n) => i64::from(*n),
        AMQPValue::ShortInt(n) => i64::from(*n),
        AMQPValue::ShortUInt(n) => i64::from(*n),
        AMQPValue::ShortShortInt(n) => i64::from(*n),
        AMQPValue::ShortShortUInt(n) => i64::from(*n),
        _ => return None,
    };
    u32::try_from(count).ok()
}

pub(crate) fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

fn text(properties: &BasicProperties, name: &str) -> Option<String> {
    match header(properties, name)? {
        AMQPValue::LongString(bytes) => {
            let text = std::str::from_utf8(bytes.as_bytes()).ok()?;
            // Postgres cannot store NUL in text.
            (!text.contains('\0')).then(|| text.to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            message_id: Uuid::now_v7(),
            kind: "message.v1".to_owned(),
            accepted_at: DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap(),
            node: "sender-7f3a".to_owned(),
            run: Some("r1".to_owned()),
            attempts: 0,
            redrive: 0,
            body: b"{}".to_vec(),
        }
    }

    fn delivered(properties: BasicProperties) -> Delivery {
        let mut delivery = Delivery::mock(1, "".into(), "".into(), false, b"{}".to_vec());
        delivery.properties = properties;
        delivery
    }

    /// As published when all guarantees hold.
    fn properties(envelope: &Envelope) -> BasicProperties {
        envelope.properties(DeliveryMode::Persistent, Identity::MadeOnce)
    }

    #[test]
    fn what_is_written_is_read() {
        for attempts in [0, 7] {
            let envelope = Envelope {
                attempts,
                ..envelope()
            };
            let delivery = delivered(properties(&envelope));
            assert_eq!(delivery.properties.delivery_mode(), &Some(2));
            assert_eq!(Envelope::read(&delivery, "message.v1"), Ok(envelope));
        }
    }

    #[test]
    fn the_inbox_knows_a_message_by_its_id_unless_each_publish_makes_a_new_one() {
        let envelope = envelope();
        assert_eq!(inbox_id(&properties(&envelope)), Some(envelope.message_id));
        let publish = || envelope.properties(DeliveryMode::Persistent, Identity::NewEachTime);
        let (one, two) = (publish(), publish());
        assert_ne!(inbox_id(&one), inbox_id(&two));
        // The ledger knows it all the same.
        for properties in [one, two] {
            assert_eq!(message_id(&properties), Some(envelope.message_id));
            let read = Envelope::read(&delivered(properties), "message.v1");
            assert_eq!(read, Ok(envelope.clone()));
        }
    }

    #[test]
    fn a_foreign_message_is_refused_with_the_reason() {
        let foreign =
            |properties| Envelope::read(&delivered(properties), "message.v1").unwrap_err();
        assert_eq!(foreign(BasicProperties::default()), NotOurs::NoId);
        assert_eq!(
            foreign(properties(&envelope()).with_message_id("42".into())),
            NotOurs::NoId
        );
        assert_eq!(
            foreign(properties(&envelope()).with_type("note.v1".into())),
            NotOurs::Kind("note.v1".to_owned(), "message.v1")
        );
        assert_eq!(
            foreign(properties(&envelope()).with_headers(FieldTable::default())),
            NotOurs::Header(ACCEPTED_US)
        );
    }

    #[test]
    fn the_brokers_count_is_read_in_any_integer_type() {
        let count = |value| {
            let mut headers = FieldTable::default();
            headers.insert("x-delivery-count".into(), value);
            earlier_deliveries(&BasicProperties::default().with_headers(headers))
        };
        assert_eq!(count(AMQPValue::LongLongInt(3)), Some(3));
        assert_eq!(count(AMQPValue::LongUInt(3)), Some(3));
        assert_eq!(count(AMQPValue::LongLongInt(-1)), None);
        assert_eq!(earlier_deliveries(&BasicProperties::default()), None);
    }
}
