//! Where experiments are played: a native stack of their own, a stack of containers, or one that runs already and is only
//! seen from beside it.
//!
//! The [`Stage`] is what experiments know; the `Scenery` behind it is what differs.

mod compose;
mod inside;
mod native;
pub mod told;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use futures::future::join_all;
use reqwest::Client;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::file::Setup;
use super::fits::Place;
use super::harm::nth;
use crate::faults::{Harm, Injector, Order, Which, find};
use crate::run::RunId;
use crate::run::sight::{Elsewhere, NodeSight, Sight};
use crate::say::{Steps, Tell, Usage};

const ASK_LIMIT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a heal may take at the end, when nobody waits for its evidence any more.
const HEAL_LIMIT: Duration = Duration::from_secs(30);

/// What stands behind a stage.
#[async_trait]
trait Scenery: Send + Sync {
    /// What injects and heals here, by its own means or by others.
    fn injector(&self, harm: Option<Arc<dyn Harm>>) -> Injector;

    /// Makes it fit for experiments, and says what was done.
    async fn start(&self, injector: &Injector) -> Result<&'static str>;

    /// Nodes as an experiment asks for them, for one run. They may not be ready yet.
    async fn set(&self, setup: &Setup, run: &RunId) -> Result<Sight>;

    /// Takes away what was made for a run.
    async fn clear(&self) -> Result<()>;

    /// The end, after everything was healed that could be: gives back what was taken.
    async fn close(&self, injector: &Injector, tell: Tell<'_>);

    /// The end at once.
    async fn abort(&self);

    /// How long new nodes may take to get everything that they need.
    fn ready_limit(&self) -> Duration;

    /// What becomes of a fault that cannot be healed in the end.
    fn left_over(&self) -> String;
}

/// Who is on it, for one run.
#[derive(Debug, Default)]
struct Cast {
    run: Option<RunId>,
    nodes: Vec<NodeSight>,
}

impl Cast {
    fn named(&self, order: &Order) -> Result<Order> {
        let mut order = order.clone();
        if let (Some(run), true) = (&self.run, find(&order.fault)?.takes("run"))
            && order.text("run").is_empty()
        {
            order = order.with("run", run.as_str());
        }
        let Which::One(place) = &order.which else {
            return Ok(order);
        };
        let (service, number) = nth(place).with_context(|| format!("{place} is no node"))?;
        let mut all = self.nodes.iter().filter(|node| node.service == service);
        let found = all
            .nth(number - 1)
            .with_context(|| format!("there is no {place}"))?;
        let name = found.name.clone();
        Ok(order.on(Which::One(name)))
    }
}

/// Where the nodes of one experiment after the other are.
#[derive(Clone)]
pub struct Stage {
    scenery: Arc<dyn Scenery>,
    injector: Injector,
    client: Client,
    cast: Arc<Mutex<Cast>>,
    /// The flags that mean this stack.
    flags: String,
}

impl Stage {
    /// A native stack in this folder; nothing runs yet. `program` is what nodes are, without it this one.
    pub async fn prepare(
        root: &Path,
        program: Option<&Path>,
        yes: bool,
        steps: &Steps<'_>,
    ) -> Result<Self> {
        let native = native::Native::prepare(root, program, yes, steps).await?;
        Ok(Self::on(native))
    }

    /// The stack that flags or the environment describe, as it can be used; none, if they describe none.
    pub async fn elsewhere(root: &Path, elsewhere: &Elsewhere) -> Result<Option<(Self, Place)>> {
        if let Some(project) = elsewhere.project().await? {
            let compose = compose::Compose::prepare(root, elsewhere, project).await?;
            let stage = Self::on(compose).meant_by(elsewhere).unbroken()?;
            return Ok(Some((stage, Place::Compose)));
        }
        let Some(gateway) = &elsewhere.gateway else {
            return Ok(None);
        };
        let sight = Sight::given(gateway, elsewhere).await?;
        let told = told::ask(&Client::new(), &sight.nodes).await;
        let told = told.map_err(|why| Usage(format!("the stack cannot be used: {why:#}")))?;
        let inside = inside::Inside::prepare(root, elsewhere, sight)?;
        let place = Place::Inside(Box::new(told));
        let stage = Self::on(inside).meant_by(elsewhere).unbroken()?;
        Ok(Some((stage, place)))
    }

    fn meant_by(mut self, elsewhere: &Elsewhere) -> Self {
        self.flags = elsewhere.flags();
        self
    }

    /// The flags by which a command means this stack; empty: it is one of its own.
    pub fn elsewhere_flags(&self) -> &str {
        &self.flags
    }

