//! The gateway: nginx on loopback, with the same rules as in the containers (`docker/nginx/`).
//!
//! Here the nodes are written into its settings, and nginx reads them again when nodes come or go. A reload is over when
//! no old worker takes requests any more: only then may a node that left the list be stopped.
//!
//! A reload closes the idle connections of clients at once, and a POST that is written in that moment fails. So the clients
//! are sent away first: while a file is there, each answer says that it is the connection's last. Whoever says nothing for
//! as long as we wait, and speaks in the moment of the reload, still loses (browsers and our own load ask again).

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::dir::{LabDir, write_secret};
use super::ports;
use super::process::{self, MARKER};
use super::supervisor::{Condition, News, Program, Unit};

const COMMON: &str = include_str!("../../../../docker/nginx/gateway.conf");
const LOCATIONS: &str = include_str!("../../../../docker/nginx/locations.conf");
const NATIVE: &str = include_str!("../../../../docker/nginx/native.conf.template");

/// nginx wants at least one server in a list; nothing listens on the discard port.
const NOBODY: &str = "server 127.0.0.1:9 down;";

/// While this file is there, nginx closes each connection after its answer.
const DRAIN: &str = "drain";

/// How long a reload waits for clients that say nothing.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// The gateway of a stack.
#[derive(Debug)]
pub struct Gateway {
    home: PathBuf,
    port: u16,
    /// Of the lab's console, where there is one.
    console: Option<u16>,
    unit: Unit,
}

#[derive(Debug)]
struct Nginx {
    program: PathBuf,
    stack: PathBuf,
    home: PathBuf,
    log: PathBuf,
    port: u16,
}

impl Gateway {
    /// Writes what does not change; nothing runs yet.
    pub fn prepare(
        dir: &LabDir,
        program: PathBuf,
        port: u16,
        console: Option<u16>,
        news: &News,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self> {
        let home = dir.folder("gateway")?;
        // started by root, the workers are somebody else, who must see whether the file is there
        fs::set_permissions(&home, Permissions::from_mode(0o711))?;
        fs::write(home.join("gateway.conf"), COMMON)?;
        fs::write(home.join("locations.conf"), LOCATIONS)?;
        let (stack, log) = (dir.root().to_owned(), dir.log("gateway"));
        let nginx = Nginx {
            program,
            stack,
            home: home.clone(),
            log,
            port,
        };
        Ok(Self {
            home,
            port,
            console,
            unit: Unit::new(nginx, true, news, tasks),
        })
    }

    /// Starts it with these nodes behind it.
    pub async fn start(&self, senders: &[u16], receivers: &[u16]) -> Result<()> {
        // a lab that was killed in the middle of a reload left it
        let _ = fs::remove_file(self.home.join(DRAIN));
        self.write(senders, receivers)?;
        self.unit.start().await
    }

    /// Puts these nodes behind it while it runs; comes back when no request goes to others any more.
    pub async fn route(&self, senders: &[u16], receivers: &[u16]) -> Result<()> {
        // whether or not clients could be told: the nodes that leave will be stopped
        let drained = self.drain().await;
        self.reload(senders, receivers).await?;
        drained
            .map(drop)
            .context("clients were not sent away before the gateway read its settings")
    }

    async fn reload(&self, senders: &[u16], receivers: &[u16]) -> Result<()> {
        self.write(senders, receivers)?;
        // while it is down there is nobody to tell: it reads the file at its next start
        let Some(master) = self.unit.pid().and_then(|pid| i32::try_from(pid).ok()) else {
            return Ok(());
        };
        let old = workers(master);
        process::signal(master, Signal::SIGHUP);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            sleep(Duration::from_millis(20)).await;
            let now = workers(master);
            if !now.is_empty() && now.iter().all(|pid| !old.contains(pid)) {
                return Ok(());
            }
            if process::look(master).is_none() {
                return Ok(());
            }
        }
        bail!(
            "nginx did not take its new settings within 10 s: see {}",
            self.home.display()
        )
    }

