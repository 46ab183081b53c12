//! The gateway: nginx on loopback, with the same rules as in the containers (`docker/nginx/`).
//!
//! It listens for the main job, and for each other service that was asked for on a port of its own. Here the nodes are
//! written into its settings, and nginx reads them again when nodes come or go. A reload is over when
//! no old worker takes requests any more: only then may a node that left the list be stopped.
//!
//! A reload closes the idle connections of clients at once, and a POST that is written in that moment fails. So the clients
//! are sent away first: while a file is there, each answer says that it is the connection's last. Whoever says nothing for
//! as long as we wait, and speaks in the moment of the reload, still loses (browsers and our own load ask again).

use std::collections::BTreeMap;
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

use super::dir::{self, LabDir, write_secret};
use super::node::Service;
use super::ports;
use super::process::{self, MARKER};
use super::supervisor::{Condition, News, Program, Unit};

/// What both gateways include, by the name of the file.
const COMMON: [(&str, &str); 7] = [
    (
        "gateway.conf",
        include_str!("../../../../docker/nginx/gateway.conf"),
    ),
    (
        "server.conf",
        include_str!("../../../../docker/nginx/server.conf"),
    ),
    (
        "locations.conf",
        include_str!("../../../../docker/nginx/locations.conf"),
    ),
    (
        "notes.conf",
        include_str!("../../../../docker/nginx/notes.conf"),
    ),
    (
        "leases.conf",
        include_str!("../../../../docker/nginx/leases.conf"),
    ),
    (
        "signup.conf",
        include_str!("../../../../docker/nginx/signup.conf"),
    ),
    (
        "drain.conf",
        include_str!("../../../../docker/nginx/drain.conf"),
    ),
];
const NATIVE: &str = include_str!("../../../../docker/nginx/native.conf.template");
const OWN: &str = include_str!("../../../../docker/nginx/own.conf.template");

/// nginx wants at least one server in a list; nothing listens on the discard port.
const NOBODY: &str = "server 127.0.0.1:9 down;";

/// While this file is there, nginx closes each connection after its answer.
const DRAIN: &str = "drain";

/// How long a reload waits for clients that say nothing.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// Where the gateway listens on loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listens {
    pub port: u16,
    /// The ports that lead to one service only, at its root.
    pub own: BTreeMap<Service, u16>,
}

impl Listens {
    /// On one port, for all.
    pub fn on(port: u16) -> Self {
        let own = BTreeMap::new();
        Self { port, own }
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        std::iter::once(self.port).chain(self.own.values().copied())
    }
}

/// The ports of the nodes that requests go to; a service that is not named has none.
pub type Routes = BTreeMap<Service, Vec<u16>>;

/// The gateway of a stack.
#[derive(Debug)]
pub struct Gateway {
    home: PathBuf,
    listens: Listens,
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
        listens: Listens,
        console: Option<u16>,
        news: &News,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self> {
        let home = dir.folder("gateway")?;
        // started by root, the workers are somebody else, who must see whether the file is there
        fs::set_permissions(&home, Permissions::from_mode(0o711))?;
        write_common(&home, &listens)?;
        let (stack, log) = (dir.root().to_owned(), dir.log("gateway"));
        let nginx = Nginx {
            program,
            stack,
            home: home.clone(),
            log,
            port: listens.port,
        };
        Ok(Self {
            home,
            listens,
            console,
            unit: Unit::new(nginx, true, news, tasks),
        })
    }

    /// Starts it with these nodes behind it.
    pub async fn start(&self, routes: &Routes) -> Result<()> {
        // a lab that was killed in the middle of a reload left it
        let _ = fs::remove_file(self.home.join(DRAIN));
        self.write(routes)?;
        self.unit.start().await
    }

    /// Puts these nodes behind it while it runs; comes back when no request goes to others any more.
    pub async fn route(&self, routes: &Routes) -> Result<()> {
        // whether or not clients could be told: the nodes that leave will be stopped
        let drained = self.drain().await;
        self.reload(routes).await?;
        drained
            .map(drop)
            .context("clients were not sent away before the gateway read its settings")
    }

    async fn reload(&self, routes: &Routes) -> Result<()> {
        self.write(routes)?;
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
        let (begun, kept) = (Instant::now(), self.clients()?);
        let mut left = kept.clone();
        while !left.is_empty() && begun.elapsed() < DRAIN_LIMIT {
            sleep(Duration::from_millis(20)).await;
            left = self.clients()?;
            left.retain(|client| kept.contains(client));
        }
        Ok(drain)
    }

