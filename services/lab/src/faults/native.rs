//! The native stack, as faults see and strike it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use messaging::receive::redrive::Selection;
use proxy::Direction;
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::appended::Appended;
use super::http;
use super::redrive;
use super::site::{Harm, Identity, Life, LinkHarm, LinkSight, Look, Site};
use crate::dead::receivers::Receivers;
use crate::run::sight::{NodeSight, vhost_of};
use crate::say::Usage;
use crate::stack::links::Links;
use crate::stack::servers::Which as Server;
use crate::stack::strike::{End, Target};
use crate::stack::{Stack, ports, postgres, process};

const ASK_LIMIT: Duration = Duration::from_secs(5);

/// A stack that runs in this process.
#[derive(Debug, Clone)]
pub struct Native {
    stack: Arc<Stack>,
    client: Client,
    /// What nodes said of themselves, as far as it was read.
    logs: Arc<Mutex<BTreeMap<String, Appended>>>,
}

impl Native {
    /// Both halves, for this stack.
    pub fn site(stack: &Arc<Stack>) -> Site {
        let native = Arc::new(Self {
            stack: Arc::clone(stack),
            client: Client::new(),
            logs: Arc::default(),
        });
        Site {
            look: Arc::<Self>::clone(&native),
            harm: native,
        }
    }

    fn node(&self, name: &str) -> Result<NodeSight> {
        let mut all = self.all_nodes().into_iter();
        let found = all.find(|node| node.name == name);
        Ok(found.ok_or_else(|| Usage(format!("there is no node {name}")))?)
    }

    fn all_nodes(&self) -> Vec<NodeSight> {
        let nodes = self.stack.places().into_iter();
        let seen = nodes.map(|(service, place)| {
            // one without pages listens on its second port only
            let port = if service.has_pages() {
                place.port
            } else {
                place.ops
            };
            NodeSight {
                name: place.name,
                service,
                ops: format!("http://127.0.0.1:{}", place.ops),
                address: format!("http://127.0.0.1:{port}"),
                place: None,
            }
        });
        seen.collect()
    }

    fn links(&self, node: &str) -> Result<Arc<Links>> {
        self.node(node)?;
        let links = self.stack.links(node);
        let why = "there are no proxies in this stack; start it with `lab up --faults`";
        Ok(links.ok_or_else(|| Usage(why.to_owned()))?)
    }

    fn receivers(&self) -> Receivers {
        let token = self.stack.dir().secrets().redrive.clone();
        Receivers::new(&self.stack.gateway_url(), Some(token))
    }

    fn address(&self, target: &Target) -> Result<String> {
        let url = match target {
            Target::Node(name) => self.node(name)?.address,
            Target::Server(server) => self.stack.addresses()?.url(*server).to_owned(),
        };
        proxy::target(&url).context("no host is in its URL")
    }
}

fn pid(identity: &Identity) -> Result<i32> {
    let pid = identity.name.strip_prefix("pid ");
    let pid = pid.and_then(|pid| pid.parse().ok());
    pid.context("no pid was noted")
}

#[async_trait]
impl Look for Native {
    async fn nodes(&self) -> Result<Vec<NodeSight>> {
        Ok(self.all_nodes())
    }

    async fn listed(&self, target: &Target, _place: Option<&str>) -> Result<bool> {
        Ok(match target {
            Target::Node(name) => self.node(name).is_ok(),
            Target::Server(_) => true,
        })
    }

    async fn identity(&self, target: &Target) -> Result<Option<Identity>> {
        let pid = self.stack.pid(target)?;
        Ok(pid.and_then(process::look).map(|process| Identity {
            name: format!("pid {}", process.pid),
            started: process.started.to_string(),
        }))
    }

