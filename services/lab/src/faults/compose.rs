//! The stack of Docker Compose, as faults see and strike it: Docker does what is done to programs, and is asked what
//! became of them.
//!
//! A container that Docker's command has killed or stopped stays dead, whatever its restart policy says: that one is for
//! programs that end by themselves. One that ends by itself with a failure is started again by Docker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, Utc};
use messaging::receive::redrive::Selection;
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::catalogue::NO_PROXY;
use super::http;
use super::redrive;
use super::site::{Harm, Identity, Life, LinkHarm, LinkSight, Look, Site};
use crate::compose::docker::{self, docker};
use crate::compose::{self, Container, Project};
use crate::dead::receivers::Receivers;
use crate::run::sight::{NodeSight, Sight};
use crate::say::Usage;
use crate::stack::servers::Which as Server;
use crate::stack::strike::{End, Target};

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long a server may take until it answers again: Postgres may have to recover.
const START_LIMIT: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What the broker was configured with, instead of what was set while it ran.
const USUAL_WATERMARK: &str = "{ok, W} = application:get_env(rabbit, vm_memory_high_watermark), \
     vm_memory_monitor:set_vm_memory_high_watermark(W).";

/// A stack of containers.
pub struct Compose {
    project: Arc<Project>,
    client: Client,
    auditor_url: String,
    management: String,
    gateway: String,
}

impl Compose {
    /// Both halves, for this project.
    pub fn site(project: &Arc<Project>, sight: &Sight) -> Site {
        let compose = Arc::new(Self {
            project: Arc::clone(project),
            client: Client::new(),
            auditor_url: sight.auditor_url.clone(),
            management: sight.management.clone().unwrap_or_default(),
            gateway: sight.gateway.clone(),
        });
        Site {
            look: Arc::<Self>::clone(&compose),
            harm: compose,
        }
    }

    async fn container(&self, target: &Target) -> Result<Container> {
        match target {
            Target::Node(name) => self.project.of_node(name).await,
            Target::Server(which) => self.project.one(compose::server(*which).0).await,
        }
    }

    /// With the token that their containers were made with.
    async fn receivers(&self) -> Result<Receivers> {
        let token = self.project.redrive_token().await?;
        Ok(Receivers::new(&self.gateway, token))
    }

    async fn ops_of(&self, node: &str) -> Result<String> {
        let nodes = self.project.nodes().await?;
        let found = nodes.into_iter().find(|one| one.name == node);
        let found = found.ok_or_else(|| Usage(format!("there is no node {node}")))?;
        Ok(found.ops)
    }

