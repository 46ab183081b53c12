//! What the nodes of a running stack say of themselves: how many there are, their settings, what is switched off.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use messaging::guarantee::Guarantee;
use reqwest::Client;
use tokio::time::sleep;

use super::LOOK_EVERY;
use crate::experiment::file::Setup;
use crate::experiment::settings::Settings;
use crate::faults::http;
use crate::run::sight::NodeSight;
use crate::stack::node::Service;

const LIMIT: Duration = Duration::from_secs(30);
/// Settings of the work that can be changed while it goes on, and what they are called then.
pub const KNOBS: [(&str, &str); 4] = [
    ("WORK_DELAY_MIN_MS", "delay_min_ms"),
    ("WORK_DELAY_MAX_MS", "delay_max_ms"),
    ("WORK_FAIL_ONE_IN", "fail_one_in"),
    ("WORK_FAILURE_ACTION", "failure_action"),
];

/// All of it. Nodes of one service are all alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    pub counts: BTreeMap<Service, usize>,
    pub settings: Settings,
    pub without: BTreeSet<String>,
}

impl Told {
    /// A setting; empty, if it is not set.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// What of this setup is not so, if anything.
    pub fn differs(&self, setup: &Setup) -> Option<String> {
        if self.counts != setup.nodes {
            return Some(format!("{:?} are there", self.counts));
        }
        let mut other = setup.settings.iter();
        let other = other.find(|(name, value)| self.setting(name) != value.as_str());
        if let Some((name, _)) = other {
            return Some(format!("{name} is {:?}", self.setting(name)));
        }
        let off: Vec<&str> = self.without.iter().map(String::as_str).collect();
        (off != names(setup)).then(|| format!("without is {off:?}"))
    }
}

/// What is switched off, in the order of names.
pub fn names(setup: &Setup) -> Vec<&'static str> {
    let off = setup.without.iter();
    let mut names: Vec<&str> = off.map(Guarantee::name).collect();
    names.sort_unstable();
    names
}

/// Asks all nodes, as soon as each answers.
pub(super) async fn wait(client: &Client, nodes: &[NodeSight]) -> Result<Told> {
    let begun = Instant::now();
    loop {
        match ask(client, nodes).await {
            Err(_) if begun.elapsed() < LIMIT => sleep(LOOK_EVERY).await,
            told => return told,
        }
    }
}

/// Asks all nodes.
pub async fn ask(client: &Client, nodes: &[NodeSight]) -> Result<Told> {
    let mut told = Told::default();
    for node in nodes {
        let settings = http::ops(client, &node.name, &node.ops, "/ops/settings").await?;
        let settings: Settings = serde_json::from_value(settings)?;
        for (name, value) in settings {
            let before = told.settings.insert(name.clone(), value.clone());
            // what each node has for itself
            let own = ["NODE_NAME", "LISTEN", "OPS_LISTEN"].contains(&&*name);
            ensure!(
                own || before.is_none_or(|before| before == value),
                "nodes differ in {name}"
            );
        }
        let live = format!("{}/health/ready", node.ops);
        let health = client.get(live).timeout(LIMIT).send().await?;
        let health: serde_json::Value = health.json().await?;
        let off = health["without"]
            .as_array()
            .context("a node does not say what is off")?;
        let off = off.iter().filter_map(|name| name.as_str());
        told.without.extend(off.map(str::to_owned));
        *told.counts.entry(node.service).or_default() += 1;
    }
    Ok(told)
}
