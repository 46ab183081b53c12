//! The broker closes a client's connection, as an operator may: `DELETE /api/connections/NAME`. Over at once; the client
//! is expected to open another.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::targets::choose;
use super::{Active, Aim, Evidence, Fault, Look, Order, Site, Which};
use crate::say::Usage;
use crate::stack::node::Service;

/// A connection that is new may be missing in the broker's list for so long.
const LISTED_LIMIT: Duration = Duration::from_secs(8);

/// A connection closed by the broker.
#[derive(Debug)]
pub struct CloseConnection;

/// A connection as the broker lists it: its own name, and what the client calls it (`NODE ROLE`).
type Listed = (String, String);

async fn listed(look: &dyn Look) -> Result<Vec<Listed>> {
    let vhost = look.vhost();
    let all = look.broker(&["connections"]).await?.unwrap_or_default();
    let all = all
        .as_array()
        .context("the broker gave no list of connections")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ours = all.iter().filter(|one| one["vhost"] == *vhost);
    let mut ours: Vec<Listed> = ours
        .map(|one| {
            (
                text(&one["name"]),
                text(&one["client_properties"]["connection_name"]),
            )
        })
        .collect();
    ours.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
    Ok(ours)
}

#[async_trait]
impl Fault for CloseConnection {
    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        let role = order.text("role");
        // all nodes, unless one is named
        let mut whose = order.clone();
        if !matches!(whose.which, Which::One(_)) {
            whose.which = Which::All;
        }
        let nodes = choose(&whose, look, &Service::ALL).await?;
        let ours = |client: &str| {
            let (node, of) = client.split_once(' ').unwrap_or((client, ""));
            nodes.iter().any(|one| one.name == node) && (role == "any" || of == role)
        };
        let begun = Instant::now();
        let open = loop {
            let mut open = listed(look).await?;
            open.retain(|(_, client)| ours(client));
            if !open.is_empty() {
                break open;
            }
            if begun.elapsed() > LISTED_LIMIT {
                let why = format!("the broker lists no connection to close (role {role})");
                return Err(Usage(why).into());
            }
            sleep(Duration::from_millis(200)).await;
        };
        let chosen = match order.which {
            Which::One(_) => open,
            _ => order.choose(&open, |(name, _)| name.clone(), "connection")?,
        };
        Ok(Aim {
            struck: chosen.iter().map(|(_, client)| client.clone()).collect(),
            before: json!({ "connections": chosen }),
        })
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        let connections: Vec<Listed> = active.noted("connections")?;
        for (name, _) in &connections {
            site.harm
                .manage(Method::DELETE, &["connections", name], None)
                .await?;
        }
        Ok(())
    }

    async fn heal(&self, _active: &Active, _site: &Site) -> Result<()> {
        Ok(())
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let connections: Vec<Listed> = active.noted("connections")?;
        let open = listed(look).await?;
        let each = connections.iter().map(|(name, client)| {
            if open.iter().any(|(other, _)| other == name) {
                return Evidence::NotSeen(format!("{client}: the broker lists {name}"));
            }
            match open.iter().find(|(_, other)| other == client) {
                // it is closed, which is all; whether another is opened is up to the client
                None => Evidence::HealedBySelf(format!(
                    "{client}: the broker lists {name} no more, nor another"
                )),
                Some((new, _)) => Evidence::HealedBySelf(format!(
                    "{client}: the broker lists {new} instead of {name}"
                )),
            }
        });
        Ok(Evidence::of_all(&each.collect::<Vec<_>>()))
    }
}
