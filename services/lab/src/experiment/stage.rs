//! The stack that experiments have to themselves: a folder of its own, servers that stay, nodes that are new each time.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::join_all;
use reqwest::Client;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::file::Setup;
use crate::faults::native::Native;
use crate::faults::{Harm, Injector, Order, Site, Which};
use crate::run::RunId;
use crate::run::sight::{NodeSight, Sight};
use crate::say::{Steps, Usage};
use crate::stack::dir::{self, LabDir, Lock};
use crate::stack::install::{self, NGINX};
use crate::stack::scene::Scene;
use crate::stack::servers::Given;
use crate::stack::{Options, Plan, Stack, clear_up, ports};

use super::file::nth;

/// How long nodes may take to get everything that they need.
const READY_LIMIT: Duration = Duration::from_mins(1);
const ASK_LIMIT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a heal may take at the end, when nobody waits for its evidence any more.
const HEAL_LIMIT: Duration = Duration::from_secs(30);

/// Servers, a gateway, and the nodes of one experiment after the other.
#[derive(Clone)]
pub struct Stage {
    stack: Arc<Stack>,
    injector: Injector,
    client: Client,
    _lock: Arc<Lock>,
    _port: Arc<ports::Reserved>,
}

impl Stage {
    /// Takes the folder and writes settings; nothing runs yet. `program` is what nodes are, without it this one.
    pub async fn prepare(
        root: &Path,
        program: Option<&Path>,
        yes: bool,
        steps: &Steps<'_>,
    ) -> Result<Self> {
        let root = root.join("experiments");
        dir::make_folder(&root, 0o711)?;
        let root = root.canonicalize()?;
        let Some(lock) = dir::lock(&root)? else {
            let by = dir::holder(&root)
                .map(|pid| format!(" (pid {pid})"))
                .unwrap_or_default();
            return Err(Usage(format!("experiments already run in {}{by}", root.display())).into());
        };
        clear_up(&root).await;
        let given = Given::default();
        let mut needed = given.needed();
        needed.push(NGINX);
        install::ensure_installed(&needed, yes, steps).await?;
        let (port, reserved) = ports::free()?;
        let options = Options {
            faults: true,
            program: program.map(Path::to_owned),
            ..Options::default()
        };
        // what ends by itself is what experiments are about: nobody needs to be told
        let (news, _) = mpsc::unbounded_channel();
        let stack = Stack::prepare(LabDir::open(&root)?, &given, port, options, news).await?;
        let stack = Arc::new(stack);
        Ok(Self {
            injector: Injector::new(Native::site(&stack), stack.dir().root()),
            stack,
            client: Client::new(),
            _lock: Arc::new(lock),
            _port: Arc::new(reserved),
        })
    }

    /// The same, where faults are done by other means. What is seen of them stays the same: so it can be shown that what
    /// was not done is not taken for done.
    #[must_use]
    pub fn struck_by(mut self, harm: Arc<dyn Harm>) -> Self {
        let site = Site {
            harm,
            ..Native::site(&self.stack)
        };
        self.injector = Injector::new(site, self.stack.dir().root());
        self
    }

    /// Starts the servers and the gateway, and removes the faults and nodes' data of experiments that were killed.
    pub async fn start(&self, steps: &Steps<'_>) -> Result<()> {
        let begun = Instant::now();
        self.stack.start_servers(&Steps::new(&|_| {})).await?;
        self.injector.clear().await?;
        self.stack.remove_left_scenes().await?;
        self.stack
            .start_nodes(&Plan::new(), &Steps::new(&|_| {}))
            .await?;
        steps.done(begun, "servers and gateway started");
        Ok(())
    }

    /// New nodes with all that they need, for one run.
    pub async fn set(&self, setup: &Setup, run: &RunId) -> Result<Sight> {
        let mut settings = setup.settings.clone();
        settings.insert("WITHOUT".to_owned(), setup.without.to_string());
        let scene = Scene {
            vhost: run.to_string(),
            database: run.to_string(),
            settings,
            nodes: setup.nodes.clone(),
        };
        self.stack.fresh(scene, &Steps::new(&|_| {})).await?;
        let sight = Sight::of(
            &Box::pin(self.stack.status()).await,
            self.stack.dir().secrets(),
        )?;
        if let Err(why) = self.ready(&sight.nodes, READY_LIMIT).await {
            bail!("the nodes did not get ready: {why}");
        }
        Ok(sight)
    }

    /// Ends the nodes, and removes what was theirs.
    pub async fn clear(&self) -> Result<()> {
        self.stack.clear(&Steps::new(&|_| {})).await
    }

    /// Heals what is active and stops everything; says what was healed.
    pub async fn close(&self, tell: &(dyn Fn(&str) + Send + Sync)) {
        match timeout(HEAL_LIMIT, self.injector.heal_all()).await {
            Ok(Ok(healed)) => {
                for (active, how) in healed {
                    tell(&match how {
                        Ok(how) => format!("{} healed: {}", active.describe(), how.how),
                        Err(error) => format!("{error:#}; it ends with the nodes and servers"),
                    });
                }
            }
            Ok(Err(error)) => tell(&format!("what is active is unknown: {error:#}")),
            Err(_) => {
                tell("healing takes too long; what is active ends with the nodes and servers");
            }
        }
        // with the nodes and their vhost goes whatever could not be healed
        let cleared = async {
            self.clear().await?;
            self.injector.clear().await.map(drop)
        };
        let cleared = timeout(HEAL_LIMIT, cleared).await;
        if let Err(error) = cleared
            .map_err(anyhow::Error::from)
            .and_then(|cleared| cleared)
        {
            tell(&format!(
                "the next experiment removes what is left: {error:#}"
            ));
        }
        self.stack.stop(&Steps::new(&|_| {})).await;
    }

    /// Ends everything at once.
    pub async fn abort(&self) {
        self.stack.abort();
        clear_up(self.stack.dir().root()).await;
    }

    pub fn injector(&self) -> &Injector {
        &self.injector
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// `receiver-2` is the second receiver, whatever its name is.
    pub fn named(&self, order: &Order) -> Result<Order> {
        let Which::One(place) = &order.which else {
            return Ok(order.clone());
        };
        let (service, number) = nth(place).with_context(|| format!("{place} is no node"))?;
        let places = self.stack.places();
        let mut all = places.into_iter().filter(|(one, _)| *one == service);
        let (_, found) = all
            .nth(number - 1)
            .with_context(|| format!("there is no {place}"))?;
        Ok(order.clone().on(Which::One(found.name)))
    }

    /// Waits until every node has all that it needs; else what is missing.
    pub async fn ready(&self, nodes: &[NodeSight], limit: Duration) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let missing: Vec<String> = join_all(nodes.iter().map(|node| self.missing(node)))
                .await
                .into_iter()
                .flatten()
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > limit {
                return Err(missing.join("; "));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn missing(&self, node: &NodeSight) -> Option<String> {
        let name = &node.name;
        let request = self.client.get(format!("{}/health/ready", node.ops));
        let Ok(answer) = request.timeout(ASK_LIMIT).send().await else {
            return Some(format!("{name} does not answer"));
        };
        let ready = answer.status().is_success();
        let health: Value = answer.json().await.unwrap_or_default();
        let parts = health["parts"].as_object().into_iter().flatten();
        let away: Vec<&str> = parts
            .filter(|(_, part)| part["state"] != "up")
            .map(|(part, _)| part.as_str())
            .collect();
        if ready && away.is_empty() {
            return None;
        }
        Some(format!("{name} misses {}", away.join(", ")))
    }
}
