//! A stack that runs, seen from inside its network: nodes are taken as they are. Only the settings of their simulated work
//! can be changed while they run; they are put back in the end.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use reqwest::Client;
use serde_json::{Map, Value};

use super::Scenery;
use super::told::{self, KNOBS};
use crate::experiment::file::Setup;
use crate::faults::inside::Inside as Faults;
use crate::faults::{Harm, Injector, http};
use crate::run::RunId;
use crate::run::sight::{Elsewhere, NodeSight, Sight};
use crate::say::{self, Tell, Usage};
use crate::stack::dir::{self, Lock, write_secret};
use crate::stack::node::Service;

const PATH: &str = "/ops/knobs";
const FILE: &str = "knobs.json";

/// What the knobs of each receiver were.
type Knobs = BTreeMap<String, Value>;

/// The stack, while it is the experiments'.
pub(super) struct Inside {
    sight: Sight,
    elsewhere: Elsewhere,
    root: PathBuf,
    client: Client,
    _lock: Lock,
}

impl Inside {
    /// Looks at the stack; nothing is changed yet.
    pub(super) fn prepare(root: &Path, elsewhere: &Elsewhere, sight: Sight) -> Result<Self> {
        dir::make_folder(root, 0o711)?;
        let Some(lock) = dir::lock(root)? else {
            let root = root.display();
            return Err(Usage(format!("experiments already run in {root}")).into());
        };
        Ok(Self {
            sight,
            elsewhere: elsewhere.clone(),
            root: root.to_owned(),
            client: Client::new(),
            _lock: lock,
        })
    }

    fn receivers(&self) -> impl Iterator<Item = &NodeSight> {
        let all = self.sight.nodes.iter();
        all.filter(|node| node.service == Service::Receiver)
    }

    async fn turn(&self, node: &NodeSight, knobs: &Value) -> Result<()> {
        http::put_ops(&self.client, &node.name, &node.ops, PATH, knobs.to_string()).await
    }

    /// Turns what differs, after what was there is on disk: as it was before any experiment.
    async fn turn_all(&self, setup: &Setup) -> Result<()> {
        self.put_back().await?;
        let mut before = Knobs::new();
        for node in self.receivers() {
            let knobs = http::ops(&self.client, &node.name, &node.ops, PATH).await?;
            before.insert(node.name.clone(), knobs);
        }
        write_secret(&self.root.join(FILE), &serde_json::to_string(&before)?)?;
        let wanted = Value::Object(wanted(setup)?);
        for node in self.receivers() {
            self.turn(node, &wanted).await?;
        }
        Ok(())
    }

    async fn put_back(&self) -> Result<()> {
        let path = self.root.join(FILE);
        let Ok(text) = fs::read(&path) else {
            return Ok(());
        };
        let before: Knobs = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged", path.display()))?;
        for node in self.receivers() {
            // a node that was made anew since has its own
            if let Some(knobs) = before.get(&node.name) {
                self.turn(node, knobs).await?;
            }
        }
        fs::remove_file(path).context("cannot remove the note of the knobs")
    }
}

/// How a setup wants the knobs.
fn wanted(setup: &Setup) -> Result<Map<String, Value>> {
    let mut wanted = Map::new();
    for (setting, knob) in KNOBS {
        let text = &setup.settings[setting];
        let number: Result<u64, _> = text.parse();
        let value = match (number, knob) {
            (Ok(number), _) => number.into(),
            (Err(_), "failure_action") => text.clone().into(),
            (Err(error), _) => return Err(error).context(setting),
        };
        wanted.insert(knob.to_owned(), value);
    }
    Ok(wanted)
}

#[async_trait]
impl Scenery for Inside {
    fn injector(&self, harm: Option<Arc<dyn Harm>>) -> Injector {
        let mut site = Faults::site(&self.sight);
        if let Some(harm) = harm {
            site.harm = harm;
        }
        Injector::new(site, &self.root).of(&self.elsewhere, &self.root)
    }

    async fn start(&self, _injector: &Injector) -> Result<&'static str> {
        self.put_back().await?;
        Ok("the stack is taken as it is")
    }

    async fn set(&self, setup: &Setup, _run: &RunId) -> Result<Sight> {
        let told = told::wait(&self.client, &self.sight.nodes).await?;
        if told.counts != setup.nodes {
            bail!("the stack has other nodes by now: {:?}", told.counts);
        }
        self.turn_all(setup).await?;
        Ok(self.sight.clone())
    }

    async fn clear(&self) -> Result<()> {
        self.put_back().await
    }

    async fn close(&self, _injector: &Injector, tell: Tell<'_>) {
        if let Err(error) = self.put_back().await {
            tell(&format!(
                "the knobs are not as they were, the next experiment puts them back: {error:#}"
            ));
        }
    }

    async fn abort(&self) {
        say::complain(
            "the knobs of receivers stay as they are; the next experiment puts them back",
        );
    }

    fn ready_limit(&self) -> Duration {
        Duration::from_mins(1)
    }

    fn left_over(&self) -> String {
        let heal = self.elsewhere.command(&self.root, "fault heal --all");
        format!("`{heal}` tries it again")
    }
}
