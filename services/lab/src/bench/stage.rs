//! The stack that a benchmark has to itself: servers that stay, without proxies, and new nodes for each scenario.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use messaging::guarantee::Without;
use reqwest::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::book::Book;
use super::cpu::Cpu;
use super::http;
use crate::run::RunId;
use crate::run::sight::Sight;
use crate::say::Steps;
use crate::stack::console as program;
use crate::stack::dir;
use crate::stack::node::Service;
use crate::stack::ports;
use crate::stack::private::{self, Held};
use crate::stack::scene;
use crate::stack::supervisor::Unit;
use crate::stack::{Options, Plan, Stack, clear_up};
use crate::status::{NodeStatus, Status};

const READY_LIMIT: Duration = Duration::from_mins(1);
const ASK_LIMIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const QUIET: Duration = Duration::from_secs(2);
const PROCESSED: &str = "unacked_messages_processed_total";

/// Deliveries in hand of the receivers that have no delay: as many as the bare consumer has.
pub(super) const PREFETCH: u16 = 250;

/// Servers and a gateway, for one scenario after the other.
pub(super) struct Stage {
    stack: Stack,
    client: Client,
    _held: Held,
}

/// What the nodes of a scene are told.
pub(super) type Settings = BTreeMap<String, String>;

/// Work without delay and without failures, every guarantee on, whatever the environment says.
pub(super) fn fast() -> Settings {
    [
        ("WORK_DELAY_MIN_MS", "0".to_owned()),
        ("WORK_DELAY_MAX_MS", "0".to_owned()),
        ("WORK_FAIL_ONE_IN", "0".to_owned()),
        ("PREFETCH", PREFETCH.to_string()),
        ("WITHOUT", Without::default().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// This very program, also when a build replaces its file meanwhile.
fn own() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

impl Stage {
    /// Takes the folder and writes settings; nothing runs yet.
    pub(super) async fn prepare(root: &Path, yes: bool, steps: &Steps<'_>) -> Result<Self> {
        let options = Options {
            program: Some(own()),
            ..Options::default()
        };
        let busy = "a benchmark already runs";
        let (stack, held) = private::prepare(root, "bench", busy, options, yes, steps).await?;
        Ok(Self {
            stack,
            client: Client::new(),
            _held: held,
        })
    }

    /// Starts the servers and the gateway.
    pub(super) async fn start(&self, steps: &Steps<'_>) -> Result<()> {
        let begun = Instant::now();
        let quiet = Steps::new(&|_| {});
        self.stack.start_servers(&quiet).await?;
        self.stack.start_nodes(&Plan::new(), &quiet).await?;
        steps.done(begun, "servers and gateway started");
        Ok(())
    }

    /// New nodes, with a vhost and a database of their own.
    pub(super) async fn scene(
        &self,
        senders: usize,
        receivers: usize,
        settings: Settings,
    ) -> Result<Scene<'_>> {
        let nodes = [(Service::Sender, senders), (Service::Receiver, receivers)];
        self.scene_of(nodes.into(), settings).await
    }

    /// The same with any nodes.
    pub(super) async fn scene_of(&self, nodes: Plan, settings: Settings) -> Result<Scene<'_>> {
        let name = RunId::new().to_string();
        let scene = scene::Scene {
            vhost: name.clone(),
            database: name,
            settings,
            nodes,
            ..scene::Scene::default()
        };
        self.stack.fresh(scene, &Steps::new(&|_| {})).await?;
        let status = Box::pin(self.stack.status()).await;
        let book = Book::open(&status.postgres.url).await?;
        let mut scene = Scene {
            stage: self,
            status,
            book,
        };
        scene.ready().await?;
        Ok(scene)
    }

    /// A console beside the nodes, which has nothing to do with other scenarios.
    pub(super) async fn console(&self) -> Result<Console> {
        let (port, reserved) = ports::free()?;
        let gateway = http::address(&self.status().await.gateway)?;
        let servers = self.stack.addresses()?;
        let dir = self.stack.dir();
        let program = program::Console::new(dir, port, gateway.port(), servers, own())?;
        let (news, _) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let unit = Unit::new(program, false, &news, &mut tasks);
        unit.start().await.context("the console did not start")?;
        Ok(Console {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            unit,
            _tasks: tasks,
            _port: reserved,
        })
    }

    /// Stops everything.
    pub(super) async fn close(&self) {
        let quiet = Steps::new(&|_| {});
        // a scene that cannot be removed is removed by the next one
        drop(self.stack.clear(&quiet).await);
        self.stack.stop(&quiet).await;
    }

    /// Ends everything at once.
    pub(super) async fn abort(&self) {
        self.stack.abort();
        clear_up(self.stack.dir().root()).await;
    }

    /// The folder, where the runs of audits are put too.
    pub(super) fn root(&self) -> &Path {
        self.stack.dir().root()
    }

    /// Where the nodes are, also while they are still being started.
    pub(super) fn places(&self) -> Vec<(Service, dir::Place)> {
        self.stack.places()
    }

    pub(super) async fn status(&self) -> Status {
        Box::pin(self.stack.status()).await
    }
}

/// The lab's console, for the nodes of now.
pub(super) struct Console {
    pub(super) address: SocketAddr,
    unit: Unit,
    _tasks: JoinSet<()>,
    _port: ports::Reserved,
}

impl Console {
    /// Stops it.
    pub(super) async fn close(self) -> Result<()> {
        self.unit.stop().await
    }
}

/// Nodes of one scenario.
pub(super) struct Scene<'a> {
    pub(super) stage: &'a Stage,
    pub(super) status: Status,
    pub(super) book: Book,
}

