//! What a fault may look at, and what it may do, on one kind of stack.
//!
//! Two halves, so that evidence cannot lean on the injector: whoever looks holds [`Look`] only. There are three pairs: for the
//! native stack ([`super::native`]), for containers ([`super::compose`]), and for addresses alone ([`super::inside`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use messaging::receive::redrive::Selection;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::run::sight::NodeSight;
use crate::stack::servers::Which as Server;
use crate::stack::strike::{End, Target};

/// The same running process, and no other that comes after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// As people call it: `pid 1234`, a container's short id.
    pub name: String,
    pub started: String,
}

/// What the system says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Runs,
    /// Stopped where it is, with all below it.
    Paused,
    Gone,
}

/// A link through a proxy.
#[derive(Debug, Clone)]
pub struct LinkSight {
    /// The proxy.
    pub through: SocketAddr,
    /// The server itself, `HOST:PORT`.
    pub server: String,
    /// What the proxy passed on so far.
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// Connections that clients have with the proxy now, as the system knows them.
    pub sockets: Vec<String>,
}

/// Looks that change nothing.
#[async_trait]
pub trait Look: Send + Sync {
    /// All nodes, in an order that is the same each time.
    async fn nodes(&self) -> Result<Vec<NodeSight>>;

    /// Whether there still is such a target, dead or alive; a node was found behind this place. What cannot be asked is an
    /// error: unknown is not gone.
    async fn listed(&self, target: &Target, place: Option<&str>) -> Result<bool>;

    /// The process that a target is now; none while it does not run.
    async fn identity(&self, target: &Target) -> Result<Option<Identity>>;

    /// What the system says of that very process.
    async fn life(&self, target: &Target, identity: &Identity) -> Result<Life>;

    /// Whether its socket takes a connection.
    async fn answers(&self, target: &Target) -> Result<bool>;

    /// Asks the management API. `None`: there is no such thing.
    async fn broker(&self, path: &[&str]) -> Result<Option<Value>>;

    /// Where the messages are on the broker.
    fn vhost(&self) -> String;

    /// The database, for the role that only reads.
    fn auditor_url(&self) -> Result<String>;

    /// Asks a node's second port.
    async fn ops(&self, node: &str, path: &str) -> Result<Value>;

    /// What this very process of a node has written to its log since then, perhaps with what is older. `None`: it cannot be
    /// read from here.
    async fn log(
        &self,
        node: &str,
        process: &Identity,
        since: DateTime<Utc>,
    ) -> Result<Option<String>>;

    /// A node's link to a server. Without proxies this is wrong usage.
    async fn link(&self, node: &str, server: Server) -> Result<LinkSight>;
}

/// What is done to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkHarm {
    /// Each piece is held back so long, and up to the second time longer.
    Slow(Duration, Duration),
    /// Every open connection is reset.
    Cut,
    /// Nothing passes in these directions, and nobody is told.
    Silent { up: bool, down: bool },
    /// Open connections are reset, and so is each new one.
    Refuse,
    /// Whole again.
    Nothing,
}

/// What changes something.
#[async_trait]
pub trait Harm: Send + Sync {
    /// Ends a target, which then stays dead.
    async fn hold(&self, target: &Target, end: End) -> Result<()>;
    /// Starts it again.
    async fn release(&self, target: &Target) -> Result<()>;
    /// Stops a target softly and starts it again.
    async fn restart(&self, target: &Target) -> Result<()>;
    /// Stops all its processes where they are.
    async fn pause(&self, target: &Target) -> Result<()>;
    /// Lets them go on.
    async fn resume(&self, target: &Target) -> Result<()>;
    /// Changes something through the management API; removing what is absent is no error.
    async fn manage(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<()>;
    /// Sets or lifts the broker's memory alarm.
    async fn memory_alarm(&self, on: bool) -> Result<()>;
    /// Puts something to a node's second port.
    async fn put_ops(&self, node: &str, path: &str, body: String) -> Result<()>;
    /// Has the receivers send dead letters back, so many a second at most: an order of this name.
    async fn redrive(&self, id: Uuid, selection: &Selection, per_second: u32) -> Result<()>;
    /// Has them end that; to end what is over, or never began, is no error.
    async fn cancel_redrive(&self, id: Uuid) -> Result<()>;
    /// Hurts a node's link to a server, instead of what was done to it before.
    async fn link(&self, node: &str, server: Server, harm: LinkHarm) -> Result<()>;
}

/// A stack that faults strike.
#[derive(Clone)]
pub struct Site {
    pub look: Arc<dyn Look>,
    pub harm: Arc<dyn Harm>,
}
