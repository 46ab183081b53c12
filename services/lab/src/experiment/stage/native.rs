//! A stack that experiments have to themselves: a folder of its own, servers that stay, nodes that are new each time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use tokio::time::timeout;

use super::{HEAL_LIMIT, Scenery};
use crate::experiment::file::Setup;
use crate::experiment::settings;
use crate::faults::{Harm, Injector, native};
use crate::run::RunId;
use crate::run::sight::Sight;
use crate::say::{Steps, Tell};
use crate::stack::private::{self, Held};
use crate::stack::scene::Scene;
use crate::stack::{Options, Plan, Stack, clear_up};

/// Servers, a gateway, and the nodes of one experiment after the other.
pub(super) struct Native {
    stack: Arc<Stack>,
    _held: Held,
}

impl Native {
    /// Takes the folder and writes settings; nothing runs yet. `program` is what nodes are, without it this one.
    pub(super) async fn prepare(
        root: &Path,
        program: Option<&Path>,
        yes: bool,
        steps: &Steps<'_>,
    ) -> Result<Self> {
        let options = Options {
            faults: true,
            program: program.map(Path::to_owned),
            ..Options::default()
        };
        let busy = "experiments already run";
        let (stack, held) =
            private::prepare(root, "experiments", busy, options, yes, steps).await?;
        Ok(Self {
            stack: Arc::new(stack),
            _held: held,
        })
    }

    async fn status(&self) -> Result<Sight> {
        let status = Box::pin(self.stack.status()).await;
        Sight::of(&status, self.stack.dir().secrets())
    }
}

#[async_trait]
impl Scenery for Native {
    fn injector(&self, harm: Option<Arc<dyn Harm>>) -> Injector {
        let mut site = native::Native::site(&self.stack);
        if let Some(harm) = harm {
            site.harm = harm;
        }
        Injector::new(site, self.stack.dir().root())
    }

    /// Starts the servers and the gateway, and removes the faults and nodes' data of experiments that were killed.
    async fn start(&self, injector: &Injector) -> Result<&'static str> {
        self.stack.start_servers(&Steps::new(&|_| {})).await?;
        injector.clear().await?;
        self.stack.remove_left_scenes().await?;
        self.stack
            .start_nodes(&Plan::new(), &Steps::new(&|_| {}))
            .await?;
        Ok("servers and gateway started")
    }

    async fn set(&self, setup: &Setup, run: &RunId) -> Result<Sight> {
        let mut settings = setup.settings.clone();
        settings.insert("WITHOUT".to_owned(), setup.without.to_string());
        let services = setup.nodes.keys().copied();
        let own = services.map(|service| (service, settings::own(service, &setup.named)));
        let scene = Scene {
            vhost: run.scene(),
            database: run.scene(),
            settings,
            own: own.collect(),
            nodes: setup.nodes.clone(),
        };
        self.stack.fresh(scene, &Steps::new(&|_| {})).await?;
        self.status().await
    }

    async fn clear(&self) -> Result<()> {
        self.stack.clear(&Steps::new(&|_| {})).await
    }

    async fn close(&self, injector: &Injector, tell: Tell<'_>) {
        // with the nodes and their vhost goes whatever could not be healed
        let cleared = async {
            self.clear().await?;
            injector.clear().await.map(drop)
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

    async fn abort(&self) {
        self.stack.abort();
        clear_up(self.stack.dir().root()).await;
    }

    fn ready_limit(&self) -> Duration {
        Duration::from_mins(1)
    }

    fn left_over(&self) -> String {
        "it ends with the nodes and servers".to_owned()
    }
}