impl Scene<'_> {
    /// So many nodes of a service; comes back when all have what they need.
    pub(super) async fn scale(&mut self, service: Service, count: usize) -> Result<()> {
        self.begin_scale(service, count).await?;
        self.ready().await
    }

    /// The same, without waiting until they have all that they need: they may be at work already.
    pub(super) async fn begin_scale(&mut self, service: Service, count: usize) -> Result<()> {
        let plan = Plan::from([(service, count)]);
        let quiet = Steps::new(&|_| {});
        self.stage.stack.scale(&plan, &quiet).await?;
        self.status = self.stage.status().await;
        Ok(())
    }

    async fn ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        'look: loop {
            for node in &self.status.nodes {
                if let Err(why) = self.has_all(node).await {
                    ensure!(
                        begun.elapsed() < READY_LIMIT,
                        "{} did not get ready: {why}",
                        node.name
                    );
                    sleep(LOOK_EVERY).await;
                    continue 'look;
                }
            }
            return Ok(());
        }
    }

    async fn has_all(&self, node: &NodeStatus) -> Result<()> {
        let request = self.stage.client.get(format!("{}/health/ready", node.ops));
        let answer = request.timeout(ASK_LIMIT).send().await?;
        let health: serde_json::Value = answer.json().await?;
        let parts = health["parts"].as_object().into_iter().flatten();
        let away: Vec<&str> = parts
            .filter(|(_, part)| part["state"] != "up")
            .map(|(name, _)| name.as_str())
            .collect();
        ensure!(away.is_empty(), "it misses {}", away.join(", "));
        Ok(())
    }

    pub(super) fn gateway(&self) -> Result<SocketAddr> {
        http::address(&self.status.gateway)
    }

    /// The first node of a service.
    pub(super) fn node(&self, service: Service) -> Result<SocketAddr> {
        let mut nodes = self.status.nodes.iter();
        let node = nodes
            .find(|node| node.service == service)
            .with_context(|| format!("there is no {}", service.name()))?;
        http::address(&node.address)
    }

    pub(super) fn sight(&self) -> Result<Sight> {
        Sight::of(&self.status, self.stage.stack.dir().secrets())
    }

    /// CPU time so far.
    pub(super) fn cpu(&self) -> Cpu {
        Cpu::now(&self.status)
    }

    /// Effects that the receivers of now have committed.
    pub(super) async fn processed(&self) -> Result<u64> {
        let mut sum = 0;
        for node in &self.status.nodes {
            if node.service == Service::Receiver {
                let request = self.stage.client.get(format!("{}/metrics", node.ops));
                let answer = request.timeout(ASK_LIMIT).send().await?;
                sum += counter(&answer.text().await?, PROCESSED);
            }
        }
        Ok(sum)
    }

    /// Waits until so many are; a system that has not moved for `limit` is an error.
    pub(super) async fn until_processed(&self, count: u64, limit: Duration) -> Result<()> {
        let (mut moved, mut before) = (Instant::now(), 0);
        loop {
            let now = self.processed().await?;
            if now >= count {
                return Ok(());
            }
            if now > before {
                (moved, before) = (Instant::now(), now);
            }
            if moved.elapsed() > limit {
                bail!("{now} of {count} messages have an effect, and no more come");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the broker has confirmed everything.
    pub(super) async fn until_published(&mut self, limit: Duration) -> Result<()> {
        let (mut moved, mut before) = (Instant::now(), u64::MAX);
        loop {
            let left = self.book.outbox().await?;
            if left == 0 {
                return Ok(());
            }
            if left < before {
                (moved, before) = (Instant::now(), left);
            }
            if moved.elapsed() > limit {
                bail!("{left} messages wait to be published, and none is");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until nothing is on its way: all is published, and no effect has come for a while.
    pub(super) async fn until_quiet(&mut self, limit: Duration) -> Result<()> {
        self.until_published(limit).await?;
        let (mut moved, mut before) = (Instant::now(), self.processed().await?);
        while moved.elapsed() < QUIET {
            sleep(LOOK_EVERY).await;
            let now = self.processed().await?;
            if now > before {
                (moved, before) = (Instant::now(), now);
            }
        }
        Ok(())
    }
}

/// The sum of a counter's lines.
fn counter(metrics: &str, name: &str) -> u64 {
    metrics
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(' ') || rest.starts_with('{'))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read_with_all_of_its_labels() {
        let text = "# TYPE x_total counter\nx_total 5\nx_total{a=\"b c\"} 7\nx_total_more 100\n";
        assert_eq!(counter(text, "x_total"), 12);
        assert_eq!(counter(text, "y"), 0);
    }
}
