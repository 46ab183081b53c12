//! The queue is unbound from its exchange: what is published goes nowhere, and comes back where publishers ask for that.
//!
//! A service that opens a new session binds it again.

use anyhow::{Context, Result};
use async_trait::async_trait;
use reqwest::Method;
use serde_json::json;

use super::{Active, Aim, Evidence, Fault, Look, Order, Site};
use crate::say::Usage;

const MESSAGES: &str = "messages";

/// An absent binding.
#[derive(Debug)]
pub struct QueueUnbind;

fn bindings(vhost: &str) -> [&str; 6] {
    ["bindings", vhost, "e", MESSAGES, "q", MESSAGES]
}

async fn bound(look: &dyn Look, vhost: &str) -> Result<bool> {
    let found = look.broker(&bindings(vhost)).await?.unwrap_or_default();
    let found = found
        .as_array()
        .context("the broker gave no list of bindings")?;
    Ok(found.iter().any(|one| one["routing_key"] == MESSAGES))
}

#[async_trait]
impl Fault for QueueUnbind {
    async fn aim(&self, _order: &Order, look: &dyn Look) -> Result<Aim> {
        let vhost = look.vhost();
        if !bound(look, &vhost).await? {
            return Err(Usage(format!("the queue {MESSAGES} is not bound")).into());
        }
        Ok(Aim {
            struck: vec![format!("queue {MESSAGES}")],
            before: json!({ "vhost": vhost }),
        })
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        let vhost: String = active.noted("vhost")?;
        // the binding's own name is its routing key
        let path = [&bindings(&vhost)[..], &[MESSAGES]].concat();
        site.harm.manage(Method::DELETE, &path, None).await
    }

    async fn heal(&self, active: &Active, site: &Site) -> Result<()> {
        let vhost: String = active.noted("vhost")?;
        // where the queue is gone altogether, nodes will declare and bind it
        if site
            .look
            .broker(&["queues", &vhost, MESSAGES])
            .await?
            .is_none()
        {
            return Ok(());
        }
        let body = json!({"routing_key": MESSAGES, "arguments": {}});
        site.harm
            .manage(Method::POST, &bindings(&vhost), Some(body))
            .await
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let vhost: String = active.noted("vhost")?;
        if look.broker(&["queues", &vhost, MESSAGES]).await?.is_none() {
            return Ok(Evidence::NotSeen(format!("there is no queue {MESSAGES}")));
        }
        Ok(if bound(look, &vhost).await? {
            Evidence::NotSeen(format!("the broker lists the binding of {MESSAGES}"))
        } else {
            Evidence::Seen(format!("the broker lists no binding of {MESSAGES}"))
        })
    }
}
