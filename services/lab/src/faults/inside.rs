//! A stack that is seen from inside its network, by whoever has no hand on its programs: what its ports offer is all there
//! is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use messaging::receive::redrive::Selection;
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::catalogue::{NO_HANDS, NO_PROXY};
use super::http;
use super::redrive;
use super::site::{Harm, Identity, Life, LinkHarm, LinkSight, Look, Site};
use crate::dead::receivers::Receivers;
use crate::run::sight::{NodeSight, Sight, who_is};
use crate::say::Usage;
use crate::stack::servers::Which as Server;
use crate::stack::strike::{End, Target};

const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// What is known of it.
pub struct Inside {
    sight: Sight,
    client: Client,
}

fn no_hands<T>() -> Result<T> {
    Err(Usage(NO_HANDS.to_owned()).into())
}

impl Inside {
    /// Both halves.
    pub fn site(sight: &Sight) -> Site {
        let inside = Arc::new(Self {
            sight: sight.clone(),
            client: Client::new(),
        });
        Site {
            look: Arc::<Self>::clone(&inside),
            harm: inside,
        }
    }

    fn node(&self, name: &str) -> Result<&NodeSight> {
        let found = self.sight.nodes.iter().find(|node| node.name == name);
        Ok(found.ok_or_else(|| Usage(format!("there is no node {name}")))?)
    }

    fn management(&self) -> Result<&str> {
        let unknown =
            || Usage("say where the broker's management API is: --management-url".to_owned());
        Ok(self.sight.management.as_deref().ok_or_else(unknown)?)
    }

    fn receivers(&self) -> Receivers {
        Receivers::new(&self.sight.gateway, self.sight.redrive_token.clone())
    }

    /// When the node began, as it says itself; none while it does not answer.
    async fn began(&self, target: &Target) -> Result<Option<String>> {
        let Target::Node(name) = target else {
            return no_hands();
        };
        let told = who_is(&self.node(name)?.ops).await;
        Ok(told
            .ok()
            .and_then(|told| Some(told["since"].as_str()?.to_owned())))
    }
}

#[async_trait]
impl Look for Inside {
    async fn nodes(&self) -> Result<Vec<NodeSight>> {
        Ok(self.sight.nodes.clone())
    }

    /// A node that its host does not lead to any more had its settings in a process that is gone.
    async fn listed(&self, target: &Target, place: Option<&str>) -> Result<bool> {
        let Target::Node(name) = target else {
            return no_hands();
        };
        Ok(NodeSight::is_listed(&self.sight.nodes, name, place)?)
    }

    async fn identity(&self, target: &Target) -> Result<Option<Identity>> {
        Ok(self.began(target).await?.map(|since| Identity {
            name: format!("the process of {since}"),
            started: since,
        }))
    }

    async fn life(&self, target: &Target, identity: &Identity) -> Result<Life> {
        let now = self.began(target).await?;
        Ok(if now.as_ref() == Some(&identity.started) {
            Life::Runs
        } else {
            Life::Gone
        })
    }

    async fn answers(&self, target: &Target) -> Result<bool> {
        let Target::Node(name) = target else {
            return no_hands();
        };
        let Some(address) = proxy::target(&self.node(name)?.address) else {
            return Ok(false);
        };
        let connected = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await;
        Ok(matches!(connected, Ok(Ok(_))))
    }

    async fn broker(&self, path: &[&str]) -> Result<Option<Value>> {
        http::broker(&self.client, self.management()?, path).await
    }

    fn vhost(&self) -> String {
        self.sight.vhost.clone()
    }

    fn auditor_url(&self) -> Result<String> {
        if self.sight.auditor_url.is_empty() {
            return Err(Usage("say where the ledger is: --auditor-url".to_owned()).into());
        }
        Ok(self.sight.auditor_url.clone())
    }

    async fn ops(&self, node: &str, path: &str) -> Result<Value> {
        http::ops(&self.client, node, &self.node(node)?.ops, path).await
    }

    async fn log(
        &self,
        _node: &str,
        _process: &Identity,
        _since: DateTime<Utc>,
    ) -> Result<Option<String>> {
        Ok(None)
    }

    async fn link(&self, _node: &str, _server: Server) -> Result<LinkSight> {
        Err(Usage(NO_PROXY.to_owned()).into())
    }
}

#[async_trait]
impl Harm for Inside {
    async fn hold(&self, _target: &Target, _end: End) -> Result<()> {
        no_hands()
    }

    async fn release(&self, _target: &Target) -> Result<()> {
        no_hands()
    }

    async fn restart(&self, _target: &Target) -> Result<()> {
        no_hands()
    }

    async fn pause(&self, _target: &Target) -> Result<()> {
        no_hands()
    }

    async fn resume(&self, _target: &Target) -> Result<()> {
        no_hands()
    }

    async fn manage(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<()> {
        http::manage(&self.client, self.management()?, method, path, body).await
    }

    async fn memory_alarm(&self, _on: bool) -> Result<()> {
        no_hands()
    }

    async fn put_ops(&self, node: &str, path: &str, body: String) -> Result<()> {
        http::put_ops(&self.client, node, &self.node(node)?.ops, path, body).await
    }

    async fn redrive(&self, id: Uuid, selection: &Selection, per_second: u32) -> Result<()> {
        redrive::begin(&self.receivers(), id, selection, per_second).await
    }

    async fn cancel_redrive(&self, id: Uuid) -> Result<()> {
        redrive::cancel(&self.receivers(), id).await
    }

    async fn link(&self, _node: &str, _server: Server, _harm: LinkHarm) -> Result<()> {
        Err(Usage(NO_PROXY.to_owned()).into())
    }
}