    async fn life(&self, _target: &Target, identity: &Identity) -> Result<Life> {
        let pid = pid(identity)?;
        let started = process::look(pid).map(|process| process.started.to_string());
        if started.as_deref() != Some(&identity.started) {
            return Ok(Life::Gone);
        }
        let tree = process::tree(pid);
        let stopped = |pid| process::state(pid) == Some('T');
        let paused = !tree.is_empty() && tree.iter().all(|one| stopped(one.pid));
        Ok(if paused { Life::Paused } else { Life::Runs })
    }

    async fn answers(&self, target: &Target) -> Result<bool> {
        let address = self.address(target)?;
        let connected = timeout(ASK_LIMIT, TcpStream::connect(address)).await;
        Ok(matches!(connected, Ok(Ok(_))))
    }

    async fn broker(&self, path: &[&str]) -> Result<Option<Value>> {
        let management = self.stack.addresses()?.management;
        let unknown = "the broker's management API is not known";
        let management = management.ok_or_else(|| Usage(unknown.to_owned()))?;
        http::broker(&self.client, &management, path).await
    }

    fn vhost(&self) -> String {
        let at = self.stack.addresses();
        let vhost = at.and_then(|at| vhost_of(&at.amqp));
        vhost.unwrap_or_else(|_| "/".to_owned())
    }

    fn auditor_url(&self) -> Result<String> {
        let secret = &self.stack.dir().secrets().auditor;
        postgres::url_for(&self.stack.addresses()?.database, "auditor", secret)
    }

    async fn ops(&self, node: &str, path: &str) -> Result<Value> {
        http::ops(&self.client, node, &self.node(node)?.ops, path).await
    }

    async fn log(
        &self,
        node: &str,
        process: &Identity,
        _since: DateTime<Utc>,
    ) -> Result<Option<String>> {
        let pid = pid(process)?.to_string();
        let log = self.stack.dir().log(node);
        // a long one is put aside when a node starts again
        let aside = log.with_extension("log.1");
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let appended = logs.entry(node.to_owned()).or_default();
        appended.lines_of(&pid, &[&aside, &log]).map(Some)
    }

    async fn link(&self, node: &str, server: Server) -> Result<LinkSight> {
        let links = self.links(node)?;
        let proxy = links.to(server).context("a proxy is missing")?;
        Ok(LinkSight {
            through: proxy.address(),
            server: self.address(&Target::Server(server))?,
            bytes_up: proxy.bytes(Direction::Up),
            bytes_down: proxy.bytes(Direction::Down),
            sockets: ports::connections_to(proxy.address())?,
        })
    }
}

#[async_trait]
impl Harm for Native {
    async fn hold(&self, target: &Target, end: End) -> Result<()> {
        self.stack.hold(target, end).await
    }

    async fn release(&self, target: &Target) -> Result<()> {
        self.stack.release(target).await
    }

    async fn restart(&self, target: &Target) -> Result<()> {
        self.stack.restart(target).await
    }

    async fn pause(&self, target: &Target) -> Result<()> {
        self.stack.pause(target)
    }

    async fn resume(&self, target: &Target) -> Result<()> {
        self.stack.resume(target)
    }

    async fn manage(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<()> {
        self.stack.manage(method, path, body).await
    }

    async fn memory_alarm(&self, on: bool) -> Result<()> {
        self.stack.memory_alarm(on).await
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

    async fn link(&self, node: &str, server: Server, harm: LinkHarm) -> Result<()> {
        let links = self.links(node)?;
        let proxy = links.to(server).context("a proxy is missing")?;
        match harm {
            LinkHarm::Slow(latency, jitter) => proxy.slow(latency, jitter),
            LinkHarm::Cut => drop(proxy.cut_rst()),
            LinkHarm::Silent { up, down } => {
                let ways = [(up, Direction::Up), (down, Direction::Down)];
                for (_, way) in ways.into_iter().filter(|(silent, _)| *silent) {
                    proxy.freeze(way);
                }
            }
            LinkHarm::Refuse => {
                // in this order: none may slip in between
                proxy.refuse(true);
                proxy.cut_rst();
            }
            LinkHarm::Nothing => proxy.heal(),
        }
        Ok(())
    }
}
