//! The native stack: the servers, the services and the gateway of one folder, as child processes.
//!
//! Start: servers at once, then nodes, then the gateway. Stop: the other way round, so that no request meets a node that
//! is gone and no node a server that is gone. Scaling up: nodes first, then the gateway's list; scaling down: the list
//! first. What can go wrong between two lines: a node is not ready in time. It stays, is told, and joins when it can.

pub mod catcher;
pub mod console;
pub mod control;
pub mod dir;
pub mod gateway;
pub mod install;
pub mod keeper;
pub mod links;
pub mod node;
pub mod ports;
pub mod postgres;
pub mod private;
pub mod process;
pub mod rabbitmq;
pub mod redis;
pub mod scene;
pub mod servers;
pub mod strike;
pub mod supervisor;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::join_all;
use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use crate::say::Steps;
use catcher::Catcher;
use console::Console;
use dir::{LabDir, Place};
use gateway::{Gateway, Listens, Routes};
use install::NGINX;
use links::Links;
use node::{Node, Service};
use postgres::Durability;
use scene::Scene;
use servers::{Addresses, Given, Servers};
use strike::Target;
use supervisor::{Doing, News, Unit};

/// How many nodes of each service.
pub type Plan = BTreeMap<Service, usize>;

/// What a stack may have beside the usual.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A proxy between each node and each server.
    pub faults: bool,
    /// The lab's console beside the nodes.
    pub console: bool,
    /// Settings of the nodes, which go before those of the environment.
    pub settings: BTreeMap<String, String>,
    /// The program that nodes are; without it this very one.
    pub program: Option<PathBuf>,
    /// Ports of the gateway that lead to one service only.
    pub own: BTreeMap<Service, u16>,
}

/// A node with the one who keeps it running.
#[derive(Debug, Clone)]
struct Running {
    place: Place,
    unit: Unit,
    /// With `lab up --faults`.
    links: Option<Arc<Links>>,
}

/// The setting that says where mails are sent.
const SMTP_URL: &str = "SMTP_URL";

type Nodes = BTreeMap<Service, Vec<Running>>;

/// The stack of one folder.
#[derive(Debug)]
pub struct Stack {
    dir: LabDir,
    servers: Servers,
    gateway: Gateway,
    /// Where it listens, and who keeps it running.
    console: Option<(u16, Unit)>,
    /// The same of what keeps the mails; none before the first node that sends some.
    catcher: Mutex<Option<(u16, Unit)>>,
    options: Options,
    nodes: Mutex<Nodes>,
    /// What must stay dead until it is released.
    held: Mutex<BTreeSet<Target>>,
    /// The experiment that the nodes belong to, if they do.
    scene: Mutex<Option<Scene>>,
    /// Held while nodes come or go, so that two scalings follow each other.
    changing: tokio::sync::Mutex<()>,
    /// Set before the last nodes are stopped: none may come after that.
    closed: AtomicBool,
    news: News,
    tasks: Mutex<JoinSet<()>>,
}

impl Stack {
    /// Writes settings and makes data folders; nothing runs yet.
    pub async fn prepare(
        dir: LabDir,
        given: &Given,
        port: u16,
        options: Options,
        news: News,
    ) -> Result<Self> {
        let mut tasks = JoinSet::new();
        let servers =
            Servers::prepare(&dir, given, Durability::Full, true, &news, &mut tasks).await?;
        let console = if options.console {
            let (own, at) = (process::own_program(), servers.addresses.clone());
            let (place, program) = (dir.port("console")?, options.program.clone());
            let program = Console::new(&dir, place, port, at, program.unwrap_or(own))?;
            Some((place, Unit::new(program, true, &news, &mut tasks)))
        } else {
            None
        };
        let behind = console.as_ref().map(|(port, _)| *port);
        let nginx = install::path(&NGINX)?;
        let own = options.own.clone();
        let listens = Listens { port, own };
        let gateway = Gateway::prepare(&dir, nginx, listens, behind, &news, &mut tasks)?;
        Ok(Self {
            dir,
            servers,
            gateway,
            console,
            catcher: Mutex::default(),
            options,
            nodes: Mutex::default(),
            held: Mutex::default(),
            scene: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
            news,
            tasks: Mutex::new(tasks),
        })
    }

    /// Starts the servers and prepares the database.
    pub async fn start_servers(&self, steps: &Steps<'_>) -> Result<()> {
        if let Some(folder) = postgres_elsewhere(&self.dir) {
            steps.note(format!("PostgreSQL's data are in {}", folder.display()));
        }
        self.servers.start(&self.dir, steps).await
    }

