//! A message is published once more: the same id, headers and body, as a publisher may do that lost a confirm.
//!
//! **Harm.** This is the only place beside `send/publisher.rs` that publishes, it needs no outbox row on purpose, and it
//! uses the broker's management API, so that no client library is tempted to do it well. Only a message whose effect is
//! committed is copied, so that what must come of it is known: a delivery that changes nothing.
//!
//! Over at once. Evidence: the database knows a first delivery of that message that began later than the look at it, and ended
//! well. The broker says of a message that comes back that it does, so redeliveries of the original are not counted; the copy's
//! own are not either, so that one whose receiver dies at the wrong moment is a doubt. What would look the same is a publish
//! that the sender repeated for want of a confirm and that is still on its way though the sender is done with it.

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, FromRow, PgConnection};
use uuid::Uuid;

use super::http::Refused;
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
    /// The database's time when it was looked at.
    now: DateTime<Utc>,
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

/// Among which messages one is chosen: the newest effects whose deliveries are on record, some seconds of them at the highest
/// rates, since records and the sender's marks come a while after the effect.
const NEWEST: &str = "select d.message_id, d.delivery_id as place
    from receiver.delivery d
   where d.outcome = 'processed'
     and exists (select from receiver.processed p
                  where p.message_id = d.message_id and ($1 = '' or p.run = $1))
   order by d.delivery_id desc
   limit 10000";
/// The newest of those whose rows are gone from the inbox.
const FORGOTTEN: &str = "select message_id, message_id as place
    from receiver.processed p
   where ($1 = '' or run = $1)
     and message_id < (select below from receiver.inbox_window)
     and not exists (select from receiver.inbox i where i.message_id = p.message_id)
   order by message_id desc
   limit 1000";

/// The last one of which the ledger has all: its effect, the delivery that made it, and a sender that is done with it. So
/// neither a row that comes late nor another publish of the sender's is taken for a copy.
async fn last_processed(look: &dyn Look, order: &Order) -> Result<Accepted> {
    let run = order.text("run");
    let forgotten = order.text("which") == "forgotten";
    let among = if forgotten { FORGOTTEN } else { NEWEST };
    let mut database = PgConnection::connect(&look.auditor_url()?).await?;
    let sql = format!(
        "select m.message_id, m.number, m.text, m.accepted_at, m.node, m.run, clock_timestamp() as now
           from ({among}) p
           join sender.message m using (message_id)
          where exists (select from receiver.delivery d
                         where d.message_id = m.message_id and d.outcome = 'processed')
            and not exists (select from sender.outbox o where o.message_id = m.message_id)
            and not exists (select from sender.publication t
                             where t.message_id = m.message_id and t.try > 1)
          order by p.place desc
          limit 1"
    );
    let found = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(run);
    let found = found.fetch_optional(&mut database).await?;
    database.close().await?;
    found.ok_or_else(|| {
        let of = if run.is_empty() {
            String::new()
        } else {
            format!(" of the run {run}")
        };
        let what = if forgotten {
            ", and is gone from the inbox by now (INBOX_WINDOW_SECS)"
        } else {
            ""
        };
        Usage(format!(
            "no message{of} was processed yet, with its delivery on record{what}: there is none to copy"
        ))
        .into()
    })
}

/// How many publishes of a message came to a receiver that was done with them, since then by the database's clock. The first
/// delivery of a publish is the one that the broker does not call a redelivery, and that no failure came before: so it is
/// none of the original's, which was delivered before.
async fn new_ones(look: &dyn Look, message: Uuid, since: DateTime<Utc>) -> Result<i64> {
    let mut database = PgConnection::connect(&look.auditor_url()?).await?;
    let sql = "select count(*) from receiver.delivery
                where message_id = $1 and started_at >= $2
                  and not redelivered and attempt = 1
                  and outcome in ('processed', 'duplicate')";
    let count = sqlx::query_scalar(sql)
        .bind(message)
        .bind(since)
        .fetch_one(&mut database)
        .await?;
    database.close().await?;
    Ok(count)
}

#[async_trait]
impl Fault for DuplicatePublish {
    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        let message = last_processed(look, order).await?;
        Ok(Aim {
            struck: vec![format!("message {}", message.message_id)],
            before: json!({
                "vhost": look.vhost(),
                "message": message.message_id,
                "since": message.now,
                "copy": message.copy(),
            }),
        })
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        let vhost: String = active.noted("vhost")?;
        let path = ["exchanges", &vhost, MESSAGES, "publish"];
        for nth in 1..=active.order.number("copies")? {
            let copy = active.noted("copy")?;
            match site.harm.manage(Method::POST, &path, Some(copy)).await {
                Ok(()) => {}
                // before anything was published
                Err(error) if nth == 1 && error.is::<Refused>() => return Err(error),
                Err(error) if error.is::<Refused>() => {
                    bail!("copy {nth} was not published: {error:#}")
                }
                Err(error) => bail!("whether copy {nth} was published is not known: {error:#}"),
            }
        }
        Ok(())
    }

    async fn heal(&self, _active: &Active, _site: &Site) -> Result<()> {
        Ok(())
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let message: Uuid = active.noted("message")?;
        // older notes lack it
        let since: Option<DateTime<Utc>> = active.noted("since")?;
        let copies = i64::try_from(active.order.number("copies")?).context("too many copies")?;
        let came = new_ones(look, message, since.unwrap_or(active.at)).await?;
        let text = format!("message {message}: {came} of {copies} copies came to a receiver");
        Ok(match came {
            ..=0 => Evidence::NotSeen(text),
            came if came < copies => Evidence::Partly(text),
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
            now: accepted_at,
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
