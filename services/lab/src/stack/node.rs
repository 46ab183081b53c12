//! One running copy of a service: this very program, started again as `lab sender`, `lab notes worker` and so on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::Command;

use super::dir::{LabDir, Place};
use super::postgres;
use super::process::MARKER;
use super::servers::Addresses;
use super::supervisor::Program;

/// The services that run as nodes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    Sender,
    Receiver,
    Notes,
    NotesWorker,
    Leases,
    Signup,
    SignupWelcome,
}

impl Service {
    pub const ALL: [Self; 7] = [
        Self::Sender,
        Self::Receiver,
        Self::Notes,
        Self::NotesWorker,
        Self::Leases,
        Self::Signup,
        Self::SignupWelcome,
    ];
    /// Those without which there is no stack.
    pub const MAIN: [Self; 2] = [Self::Sender, Self::Receiver];

    /// As people call it; its nodes are named after it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Receiver => "receiver",
            Self::Notes => "notes",
            Self::NotesWorker => "notes-worker",
            Self::Leases => "leases",
            Self::Signup => "signup",
            Self::SignupWelcome => "signup-welcome",
        }
    }

    /// What follows `lab` on the command line of a node: a program, and its role where it has several.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::Sender => &["sender"],
            Self::Receiver => &["receiver"],
            Self::Notes => &["notes", "api"],
            Self::NotesWorker => &["notes", "worker"],
            Self::Leases => &["leases"],
            Self::Signup => &["signup", "api"],
            Self::SignupWelcome => &["signup", "welcome"],
        }
    }

    /// Its role in the database, and its schema.
    pub fn role(self) -> &'static str {
        self.words()[0]
    }

    /// Where people begin behind the gateway: the path of its first page.
    pub fn page(self) -> &'static str {
        match self {
            Self::Sender => "/",
            Self::Receiver => "/received",
            Self::Notes | Self::NotesWorker => "/notes",
            // the other paths of it are for programs
            Self::Leases => "/leases/queues",
            Self::Signup | Self::SignupWelcome => "/signup",
        }
    }

    /// Whether it has pages or an API; the others have health and metrics only.
    pub fn has_pages(self) -> bool {
        !matches!(self, Self::NotesWorker | Self::SignupWelcome)
    }
}

/// A node to run.
#[derive(Debug)]
pub struct Node {
    stack: PathBuf,
    service: Service,
    place: Place,
    log: PathBuf,
    servers: Addresses,
    program: PathBuf,
    settings: BTreeMap<String, String>,
    redrive_token: String,
    signup_key: String,
}

impl Node {
    /// `settings` go before those of the environment; `program` is this one, or the one that tests built.
    pub fn new(
        dir: &LabDir,
        service: Service,
        place: Place,
        mut servers: Addresses,
        settings: BTreeMap<String, String>,
        program: PathBuf,
    ) -> Result<Self> {
        let secrets = dir.secrets();
        let (role, roles) = (service.role(), BTreeMap::from(secrets.of_roles()));
        servers.database = postgres::url_for(&servers.database, role, roles[role])?;
        Ok(Self {
            stack: dir.root().to_owned(),
            service,
            log: dir.log(&place.name),
            place,
            servers,
            program,
            settings,
            redrive_token: secrets.redrive.clone(),
            signup_key: secrets.signup_key.clone(),
        })
    }
}

impl Program for Node {
    fn name(&self) -> String {
        self.place.name.clone()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // the caller's environment goes on to the services, but for what is ours to say
        command
            .arg0("lab")
            .args(self.service.words())
            .env(MARKER, &self.stack)
            .env_remove("RUST_BACKTRACE")
            // the client library reads the headers of a message by recursion: a hostile one, as large as a frame may
            // be, would overflow the usual stack of 2 MiB and with it the process, again and again
            .env("RUST_MIN_STACK", "134217728");
        // its second port is for the lab, and listens on loopback only
        if self.service == Service::Receiver {
            command.env("REDRIVE_TOKEN", &self.redrive_token);
        }
        command.env("LAB_OPS", "true").envs(&self.settings);
        command.env("NODE_NAME", &self.place.name);
        if self.service.has_pages() {
            command.env("LISTEN", format!("127.0.0.1:{}", self.place.port));
        }
        command.env("OPS_LISTEN", format!("127.0.0.1:{}", self.place.ops));
        command.env("DATABASE_URL", &self.servers.database);
        command.env("REDIS_URL", &self.servers.redis);
        command.env("AMQP_URL", &self.servers.amqp);
        // one of the environment comes first: it is how keys are changed
        if self.service == Service::Signup && std::env::var_os("SIGNUP_KEY").is_none() {
            command.env("SIGNUP_KEY", &self.signup_key);
        }
        command
    }

    async fn answers(&self) -> Result<()> {
        match readiness(self.place.ops).await? {
            None => Ok(()),
            Some(why) => bail!("{why}"),
        }
    }

    fn log(&self) -> PathBuf {
        self.log.clone()
    }

    fn start_limit(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn stop_limit(&self) -> Duration {
        // above SHUTDOWN_SECS, the limit that a service sets itself
        Duration::from_secs(30)
    }
}

/// Asks a node whether it is ready; if not, why.
pub async fn readiness(ops: u16) -> Result<Option<String>> {
    let answer = ask(&format!("http://127.0.0.1:{ops}/health/ready")).await?;
    if answer.status().is_success() {
        return Ok(None);
    }
    Ok(Some(why_not(&answer.json().await.unwrap_or_default())))
}

/// The answer of a program of this machine, whatever it is.
pub(super) async fn ask(url: &str) -> Result<reqwest::Response> {
    reqwest::get(url).await.map_err(|error| {
        if error.is_connect() {
            anyhow!("its port is closed")
        } else {
            error.without_url().into()
        }
    })
}

/// The parts that a node misses, from what `/health/ready` says.
fn why_not(health: &Value) -> String {
    let parts = health["parts"].as_object().into_iter().flatten();
    let missing: Vec<String> = parts
        .filter_map(|(name, part)| match part["state"].as_str() {
            Some("up") | None => None,
            Some(state) => Some(format!("{name} {state}")),
        })
        .collect();
    if missing.is_empty() {
        "not ready".to_owned()
    } else {
        missing.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_says_what_it_misses() {
        let health = json!({"ready": false, "parts": {"postgres": {"state": "up"}, "redis": {"state": "away", "why": "x"}}});
        assert_eq!(why_not(&health), "redis away");
        assert_eq!(why_not(&Value::Null), "not ready");
    }
}
