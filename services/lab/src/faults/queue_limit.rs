//! The queue is full: a policy gives it a maximum length.
//!
//! What becomes of the rest, the queue's own argument `x-overflow` says: it refuses publishes, or drops its oldest messages where that guarantee is off.
//!
//! The policy is in the broker's data, and outlives a restart.

use anyhow::{Context, Result};
use async_trait::async_trait;
use reqwest::Method;
use serde_json::json;

use super::{Active, Aim, Evidence, Fault, Look, Order, Site};
use crate::say::Usage;

/// The policy's name.
pub const POLICY: &str = "lab-queue-limit";

/// A maximum length.
#[derive(Debug)]
pub struct QueueLimit;

#[async_trait]
impl Fault for QueueLimit {
    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        let (vhost, queue) = (look.vhost(), order.text("queue"));
        let found = look.broker(&["queues", &vhost, queue]).await?;
        let found = found.ok_or_else(|| Usage(format!("there is no queue {queue} yet")))?;
        if found["policy"] == POLICY {
            return Err(Usage(format!("the queue {queue} has a limit already")).into());
        }
        Ok(Aim {
            struck: vec![format!("queue {queue}")],
            before: json!({ "vhost": vhost }),
        })
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        let vhost: String = active.noted("vhost")?;
        let queue = active.order.text("queue").replace('.', "\\.");
        let policy = json!({
            "pattern": format!("^{queue}$"),
            "definition": {"max-length": active.order.number("max-length")?},
            // a queue follows one policy only
            "priority": 1_000,
            "apply-to": "queues",
        });
        let path = ["policies", &vhost, POLICY];
        site.harm.manage(Method::PUT, &path, Some(policy)).await
    }

    async fn heal(&self, active: &Active, site: &Site) -> Result<()> {
        let vhost: String = active.noted("vhost")?;
        site.harm
            .manage(Method::DELETE, &["policies", &vhost, POLICY], None)
            .await
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let (vhost, name): (String, _) = (active.noted("vhost")?, active.order.text("queue"));
        // the list of policies is of this moment; what a queue says of itself may be some seconds old
        if look.broker(&["policies", &vhost, POLICY]).await?.is_none() {
            return Ok(Evidence::NotSeen(format!(
                "the broker has no policy {POLICY}"
            )));
        }
        let Some(queue) = look.broker(&["queues", &vhost, name]).await? else {
            return Ok(Evidence::NotSeen(format!("there is no queue {name}")));
        };
        let limit = &queue["effective_policy_definition"]["max-length"];
        if queue["policy"] != POLICY {
            let why = format!("queue {name} does not follow the policy {POLICY} yet");
            return Ok(Evidence::Partly(why));
        }
        let limit = limit
            .as_u64()
            .context("the policy sets no maximum length")?;
        Ok(Evidence::Seen(format!(
            "queue {name} has a maximum length of {limit}"
        )))
    }
}