    /// Starts nodes and then the gateway; the servers must run.
    pub async fn start_nodes(&self, plan: &Plan, steps: &Steps<'_>) -> Result<()> {
        let _changing = self.changing.lock().await;
        // nobody waits for it: messages flow without
        if let Some((_, console)) = &self.console {
            console.start_soon().await?;
        }
        self.grow(plan, steps).await?;
        let begun = Instant::now();
        self.gateway.start(&self.routes()).await?;
        steps.done(begun, format!("gateway listens on {}", self.gateway.url()));
        Ok(())
    }

    /// Starts and stops nodes until there are as many as the plan says; services it does not name stay as they are.
    pub async fn scale(&self, plan: &Plan, steps: &Steps<'_>) -> Result<()> {
        let _changing = self.changing.lock().await;
        let grown = self.grow(plan, steps).await;
        let leaving = shrink(&mut self.nodes(), plan);
        // what was done to a node is over with it: the next of its name is another one
        self.held().retain(|held| {
            !leaving
                .iter()
                .any(|node| *held == Target::Node(node.place.name.clone()))
        });
        // also after a failure: the nodes that did start belong behind the gateway
        let routed = self.route().await;
        stop_nodes(leaving, steps).await;
        grown.and(routed)
    }

    async fn grow(&self, plan: &Plan, steps: &Steps<'_>) -> Result<()> {
        let servers = self.addresses()?;
        let settings = self.settings();
        let own = self.scene().clone().map(|scene| scene.own);
        let own = own.unwrap_or_default();
        let program = self.options.program.clone();
        let program = program.unwrap_or_else(process::own_program);
        let smtp = self.smtp(plan).await?;
        for (service, count) in plan {
            for nth in self.ports(*service).len()..*count {
                let place = self.dir.place(service.name(), nth)?;
                let links = if self.options.faults {
                    Some(Arc::new(Links::start(&servers).await?))
                } else {
                    None
                };
                let seen = match &links {
                    Some(links) => links.through(&servers),
                    None => servers.clone(),
                };
                let (name, mut settings) = (place.clone(), settings.clone());
                settings.extend(own.get(service).cloned().unwrap_or_default());
                if *service == Service::SignupWelcome {
                    settings.extend(smtp.clone().map(|url| (SMTP_URL.to_owned(), url)));
                }
                let node = Node::new(&self.dir, *service, name, seen, settings, program.clone())?;
                let mut nodes = self.nodes();
                ensure!(!self.closed.load(Ordering::SeqCst), "the stack is stopping");
                let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
                let running = Running {
                    place,
                    unit: Unit::new(node, true, &self.news, &mut tasks),
                    links,
                };
                nodes.entry(*service).or_default().push(running);
            }
        }
        // a node that was given up gets another chance as well
        let idle =
            |node: &&Running| matches!(node.unit.condition().doing, Doing::Stopped | Doing::Failed);
        let held = self.held().clone();
        let free = |node: &&Running| !held.contains(&Target::Node(node.place.name.clone()));
        let wanted: Vec<Running> = self
            .nodes()
            .values()
            .flatten()
            .filter(idle)
            .filter(free)
            .cloned()
            .collect();
        let starts = wanted.iter().map(|node| start_node(node, steps));
        let results: Result<Vec<()>> = join_all(starts).await.into_iter().collect();
        for running in self.nodes().values_mut() {
            running.retain(|node| node.unit.condition().doing != Doing::Failed);
        }
        results.map(drop)
    }

    /// Where nodes of this plan send mails, if nobody has said it: to our catcher, which then runs.
    async fn smtp(&self, plan: &Plan) -> Result<Option<String>> {
        let wanted = plan.get(&Service::SignupWelcome).is_some_and(|n| *n > 0);
        // an experiment sends nobody any mail, wherever others go
        let said = std::env::var_os(SMTP_URL).is_some() && self.scene().is_none();
        if !wanted || said {
            return Ok(None);
        }
        if self.catcher().is_none() {
            let port = self.dir.port("catcher")?;
            let program = Catcher::new(&self.dir, port, self.options.program.clone())?;
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            let unit = Unit::new(program, true, &self.news, &mut tasks);
            *self.catcher() = Some((port, unit));
        }
        let catcher = self.catcher().clone();
        let Some((port, unit)) = catcher else {
            return Ok(None);
        };
        if matches!(unit.condition().doing, Doing::Stopped | Doing::Failed) {
            unit.start().await?;
        }
        Ok(Some(format!("smtp://127.0.0.1:{port}")))
    }

    fn catcher(&self) -> MutexGuard<'_, Option<(u16, Unit)>> {
        self.catcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, BTreeSet<Target>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scene(&self) -> MutexGuard<'_, Option<Scene>> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The servers as the nodes of now use them, but for proxies.
    pub fn addresses(&self) -> Result<Addresses> {
        let servers = &self.servers.addresses;
        match &*self.scene() {
            Some(scene) => scene.addresses(servers),
            None => Ok(servers.clone()),
        }
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let mut settings = self.options.settings.clone();
        if let Some(scene) = &*self.scene() {
            settings.extend(scene.settings.clone());
        }
        settings
    }

