//! The lab's console as a program of the stack: this very program, started again as `lab console`.
//!
//! It looks and acts from outside, so it may die at any time: it is started again, and nothing else changes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::process::Command;

use super::dir::LabDir;
use super::node::ask;
use super::postgres;
use super::process::MARKER;
use super::servers::Addresses;
use super::supervisor::Program;

/// How long a stop may take: an experiment that runs is healed and stopped first.
const STOP_LIMIT: Duration = Duration::from_mins(1);
/// Of another stack, when the caller's environment names one: this console is of the stack that starts it.
const ELSEWHERE: [&str; 6] = [
    "LAB_COMPOSE",
    "LAB_GATEWAY",
    "LAB_AUDITOR_URL",
    "LAB_MANAGEMENT_URL",
    "LAB_NODES",
    "LAB_VHOST",
];

/// The console to run.
#[derive(Debug)]
pub struct Console {
    stack: PathBuf,
    port: u16,
    log: PathBuf,
    servers: Addresses,
    /// The same database, as the role that owns the index of the search.
    lab_database: String,
    gateway: u16,
    token: String,
    redrive_token: String,
    program: PathBuf,
}

impl Console {
    /// It reads the ledger as the role that writes nothing.
    pub fn new(
        dir: &LabDir,
        port: u16,
        gateway: u16,
        mut servers: Addresses,
        program: PathBuf,
    ) -> Result<Self> {
        let secrets = dir.secrets();
        let lab_database = postgres::url_for(&servers.database, "lab", &secrets.lab)?;
        servers.database = postgres::url_for(&servers.database, "auditor", &secrets.auditor)?;
        Ok(Self {
            stack: dir.root().to_owned(),
            port,
            log: dir.log("console"),
            servers,
            lab_database,
            gateway,
            redrive_token: secrets.redrive.clone(),
            token: secrets.console.clone(),
            program,
        })
    }
}

impl Program for Console {
    fn name(&self) -> String {
        "the console".to_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0("lab").arg("--lab-dir").arg(&self.stack);
        command.arg("console").env(MARKER, &self.stack);
        for name in ELSEWHERE {
            command.env_remove(name);
        }
        command.env_remove("RUST_BACKTRACE");
        command.env("LISTEN", format!("127.0.0.1:{}", self.port));
        command.env("DATABASE_URL", &self.servers.database);
        command.env("SEARCH_DATABASE_URL", &self.lab_database);
        command.env("GATEWAY_URL", format!("http://127.0.0.1:{}", self.gateway));
        command.env("REDRIVE_TOKEN", &self.redrive_token);
        command.env("REDIS_URL", &self.servers.redis);
        command.env("UNACKED_CONSOLE_TOKEN", &self.token);
        command
    }

    async fn answers(&self) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/lab/api/health", self.port);
        match ask(&url).await?.status() {
            status if status.is_success() => Ok(()),
            status => bail!("it says {status}"),
        }
    }

    fn log(&self) -> PathBuf {
        self.log.clone()
    }

    fn stop_limit(&self) -> Duration {
        STOP_LIMIT
    }
}
