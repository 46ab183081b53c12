//! A vhost of one test, and the hands to look into it and to disturb it from outside.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{Servers, cleanup};

const LIMIT: Duration = Duration::from_secs(10);
/// How often what a test cannot begin without is asked for.
const TRIES: u32 = 5;

/// A vhost, removed at the end with all that is in it.
pub struct Broker {
    /// To this vhost.
    pub amqp_url: String,
    /// The vhost's name.
    pub vhost: String,
    management: Url,
    client: Client,
}

/// How much is in a queue, by the broker's statistics, which lag some seconds behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// Waiting to be delivered.
    pub ready: u64,
    /// Delivered and not settled.
    pub unacked: u64,
}

impl Broker {
    /// Makes a vhost in which the servers' user may do everything.
    pub async fn vhost(servers: &Servers) -> Self {
        Self::try_vhost(servers).await.expect("a fresh vhost")
    }

    async fn try_vhost(servers: &Servers) -> anyhow::Result<Self> {
        let vhost = format!("test-{}", crate::name());
        let management = Url::parse(&servers.at.rabbitmq.management).context("management URL")?;
        let mut amqp = Url::parse(&servers.at.rabbitmq.amqp).context("AMQP URL")?;
        let user = amqp.username().to_owned();
        amqp.set_path(&vhost);
        let client = Client::builder().timeout(LIMIT).build()?;
        let broker = Self {
            amqp_url: amqp.into(),
            vhost,
            management,
            client,
        };
        broker.put(&["vhosts", &broker.vhost], json!({})).await?;
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        broker
            .put(&["permissions", &broker.vhost, &user], all)
            .await?;
        Ok(broker)
    }

    /// Makes something, which may be asked for again: a broker under load takes longer than one request waits.
    async fn put(&self, path: &[&str], body: Value) -> anyhow::Result<()> {
        let mut tries = 1;
        while let Err(error) = self.manage(Method::PUT, path, Some(body.clone())).await {
            if tries == TRIES {
                return Err(error);
            }
            tries += 1;
        }
        Ok(())
    }

    /// Asks the management API; `path` are the segments after `/api`, not yet escaped. No content
    /// is `null`.
    pub async fn manage(
        &self,
        method: Method,
        path: &[&str],
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let url = api(&self.management, path)?;
        let mut request = self.client.request(method.clone(), url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(reqwest::Error::without_url)?;
        let status = answer.status();
        let text = answer.text().await.map_err(reqwest::Error::without_url)?;
        ensure!(status.is_success(), "{method} {path:?}: {status} {text}");
        Ok(if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text)?
        })
    }

    /// How many messages of this queue wait to be delivered, as the queue itself says now; `None`
    /// when there is no such queue. What is delivered and unsettled is not in it.
    pub async fn queue_depth(&self, queue: &str) -> anyhow::Result<Option<u32>> {
        bounded(async {
            let (connection, channel) = self.channel().await?;
            let passive = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            let declared = channel
                .queue_declare(queue.into(), passive, FieldTable::default())
                .await;
            let depth = match declared {
                Ok(queue) => Some(queue.message_count()),
                Err(error) if error.to_string().contains("NOT_FOUND") => None,
                Err(error) => return Err(error.into()),
            };
            let _ = connection.close(200, "done".into()).await;
            Ok(depth)
        })
        .await
    }

    /// What the broker's statistics say of this queue.
    pub async fn queue_statistics(&self, queue: &str) -> anyhow::Result<QueueDepth> {
        let seen = self
            .manage(Method::GET, &["queues", &self.vhost, queue], None)
            .await?;
        let count = |field: &str| {
            seen[field]
                .as_u64()
                .with_context(|| format!("no statistics of {queue} yet"))
        };
        Ok(QueueDepth {
            ready: count("messages_ready")?,
            unacked: count("messages_unacknowledged")?,
        })
    }

    /// The broker's names of the connections to this vhost. Statistics: a new one may be missing
    /// for some seconds.
    pub async fn connections(&self) -> anyhow::Result<Vec<String>> {
        let seen = self
            .manage(Method::GET, &["vhosts", &self.vhost, "connections"], None)
            .await?;
        let all = seen.as_array().context("not a list of connections")?;
        Ok(all
            .iter()
            .filter_map(|one| one["name"].as_str())
            .map(str::to_owned)
            .collect())
    }

    /// Has the broker close all connections to this vhost, and says how many.
    pub async fn close_connections(&self) -> anyhow::Result<usize> {
        let mut closed = 0;
        for name in self.connections().await? {
            let url = api(&self.management, &["connections", &name])?;
            let request = self
                .client
                .delete(url)
                .header("X-Reason", "closed by a test");
            let status = request
                .send()
                .await
                .map_err(reqwest::Error::without_url)?
                .status();
            // It may have gone by itself.
            if status != StatusCode::NOT_FOUND {
                ensure!(status.is_success(), "closing {name}: {status}");
                closed += 1;
            }
        }
        Ok(closed)
    }

    /// Publishes whatever is given, confirmed. An error if the broker refuses it or has no queue
    /// for it.
    pub async fn publish_raw(
        &self,
        exchange: &str,
        routing_key: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> anyhow::Result<()> {
        bounded(async {
            let (connection, channel) = self.channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let confirm = channel
                .basic_publish(
                    exchange.into(),
                    routing_key.into(),
                    options,
                    body,
                    properties,
                )
                .await?;
            // One message on its own channel: here the confirm and the return do belong together.
            match confirm.await? {
                Confirmation::Ack(None) => {}
                Confirmation::Ack(Some(_)) => bail!("returned: no queue for it"),
                other => bail!("not confirmed: {other:?}"),
            }
            let _ = connection.close(200, "done".into()).await;
            Ok(())
        })
        .await
    }

    /// A connection and a channel of the test's own.
    pub async fn channel(&self) -> anyhow::Result<(Connection, Channel)> {
        let properties = ConnectionProperties::default();
        let connection =
            bounded(async { Ok(Connection::connect(&self.amqp_url, properties).await?) }).await?;
        let channel = bounded(async { Ok(connection.create_channel().await?) }).await?;
        Ok((connection, channel))
    }
}

/// No await on the client library may last for ever.
async fn bounded<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(LIMIT, work)
        .await
        .context("no answer of the broker in time")?
}

fn api(management: &Url, path: &[&str]) -> anyhow::Result<Url> {
    let mut url = management.clone();
    let Ok(mut segments) = url.path_segments_mut() else {
        bail!("not a base URL: management")
    };
    segments.clear().push("api").extend(path);
    drop(segments);
    Ok(url)
}

impl Drop for Broker {
    fn drop(&mut self) {
        let url = api(&self.management, &["vhosts", &self.vhost]);
        cleanup::run(async move {
            let status = Client::new().delete(url?).send().await?.status();
            ensure!(status.is_success(), "{status}");
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_in_paths() {
        let management = Url::parse("http://u:p@127.0.0.1:15672").unwrap();
        let url = api(
            &management,
            &["connections", "127.0.0.1:1 -> 127.0.0.1:2/x"],
        )
        .unwrap();
        assert_eq!(
            url.path(),
            "/api/connections/127.0.0.1:1%20-%3E%20127.0.0.1:2%2Fx"
        );
    }
}