    /// Who is connected, on any of its ports.
    fn clients(&self) -> Result<Vec<(u16, String)>> {
        let mut all = Vec::new();
        for port in self.listens.ports() {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let clients = ports::connections_to(address)?.into_iter();
            all.extend(clients.map(|client| (port, client)));
        }
        Ok(all)
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
        format!("http://127.0.0.1:{}", self.listens.port)
    }

    /// The ports that lead to one service only.
    pub fn own(&self) -> &BTreeMap<Service, u16> {
        &self.listens.own
    }

    fn write(&self, routes: &Routes) -> Result<()> {
        let text = fill(self.listens.port, routes, self.console);
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

/// Writes what the settings include, which no coming or going of nodes changes.
pub fn write_common(home: &Path, listens: &Listens) -> Result<()> {
    let unacked = home.join("unacked");
    dir::make_folder(&unacked, 0o700)?;
    for (name, text) in COMMON {
        fs::write(unacked.join(name), text)?;
    }
    let own = listens.own.iter().map(|(service, port)| {
        OWN.replace("@PORT@", &port.to_string())
            .replace("@SERVICE@", service.name())
    });
    Ok(fs::write(home.join("own.conf"), own.collect::<String>())?)
}

/// The settings with these nodes behind the gateway.
pub fn fill(port: u16, routes: &Routes, console: Option<u16>) -> String {
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
    let nodes = |service: Service| list(routes.get(&service).map_or(&[], Vec::as_slice));
    NATIVE
        .replace("@PORT@", &port.to_string())
        .replace("@SENDERS@", &nodes(Service::Sender))
        .replace("@RECEIVERS@", &nodes(Service::Receiver))
        .replace("@NOTES@", &nodes(Service::Notes))
        .replace("@LEASES@", &nodes(Service::Leases))
        .replace("@SIGNUP@", &nodes(Service::Signup))
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

    /// The list of servers of an upstream.
    fn upstream<'a>(text: &'a str, name: &str) -> &'a str {
        let (_, rest) = text.split_once(&format!("upstream {name} {{")).unwrap();
        rest.split_once('}').unwrap().0
    }

    #[test]
    fn every_node_is_in_the_list_of_its_service() {
        let routes = Routes::from([
            (Service::Sender, vec![1, 2]),
            (Service::Receiver, vec![3]),
            (Service::Notes, vec![5]),
            (Service::Leases, vec![6, 7]),
            (Service::Signup, vec![8]),
        ]);
        let text = fill(8080, &routes, Some(4));
        for (name, ports) in [
            ("senders", &[1, 2][..]),
            ("receivers", &[3]),
            ("console", &[4]),
            ("notes", &[5]),
            ("leases", &[6, 7]),
            ("signup", &[8]),
        ] {
            let list = upstream(&text, name);
            assert_eq!(list.matches("server ").count(), ports.len(), "{list}");
            for port in ports {
                let line = format!("server 127.0.0.1:{port} max_fails=0;");
                assert!(list.contains(&line), "{name}: {list}");
            }
        }
        assert!(text.contains("listen 127.0.0.1:8080;"));
        assert!(!text.contains('@'), "a word was not replaced");
    }

    #[test]
    fn a_service_without_nodes_still_has_a_list() {
        let text = fill(8080, &Routes::from([(Service::Receiver, vec![3])]), Some(4));
        for name in ["senders", "notes", "leases", "signup"] {
            assert!(upstream(&text, name).contains(NOBODY), "{name}");
        }
    }

    #[test]
    fn only_a_service_with_a_port_of_its_own_has_a_server() {
        let home = std::env::temp_dir().join(format!("lab-{:08x}", rand::random::<u32>()));
        dir::make_folder(&home, 0o700).unwrap();
        let written = |listens: &Listens| {
            write_common(&home, listens).unwrap();
            fs::read_to_string(home.join("own.conf")).unwrap()
        };
        assert_eq!(written(&Listens::on(8080)), "");
        let mut listens = Listens::on(8080);
        listens.own.insert(Service::Leases, 8092);
        let text = written(&listens);
        assert!(text.contains("listen 127.0.0.1:8092;"), "{text}");
        assert!(text.contains("include unacked/leases.conf;"), "{text}");
        assert_eq!(text.matches("server {").count(), 1);
        assert!(!text.contains('@'), "a word was not replaced");
        fs::remove_dir_all(home).unwrap();
    }
}
