//! A queue is unbound from its exchange: what is published goes nowhere, and comes back where publishers ask for that.
//!
//! A service that opens a new session binds it again. Dead letters that found no queue the broker tries again after three
//! minutes, or as soon as any policy changes: so healing also sets one that says nothing new, and removes it.

use anyhow::{Context, Result};
use async_trait::async_trait;
use reqwest::Method;
use serde_json::json;

use super::{Active, Aim, Evidence, Fault, Look, Order, Site};
use crate::say::Usage;

const MESSAGES: &str = "messages";
const POLICY: &str = "lab-look-again";

/// An absent binding.
#[derive(Debug)]
pub struct QueueUnbind;

/// Exchange, queue and routing key have one name.
fn bindings<'a>(vhost: &'a str, name: &'a str) -> [&'a str; 6] {
    ["bindings", vhost, "e", name, "q", name]
}

async fn bound(look: &dyn Look, vhost: &str, name: &str) -> Result<bool> {
    let found = look.broker(&bindings(vhost, name)).await?;
    let found = found.unwrap_or_default();
    let found = found
        .as_array()
        .context("the broker gave no list of bindings")?;
    Ok(found.iter().any(|one| one["routing_key"] == name))
}

#[async_trait]
impl Fault for QueueUnbind {
    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        let (vhost, name) = (look.vhost(), order.text("queue"));
        if !bound(look, &vhost, name).await? {
            return Err(Usage(format!("the queue {name} is not bound")).into());
        }
        Ok(Aim {
            struck: vec![format!("queue {name}")],
            before: json!({ "vhost": vhost }),
        })
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        let (vhost, name): (String, _) = (active.noted("vhost")?, active.order.text("queue"));
        // the binding's own name is its routing key
        let path = [&bindings(&vhost, name)[..], &[name]].concat();
        site.harm.manage(Method::DELETE, &path, None).await
    }

    async fn heal(&self, active: &Active, site: &Site) -> Result<()> {
        let (vhost, name): (String, _) = (active.noted("vhost")?, active.order.text("queue"));
        // where the queue is gone altogether, nodes will declare and bind it
        if site.look.broker(&["queues", &vhost, name]).await?.is_none() {
            return Ok(());
        }
        let body = json!({"routing_key": name, "arguments": {}});
        site.harm
            .manage(Method::POST, &bindings(&vhost, name), Some(body))
            .await?;
        if name == MESSAGES {
            return Ok(());
        }
        let path = ["policies", &vhost, POLICY];
        let policy = json!({
            "pattern": format!("^{MESSAGES}$"),
            // as the queue has it already
            "definition": {"delivery-limit": 1_000},
            "apply-to": "queues",
        });
        site.harm.manage(Method::PUT, &path, Some(policy)).await?;
        site.harm.manage(Method::DELETE, &path, None).await
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let (vhost, name): (String, _) = (active.noted("vhost")?, active.order.text("queue"));
        if look.broker(&["queues", &vhost, name]).await?.is_none() {
            return Ok(Evidence::NotSeen(format!("there is no queue {name}")));
        }
        Ok(if bound(look, &vhost, name).await? {
            Evidence::NotSeen(format!("the broker lists the binding of {name}"))
        } else {
            Evidence::Seen(format!("the broker lists no binding of {name}"))
        })
    }
}