    /// Where it is reached.
    pub fn gateway_url(&self) -> String {
        self.gateway.url()
    }

    /// The folder of the stack, with its secrets.
    pub fn dir(&self) -> &LabDir {
        &self.dir
    }

    /// Whether links can be hurt.
    pub fn has_links(&self) -> bool {
        self.options.faults
    }

    /// Where requests go: the ports of all nodes that have pages.
    fn routes(&self) -> Routes {
        let paged = Service::ALL.into_iter().filter(|one| one.has_pages());
        paged
            .map(|service| (service, self.ports(service)))
            .collect()
    }

    /// Where the nodes are, senders first.
    pub fn places(&self) -> Vec<(Service, Place)> {
        let nodes = self.nodes();
        let all = nodes
            .iter()
            .flat_map(|(service, nodes)| nodes.iter().map(|node| (*service, node)));
        all.map(|(service, node)| (service, node.place.clone()))
            .collect()
    }

    /// The proxies of a node, where there are some.
    pub fn links(&self, name: &str) -> Option<Arc<Links>> {
        let nodes = self.nodes();
        let mut all = nodes.values().flatten();
        all.find(|node| node.place.name == name)?.links.clone()
    }

    fn ports(&self, service: Service) -> Vec<u16> {
        self.nodes()
            .get(&service)
            .into_iter()
            .flatten()
            .map(|node| node.place.port)
            .collect()
    }

    /// Stops everything, in order.
    pub async fn stop(&self, steps: &Steps<'_>) {
        self.closed.store(true, Ordering::SeqCst);
        // before the gateway, which waits for those who read events of it
        if let Some((_, console)) = &self.console
            && console.condition().doing != Doing::Stopped
        {
            let begun = Instant::now();
            drop(console.stop().await);
            steps.done(begun, "console stopped");
        }
        let begun = Instant::now();
        if self.gateway.condition().doing != Doing::Stopped {
            drop(self.gateway.stop().await);
            steps.done(begun, "gateway stopped");
        }
        let mut nodes = std::mem::take(&mut *self.nodes());
        for service in Service::ALL {
            stop_nodes(nodes.remove(&service).unwrap_or_default(), steps).await;
        }
        let catcher = self.catcher().take();
        if let Some((_, catcher)) = catcher {
            let begun = Instant::now();
            drop(catcher.stop().await);
            steps.done(begun, "catcher of mails stopped");
        }
        self.servers.stop(steps).await;
        clear_up(self.dir.root()).await;
    }

    /// Ends everything at once.
    pub fn abort(&self) {
        for process in left_over(self.dir.root()) {
            process::signal(process.pid, Signal::SIGKILL);
        }
    }
}

async fn start_node(node: &Running, steps: &Steps<'_>) -> Result<()> {
    let begun = Instant::now();
    let name = &node.place.name;
    match node.unit.start().await {
        Ok(()) => steps.done(begun, format!("{name} ready")),
        // it runs, but one of its parts is missing: it gets ready by itself once that is back
        Err(error) if node.unit.condition().doing != Doing::Failed => {
            steps.done(begun, format!("{name} runs but is not ready: {error:#}"));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn stop_nodes(nodes: Vec<Running>, steps: &Steps<'_>) {
    let stops = nodes.into_iter().map(|node| async move {
        let begun = Instant::now();
        drop(node.unit.stop().await);
        steps.done(begun, format!("{} stopped", node.place.name));
    });
    join_all(stops).await;
}

fn shrink(nodes: &mut Nodes, plan: &Plan) -> Vec<Running> {
    let mut leaving = Vec::new();
    for (service, count) in plan {
        let running = nodes.entry(*service).or_default();
        leaving.extend(running.drain((*count).min(running.len())..));
    }
    leaving
}

fn postgres_elsewhere(dir: &LabDir) -> Option<PathBuf> {
    Some(postgres::outside(dir.root())).filter(|folder| folder.is_dir())
}

/// Processes of the stack in this folder, whoever started them; never ourselves.
pub fn left_over(root: &Path) -> Vec<process::Process> {
    let inside = ["postgres", "redis", "rabbitmq", "epmd", "gateway"].map(|name| root.join(name));
    let homes = [inside.as_slice(), &[postgres::outside(root)]].concat();
    let me = std::process::id();
    let mut found = process::of_stack(root, &homes);
    found.retain(|process| u32::try_from(process.pid) != Ok(me));
    found
}

/// Ends what an earlier `lab` left behind, and says how many there were.
pub async fn clear_up(root: &Path) -> usize {
    let left = left_over(root);
    process::end(&left, Duration::from_secs(10)).await;
    left.len()
}
