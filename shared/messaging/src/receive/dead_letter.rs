//! Dead letters are parked in Postgres: the row first, the ack after, never twice.
//!
//! Anything can be in the queue `messages.dead`, also what is not ours. A message of ours is the same
//! one when its id is; any other when body, kind and headers are (two that are equal in all of it
//! cannot be told from one delivered twice, and one row stands for both).
//!
//! The broker keeps only its own word (`rejected`); why a message of ours was given up on is read from
//! its counted failures, and of a foreign one from the message itself.

use std::fmt::Write as _;

use chaos::FailPoints;
use lapin::{
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use uuid::Uuid;

use super::{
    consumer::Deed,
    failure,
    patience::{Held, Holding},
    settle::Settle,
};
use crate::{
    bounded,
    envelope::{self, Envelope},
};

/// How many dead letters are in hand at most.
pub const PREFETCH: u16 = 32;

/// The deed of the queue `messages.dead`.
pub struct Parking {
    pool: PgPool,
    node: String,
    kind: &'static str,
    /// Reads the body as far as to say what is wrong with it.
    check: fn(&Envelope) -> Result<(), envelope::NotOurs>,
    fail_points: FailPoints,
    holding: Holding,
}

impl Parking {
    /// Parks dead letters of messages of `kind`, whose bodies `check` understands.
    pub fn new(
        pool: PgPool,
        node: String,
        kind: &'static str,
        check: fn(&Envelope) -> Result<(), envelope::NotOurs>,
        fail_points: FailPoints,
    ) -> Self {
        Self {
            pool,
            node,
            kind,
            check,
            fail_points,
            holding: Holding::default(),
        }
    }

    async fn park(&self, delivery: &Delivery) -> Result<(), sqlx::Error> {
        let ours = Envelope::read(delivery, self.kind);
        let ours = ours.and_then(|envelope| (self.check)(&envelope).map(|()| envelope));
        let (reason, attempts) = match &ours {
            Ok(envelope) => self.reason(envelope.message_id, delivery).await?,
            Err(not_ours) => (format!("not a message of ours: {not_ours}"), None),
        };
        let headers = delivery
            .properties
            .headers()
            .as_ref()
            .map(table)
            .unwrap_or_default();
        let kind = delivery
            .properties
            .kind()
            .as_ref()
            .map(|kind| clean(kind.as_str()));
        let fingerprint = match &ours {
            Ok(envelope) => envelope.message_id.to_string(),
            Err(_) => fingerprint(delivery, &headers),
        };
        // Of two copies one may have been given up on while the other had its effect.
        let parked = sqlx::query(
            "insert into dead_letter (fingerprint, message_id, kind, body, reason, attempts, headers, node, run)
             select $1, $2, $3, $4, $5, $6, $7, $8, $9
              where not exists (select from inbox where message_id = $2)
             on conflict do nothing",
        )
        .bind(fingerprint)
        .bind(ours.as_ref().ok().map(|envelope| envelope.message_id))
        .bind(kind)
        .bind(&delivery.data)
        .bind(clean(&reason))
        .bind(attempts)
        .bind(Value::Object(headers))
        .bind(&self.node)
        .bind(ours.as_ref().ok().and_then(|envelope| envelope.run.as_deref()))
        .execute(&self.pool)
        .await?;
        if parked.rows_affected() == 0 {
            info!("a dead letter that is parked already, or has its effect");
            return Ok(());
        }
        info!(reason, "parked");
        metrics::counter!("unacked_messages_parked_total").increment(1);
        Ok(())
    }

    async fn reason(
        &self,
        message_id: Uuid,
        delivery: &Delivery,
    ) -> Result<(String, Option<i32>), sqlx::Error> {
        if let Some(failures) = failure::of(&self.pool, message_id).await? {
            let failure::Failures {
                count,
                attempts,
                reason,
            } = failures;
            return Ok((
                format!("its work failed {count} times, at last: {reason}"),
                Some(attempts),
            ));
        }
        let word = broker_reason(delivery).unwrap_or_else(|| "unknown".to_owned());
        Ok((
            format!("delivered too often without being settled (the broker says: {word})"),
            None,
        ))
    }
}

impl Deed for Parking {
    async fn deliver(&self, delivery: &Delivery, stop: &CancellationToken) -> Settle {
        match self
            .holding
            .until_done("park", stop, || bounded(self.park(delivery)))
            .await
        {
            Ok(()) => {}
            Err(None) => return Settle::Requeue(std::time::Duration::ZERO),
            Err(Some(why)) => {
                error!(why, "a dead letter cannot be stored; it stays in its queue");
                return Settle::Requeue(std::time::Duration::from_secs(5));
            }
        }
        match self.fail_points.hit("dead_letter.after_park").await {
            Ok(()) => Settle::Ack,
            Err(_) => Settle::Requeue(std::time::Duration::ZERO),
        }
    }

    fn held(&self) -> watch::Receiver<Held> {
        self.holding.subscribe()
    }
}

/// The first `reason` in the broker's `x-death` header.
fn broker_reason(delivery: &Delivery) -> Option<String> {
    let AMQPValue::FieldArray(deaths) = envelope::header(&delivery.properties, "x-death")? else {
        return None;
    };
    let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else {
        return None;
    };
    match death.inner().get("reason")? {
        AMQPValue::LongString(reason) => {
            Some(String::from_utf8_lossy(reason.as_bytes()).into_owned())
        }
        _ => None,
    }
}

/// Of everything that does not change from one delivery of a message to the next. `x-death` has times
/// that differ when the broker dead-letters a message twice.
fn fingerprint(delivery: &Delivery, headers: &Map<String, Value>) -> String {
    let properties = &delivery.properties;
    let mut hash = Sha256::new();
    for part in [
        properties.message_id(),
        properties.kind(),
        properties.correlation_id(),
    ] {
        let part = part.as_ref().map(ShortString::as_str).unwrap_or_default();
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let stable: Map<String, Value> = headers
        .iter()
        .filter(|(name, _)| {
            !name.contains("death") && *name != "x-delivery-count" && *name != "x-acquired-count"
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let stable = Value::Object(stable).to_string();
    hash.update(stable.len().to_be_bytes());
    hash.update(stable);
    hash.update(&delivery.data);
    hash.finalize()
        .iter()
        .fold("sha256:".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Headers as JSON that Postgres takes: text that is not UTF-8 is shown with replacements.
fn table(table: &FieldTable) -> Map<String, Value> {
    table
        .inner()
        .iter()
        .map(|(name, value)| (clean(name.as_str()), json(value)))
        .collect()
}

fn json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(flag) => json!(flag),
        AMQPValue::ShortShortInt(n) => json!(n),
        AMQPValue::ShortShortUInt(n) => json!(n),
        AMQPValue::ShortInt(n) => json!(n),
        AMQPValue::ShortUInt(n) => json!(n),
        AMQPValue::LongInt(n) => json!(n),
        AMQPValue::LongUInt(n) => json!(n),
        AMQPValue::LongLongInt(n) => json!(n),
        AMQPValue::Timestamp(n) => json!(n),
        AMQPValue::Float(n) => json!(n),
        AMQPValue::Double(n) => json!(n),
        AMQPValue::DecimalValue(n) => json!(format!("{n:?}")),
        AMQPValue::ShortString(text) => json!(clean(text.as_str())),
        AMQPValue::LongString(bytes) => json!(clean(&String::from_utf8_lossy(bytes.as_bytes()))),
        AMQPValue::ByteArray(bytes) => json!(clean(&String::from_utf8_lossy(bytes.as_slice()))),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(json).collect(),
        AMQPValue::FieldTable(inner) => Value::Object(table(inner)),
        AMQPValue::Void => Value::Null,
    }
}

fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;

    use super::*;

    fn dead(body: &[u8], headers: &[(&str, AMQPValue)]) -> Delivery {
        let mut delivery = Delivery::mock(1, "".into(), "".into(), false, body.to_vec());
        let mut fields = FieldTable::default();
        for (name, value) in headers {
            fields.insert((*name).into(), value.clone());
        }
        delivery.properties = BasicProperties::default().with_headers(fields);
        delivery
    }

    fn fingerprint_of(delivery: &Delivery) -> String {
        fingerprint(
            delivery,
            &table(delivery.properties.headers().as_ref().unwrap()),
        )
    }

    #[test]
    fn a_foreign_dead_letter_is_known_again_whatever_the_broker_adds() {
        let first = dead(b"x", &[("a", AMQPValue::LongInt(1))]);
        let again = dead(
            b"x",
            &[
                ("a", AMQPValue::LongInt(1)),
                ("x-delivery-count", AMQPValue::LongLongInt(1)),
            ],
        );
        assert_eq!(fingerprint_of(&first), fingerprint_of(&again));
        assert_ne!(
            fingerprint_of(&first),
            fingerprint_of(&dead(b"y", &[("a", AMQPValue::LongInt(1))]))
        );
        assert_ne!(
            fingerprint_of(&first),
            fingerprint_of(&dead(b"x", &[("a", AMQPValue::LongInt(2))]))
        );
    }

    #[test]
    fn headers_that_postgres_would_refuse_are_made_storable() {
        let wild = dead(
            b"",
            &[
                ("bytes", AMQPValue::LongString(vec![0xff, 0].into())),
                ("n\0", AMQPValue::Void),
            ],
        );
        let shown = Value::Object(table(wild.properties.headers().as_ref().unwrap())).to_string();
        assert!(!shown.contains("\\u0000"), "{shown}");
    }
}