    /// Waits until a server answers. A node is not waited for: it may be not ready for want of a server that is away.
    async fn answering(&self, target: &Target) -> Result<()> {
        let begun = Instant::now();
        while matches!(target, Target::Server(_)) && !self.answers(target).await? {
            if begun.elapsed() > START_LIMIT {
                bail!("{target} was started and does not answer");
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

fn port(target: &Target, container: &Container) -> u16 {
    match (target, container.role()) {
        (Target::Server(which), _) => compose::server(*which).1,
        (_, Some(service)) => compose::ports(service).0,
        (_, None) => 0,
    }
}

#[async_trait]
impl Look for Compose {
    async fn nodes(&self) -> Result<Vec<NodeSight>> {
        self.project.nodes().await
    }

    async fn listed(&self, target: &Target, _place: Option<&str>) -> Result<bool> {
        let all = self.project.look().await?;
        ensure!(!all.is_empty(), "the project has no containers at all");
        Ok(all.iter().any(|one| match target {
            Target::Node(name) => one.role().is_some() && one.node() == *name,
            Target::Server(which) => one.service == compose::server(*which).0,
        }))
    }

    async fn identity(&self, target: &Target) -> Result<Option<Identity>> {
        let container = self.container(target).await?;
        Ok(container.running.then(|| Identity {
            name: format!("container {} (pid {})", container.short(), container.pid),
            started: container.started.clone(),
        }))
    }

    async fn life(&self, target: &Target, identity: &Identity) -> Result<Life> {
        let container = self.container(target).await?;
        Ok(match (container.running, container.paused) {
            // a container keeps its id when it is started again; its start is another
            (false, _) => Life::Gone,
            _ if container.started != identity.started => Life::Gone,
            (true, true) => Life::Paused,
            (true, false) => Life::Runs,
        })
    }

    async fn answers(&self, target: &Target) -> Result<bool> {
        let container = self.container(target).await?;
        let Some(address) = container.address else {
            return Ok(false);
        };
        let connecting = TcpStream::connect((address, port(target, &container)));
        Ok(matches!(
            timeout(CONNECT_LIMIT, connecting).await,
            Ok(Ok(_))
        ))
    }

    async fn broker(&self, path: &[&str]) -> Result<Option<Value>> {
        http::broker(&self.client, &self.management, path).await
    }

    fn vhost(&self) -> String {
        self.project.vhost()
    }

    fn auditor_url(&self) -> Result<String> {
        Ok(self.auditor_url.clone())
    }

    async fn ops(&self, node: &str, path: &str) -> Result<Value> {
        http::ops(&self.client, node, &self.ops_of(node).await?, path).await
    }

    async fn log(
        &self,
        node: &str,
        process: &Identity,
        since: DateTime<Utc>,
    ) -> Result<Option<String>> {
        let container = self.project.of_node(node).await?;
        let since = since.to_rfc3339_opts(SecondsFormat::Nanos, true);
        // a container has one log for all that ran in it: what runs now wrote the rest of it
        let until = (container.started != process.started).then_some(&*container.started);
        match docker::logs(&container.id, &since, until).await {
            // this engine sends logs elsewhere
            Err(error) if error.to_string().contains("does not support reading") => Ok(None),
            log => log.map(Some),
        }
    }

    async fn link(&self, _node: &str, _server: Server) -> Result<LinkSight> {
        Err(Usage(NO_PROXY.to_owned()).into())
    }
}

#[async_trait]
impl Harm for Compose {
    async fn hold(&self, target: &Target, end: End) -> Result<()> {
        let id = self.container(target).await?.id;
        let how = match end {
            End::Kill => "kill",
            // with the container's own time to finish
            End::Terminate => "stop",
        };
        docker(&[how, &id]).await.map(drop)
    }

    async fn release(&self, target: &Target) -> Result<()> {
        let container = self.container(target).await?;
        if container.paused {
            docker(&["unpause", &container.id]).await?;
        }
        docker(&["start", &container.id]).await?;
        self.answering(target).await
    }

    async fn restart(&self, target: &Target) -> Result<()> {
        let id = self.container(target).await?.id;
        docker(&["restart", &id]).await?;
        self.answering(target).await
    }

    async fn pause(&self, target: &Target) -> Result<()> {
        let id = self.container(target).await?.id;
        docker(&["pause", &id]).await.map(drop)
    }

    async fn resume(&self, target: &Target) -> Result<()> {
        let container = self.container(target).await?;
        if container.paused {
            docker(&["unpause", &container.id]).await?;
        }
        Ok(())
    }

    async fn manage(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<()> {
        http::manage(&self.client, &self.management, method, path, body).await
    }

    async fn memory_alarm(&self, on: bool) -> Result<()> {
        let id = self.project.one("rabbitmq").await?.id;
        let order: &[&str] = if on {
            &["set_vm_memory_high_watermark", "0.000001"]
        } else {
            &["eval", USUAL_WATERMARK]
        };
        let ctl = ["exec", &id, "rabbitmqctl", "-q"];
        docker(&[&ctl, order].concat()).await.map(drop)
    }

    async fn put_ops(&self, node: &str, path: &str, body: String) -> Result<()> {
        http::put_ops(&self.client, node, &self.ops_of(node).await?, path, body).await
    }

    async fn redrive(&self, id: Uuid, selection: &Selection, per_second: u32) -> Result<()> {
        redrive::begin(&self.receivers().await?, id, selection, per_second).await
    }

    async fn cancel_redrive(&self, id: Uuid) -> Result<()> {
        redrive::cancel(&self.receivers().await?, id).await
    }

    async fn link(&self, _node: &str, _server: Server, _harm: LinkHarm) -> Result<()> {
        Err(Usage(NO_PROXY.to_owned()).into())
    }
}