    /// Nothing is played on a stack that somebody has broken, nor is it healed behind his back.
    fn unbroken(self) -> Result<Self> {
        if let Some(one) = self.injector.active()?.first() {
            let heal = self.injector.heal_command("--all");
            let what = one.describe();
            return Err(Usage(format!("{what} is still active; `{heal}` ends it")).into());
        }
        Ok(self)
    }

    fn on(scenery: impl Scenery + 'static) -> Self {
        Self {
            injector: scenery.injector(None),
            scenery: Arc::new(scenery),
            client: Client::new(),
            cast: Arc::default(),
            flags: String::new(),
        }
    }

    /// The same, where faults are done by other means. What is seen of them stays the same: so it can be shown that what
    /// was not done is not taken for done.
    #[must_use]
    pub fn struck_by(mut self, harm: Arc<dyn Harm>) -> Self {
        self.injector = self.scenery.injector(Some(harm));
        self
    }

    /// Starts what must run for all experiments.
    pub async fn start(&self, steps: &Steps<'_>) -> Result<()> {
        let begun = Instant::now();
        let done = self.scenery.start(&self.injector).await?;
        steps.done(begun, done);
        Ok(())
    }

    /// New nodes with all that they need, for one run.
    pub async fn set(&self, setup: &Setup, run: &RunId) -> Result<Sight> {
        let sight = self.scenery.set(setup, run).await?;
        *self.cast.lock().unwrap_or_else(PoisonError::into_inner) = Cast {
            run: Some(run.clone()),
            nodes: sight.nodes.clone(),
        };
        if let Err(why) = self.ready(&sight.nodes, self.scenery.ready_limit()).await {
            bail!("the nodes did not get ready: {why}");
        }
        Ok(sight)
    }

    /// Ends the nodes, and removes what was theirs.
    pub async fn clear(&self) -> Result<()> {
        self.scenery.clear().await
    }

    /// Heals what is active and stops everything; says what was healed.
    pub async fn close(&self, tell: Tell<'_>) {
        let end = self.scenery.left_over();
        match timeout(HEAL_LIMIT, self.injector.heal_all()).await {
            Ok(Ok(healed)) => {
                for (active, how) in healed {
                    tell(&match how {
                        Ok(how) => format!("{} healed: {}", active.describe(), how.how),
                        Err(error) => format!("{error:#}; {end}"),
                    });
                }
            }
            Ok(Err(error)) => tell(&format!("what is active is unknown: {error:#}")),
            Err(_) => tell(&format!("healing what is active takes too long; {end}")),
        }
        self.scenery.close(&self.injector, tell).await;
    }

    /// Ends everything at once.
    pub async fn abort(&self) {
        self.scenery.abort().await;
    }

    pub fn injector(&self) -> &Injector {
        &self.injector
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// As it is meant in this run: `receiver-2` is the second receiver, whatever its name is, and a message is one of the
    /// run's own, for the ledger may know those of others.
    pub fn named(&self, order: &Order) -> Result<Order> {
        let cast = self.cast.lock().unwrap_or_else(PoisonError::into_inner);
        cast.named(order)
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
            .filter(|(name, part)| part["state"] != "up" && !unasked(name, part))
            .map(|(part, _)| part.as_str())
            .collect();
        if ready && away.is_empty() {
            return None;
        }
        Some(format!("{name} misses {}", away.join(", ")))
    }
}

/// A mail server is first asked when there is a mail: nobody knows of it before, and nobody needs to.
fn unasked(name: &str, part: &Value) -> bool {
    name == "smtp" && part["state"] == "starting"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::node::Service;

    #[test]
    fn only_a_mail_server_may_be_one_that_nobody_asked_yet() {
        let part = |state: &str| serde_json::json!({"state": state});
        assert!(unasked("smtp", &part("starting")));
        assert!(!unasked("smtp", &part("away")));
        assert!(!unasked("redis", &part("starting")));
    }

    #[test]
    fn an_order_means_the_nodes_and_the_messages_of_the_run() {
        let node = |name: &str, service| NodeSight {
            name: name.to_owned(),
            service,
            ops: String::new(),
            address: String::new(),
            place: None,
        };
        let cast = Cast {
            run: Some("mine".parse().unwrap()),
            nodes: vec![
                node("sender-a", Service::Sender),
                node("receiver-b", Service::Receiver),
                node("receiver-c", Service::Receiver),
            ],
        };
        let second = Order::new("receiver-kill").on(Which::One("receiver-2".to_owned()));
        let second = cast.named(&second).unwrap();
        assert_eq!(second.which, Which::One("receiver-c".to_owned()));
        assert_eq!(second.text("run"), "");
        let again = Order::new("duplicate-publish");
        assert_eq!(cast.named(&again).unwrap().text("run"), "mine");
        let other = again.with("run", "theirs");
        assert_eq!(cast.named(&other).unwrap(), other);
    }
}