    /// Has nginx say goodbye with each answer, and waits until the connections of now are gone; later ones end by themselves.
    async fn drain(&self) -> Result<Drain> {
        let drain = Drain::begin(self.home.join(DRAIN))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let (begun, kept) = (Instant::now(), ports::connections_to(address)?);
        let mut left = kept.clone();
        while !left.is_empty() && begun.elapsed() < DRAIN_LIMIT {
            sleep(Duration::from_millis(20)).await;
            left = ports::connections_to(address)?;
            left.retain(|client| kept.contains(client));
        }
        Ok(drain)
    }

    pub async fn stop(&self) -> Result<()> {
        self.unit.stop().await
    }

    pub fn condition(&self) -> Condition {
        self.unit.condition()
    }

    /// What it is doing now, asked if it is said to be ready.
    pub async fn look(&self) -> Condition {
        self.unit.look().await
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn write(&self, senders: &[u16], receivers: &[u16]) -> Result<()> {
        let text = fill(self.port, senders, receivers, self.console);
        write_secret(&self.home.join("nginx.conf"), &text)
    }
}

/// Clients are sent away for as long as this is kept.
#[derive(Debug)]
struct Drain(PathBuf);

impl Drain {
    fn begin(file: PathBuf) -> Result<Self> {
        fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self(file))
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        // where it stays all is slower, and nothing else
        let _ = fs::remove_file(&self.0);
    }
}

fn fill(port: u16, senders: &[u16], receivers: &[u16], console: Option<u16>) -> String {
    let list = |ports: &[u16]| match ports {
        [] => NOBODY.to_owned(),
        ports => {
            let lines: Vec<String> = ports
                .iter()
                .map(|port| format!("server 127.0.0.1:{port} max_fails=0;"))
                .collect();
            lines.join("\n        ")
        }
    };
    NATIVE
        .replace("@PORT@", &port.to_string())
        .replace("@SENDERS@", &list(senders))
        .replace("@RECEIVERS@", &list(receivers))
        .replace("@CONSOLE@", &list(console.as_slice()))
}

/// The workers that take requests: one that is leaving says so in its title.
fn workers(master: i32) -> Vec<i32> {
    let working = |pid: &i32| {
        let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        !String::from_utf8_lossy(&title).contains("shutting down")
    };
    let children = process::all()
        .into_iter()
        .filter(|process| process.parent == master);
    children
        .map(|process| process.pid)
        .filter(working)
        .collect()
}

impl Program for Nginx {
    fn name(&self) -> String {
        "the gateway".to_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["-e", "stderr", "-p"])
            .arg(&self.home)
            .args(["-c", "nginx.conf"]);
        command.current_dir(&self.home).env(MARKER, &self.stack);
        command
    }

    async fn answers(&self) -> Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .context("no connection")?;
        // nginx refuses this method itself: the answer says nothing about nodes, and it costs them nothing
        stream.write_all(b"TRACE / HTTP/1.0\r\n\r\n").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        ensure!(&answer == b"HTTP/", "it does not speak HTTP");
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.log.clone()
    }

    fn stop_signal(&self) -> Signal {
        // lets requests in hand finish
        Signal::SIGQUIT
    }

    fn stop_limit(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn home(&self) -> Option<&Path> {
        Some(&self.home)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_in_its_list() {
        let text = fill(8080, &[1, 2], &[3], Some(4));
        assert!(
            text.contains(
                "server 127.0.0.1:1 max_fails=0;\n        server 127.0.0.1:2 max_fails=0;"
            )
        );
        assert!(text.contains("server 127.0.0.1:3 max_fails=0;"));
        assert!(text.contains("server 127.0.0.1:4 max_fails=0;"));
        assert!(text.contains("listen 127.0.0.1:8080;"));
        assert!(!text.contains('@'), "a word was not replaced");
    }

    #[test]
    fn a_service_without_nodes_still_has_a_list() {
        assert!(fill(8080, &[], &[3], Some(4)).contains(NOBODY));
    }
}
