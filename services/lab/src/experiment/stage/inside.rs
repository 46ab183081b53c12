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
use serde::{Deserialize, Serialize};
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

/// What the knobs of each receiver were, by its name.
type Knobs = BTreeMap<String, Before>;

/// Of one.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Before {
    knobs: Value,
    /// Behind which host it was found.
    place: Option<String>,
}

/// As it stands on disk. Older versions noted the knobs alone.
fn read(text: &[u8]) -> serde_json::Result<Knobs> {
    let all: BTreeMap<String, Value> = serde_json::from_slice(text)?;
    let each = all.into_iter().map(|(name, noted)| {
        let before = match noted.get("knobs") {
            Some(_) => serde_json::from_value(noted)?,
            None => Before {
                knobs: noted,
                place: None,
            },
        };
        Ok((name, before))
    });
    each.collect()
}

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
            let place = node.place.clone();
            before.insert(node.name.clone(), Before { knobs, place });
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
        let before = read(&text).with_context(|| format!("{} is damaged", path.display()))?;
        for (name, Before { knobs, place }) in &before {
            // a node that was made anew since has its own
            let listed = NodeSight::is_listed(&self.sight.nodes, name, place.as_deref());
            if listed.with_context(|| format!("the knobs of {name} cannot be put back"))?
                && let Some(node) = self.receivers().find(|node| node.name == *name)
            {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_note_of_an_older_version_is_understood() {
        let knobs = json!({"delay_max_ms": 7});
        let old = read(json!({"receiver-a": knobs}).to_string().as_bytes()).unwrap();
        let place = Some("receiver:9082:8082".to_owned());
        let before = Before {
            knobs: knobs.clone(),
            place,
        };
        let new = Knobs::from([("receiver-a".to_owned(), before)]);
        let again = read(serde_json::to_string(&new).unwrap().as_bytes()).unwrap();
        assert_eq!(again, new);
        assert_eq!(
            (&old["receiver-a"].knobs, &old["receiver-a"].place),
            (&knobs, &None)
        );
    }

    #[tokio::test]
    async fn knobs_of_a_node_that_nobody_asked_for_stay_noted() {
        let root = std::env::temp_dir().join(format!("lab-knobs-{:016x}", rand::random::<u64>()));
        let stage = Inside::prepare(&root, &Elsewhere::default(), Sight::default()).unwrap();
        let note = json!({"receiver-a": {"knobs": {}, "place": "receiver:9082:8082"}});
        fs::write(root.join(FILE), note.to_string()).unwrap();
        let error = stage.put_back().await.unwrap_err();
        assert!(error.is::<Usage>(), "{error:#}");
        let why = format!("{error:#}");
        assert!(why.ends_with("--nodes receiver:9082:8082"), "{why}");
        assert!(root.join(FILE).exists());
        fs::remove_dir_all(root).unwrap();
    }
}
