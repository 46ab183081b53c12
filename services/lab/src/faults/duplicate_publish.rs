//! A message is published once more: the same id, headers and body, as a publisher may do that lost a confirm.
//!
//! **Harm.** This is the only place beside `send/publisher.rs` that publishes, it needs no outbox row on purpose, and it
//! uses the broker's management API, so that no client library is tempted to do it well. Only a message whose effect is
//! committed is copied, so that what must come of it is known: a delivery that changes nothing.
//!
//! Over at once. Evidence: the database knows one more delivery of that message.

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, FromRow, PgConnection};
use uuid::Uuid;

use super::{Active, Aim, Evidence, Fault, Look, Order, Site};
use crate::say::Usage;

const MESSAGES: &str = "messages";

/// A second publish.
#[derive(Debug)]
pub struct DuplicatePublish;

/// A row of `sender.message`.
#[derive(Debug, FromRow)]
#[expect(clippy::struct_field_names, reason = "columns of the table")]
struct Accepted {
    message_id: Uuid,
    number: i64,
    text: String,
    accepted_at: DateTime<Utc>,
    node: String,
    run: Option<String>,
}

impl Accepted {
    /// As the sender's publisher wrote it, for `POST /api/exchanges/../publish`.
    fn copy(&self) -> Value {
        let mut headers = json!({
            "x-lab-node": self.node,
            "x-lab-accepted-us": self.accepted_at.timestamp_micros(),
        });
        if let Some(run) = &self.run {
            headers["x-lab-run"] = json!(run);
        }
        json!({
            "properties": {
                "message_id": self.message_id,
                "type": "message.v1",
                "app_id": "unacked",
                "content_type": "application/json",
                "timestamp": self.accepted_at.timestamp(),
                "delivery_mode": 2,
                "headers": headers,
            },
            "routing_key": MESSAGES,
            "payload": json!({"number": self.number, "text": self.text}).to_string(),
            "payload_encoding": "string",
        })
    }
}

/// The last one whose effect is committed, of a run if that is named.
async fn last_processed(look: &dyn Look, run: &str) -> Result<Accepted> {
    let mut database = PgConnection::connect(&look.auditor_url()?).await?;
    let found = sqlx::query_as(
        "select m.message_id, m.number, m.text, m.accepted_at, m.node, m.run
           from receiver.processed p
           join sender.message m using (message_id)
          where $1 = '' or p.run = $1
          order by p.processed_id desc
          limit 1",
    )
    .bind(run)
    .fetch_optional(&mut database)
    .await?;
    database.close().await?;
    found.ok_or_else(|| {
        let of = if run.is_empty() {
            String::new()
        } else {
            format!(" of the run {run}")
        };
        Usage(format!(
            "no message{of} was processed yet: there is none to copy"
        ))
        .into()
    })
}

/// How many deliveries of a message have ended.
async fn deliveries(look: &dyn Look, message: Uuid) -> Result<i64> {
    let mut database = PgConnection::connect(&look.auditor_url()?).await?;
    let sql =
        "select count(*) from receiver.delivery where message_id = $1 and ended_at is not null";
    let count = sqlx::query_scalar(sql)
        .bind(message)
        .fetch_one(&mut database)
        .await?;
    database.close().await?;
    Ok(count)
}

#[async_trait]
impl Fault for DuplicatePublish {
    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        let message = last_processed(look, order.text("run")).await?;
        let before = deliveries(look, message.message_id).await?;
        ensure!(
            before > 0,
            "the delivery of {} is not on record, so no second one could be seen",
            message.message_id
        );
        Ok(Aim {
            struck: vec![format!("message {}", message.message_id)],
            before: json!({
                "vhost": look.vhost(),
                "message": message.message_id,
                "deliveries": before,
                "copy": message.copy(),
            }),
        })
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        let vhost: String = active.noted("vhost")?;
        let path = ["exchanges", &vhost, MESSAGES, "publish"];
        for _ in 0..active.order.number("copies")? {
            let copy = active.noted("copy")?;
            site.harm.manage(Method::POST, &path, Some(copy)).await?;
        }
        Ok(())
    }

    async fn heal(&self, _active: &Active, _site: &Site) -> Result<()> {
        Ok(())
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let message: Uuid = active.noted("message")?;
        let before: i64 = active.noted("deliveries")?;
        let copies = i64::try_from(active.order.number("copies")?).context("too many copies")?;
        let more = deliveries(look, message).await? - before;
        let text = format!("message {message}: {more} more deliveries of {copies}");
        Ok(match more {
            ..=0 => Evidence::NotSeen(text),
            more if more < copies => Evidence::Partly(text),
            _ => Evidence::HealedBySelf(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_id_and_the_headers_of_the_first() {
        let accepted_at = "2026-11-21T09:00:00.123456Z".parse().unwrap();
        let message = Accepted {
            message_id: Uuid::nil(),
            number: 7,
            text: "hi".to_owned(),
            accepted_at,
            node: "sender-1".to_owned(),
            run: Some("r1".to_owned()),
        };
        let copy = message.copy();
        let properties = &copy["properties"];
        assert_eq!(properties["message_id"], Uuid::nil().to_string());
        assert_eq!(properties["headers"]["x-lab-run"], "r1");
        let micros = accepted_at.timestamp_micros();
        assert_eq!(properties["headers"]["x-lab-accepted-us"], micros);
        assert_eq!(copy["payload"], r#"{"number":7,"text":"hi"}"#);
    }
}
