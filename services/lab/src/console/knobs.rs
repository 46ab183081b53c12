//! Knobs for all nodes, as people turn them here: what a form may say, and what is turned.
//!
//! `live::knobs` keeps them, in a hash in Redis that every node reads. It is lost with Redis' data: then every node has its
//! settings again, and the page says so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use chaos::knobs::{Change, DELAY_MAX_MS, PREFETCH_MAX};
use daemon::redis::fred::clients::Pool;
use live::{KnobWriter, Target};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::say::Usage;

/// The field for every node.
pub const ALL: &str = "all";

/// A knob that is a number: its name, from .. to, and what it says.
pub const NUMBERS: [(&str, u64, u64, &str); 4] = [
    ("delay_min_ms", 0, DELAY_MAX_MS, "takes at least, in ms"),
    ("delay_max_ms", 0, DELAY_MAX_MS, "takes at most, in ms"),
    ("fail_one_in", 0, 1_000_000, "fails 1 in (0: never)"),
    ("prefetch", 1, PREFETCH_MAX as u64, "in hand at most"),
];

/// Every change that is turned, as the page shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Turned {
    pub all: Value,
    pub nodes: BTreeMap<String, Value>,
    /// They were turned here, and Redis has forgotten them.
    pub lost: bool,
}

/// What is turned through the console.
pub struct Knobs {
    writer: KnobWriter,
    /// Something was turned by this process, so that an empty hash is a loss.
    turned: AtomicBool,
    changing: tokio::sync::Mutex<()>,
}

impl Knobs {
    /// With the beginning that the names of all our keys have.
    pub fn new(redis: Pool, prefix: &str) -> Self {
        Self {
            writer: KnobWriter::new(redis, prefix),
            turned: AtomicBool::new(false),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Adds to what is turned for all, or for one node.
    pub async fn set(&self, target: &str, change: Change) -> Result<()> {
        let _alone = self.changing.lock().await;
        let before = self.writer.read().await?.remove(target);
        fits(before.unwrap_or_default().then(change))?;
        self.writer.set(&whose(target), change).await?;
        self.turned.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Back to the settings: those of one node, or all.
    pub async fn clear(&self, target: &str) -> Result<()> {
        let _alone = self.changing.lock().await;
        self.writer.clear(&whose(target)).await?;
        let left = !self.writer.read().await?.is_empty();
        self.turned.store(left, Ordering::Relaxed);
        Ok(())
    }

    /// All that is turned now.
    pub async fn read(&self) -> Result<Turned> {
        let mut nodes = self.writer.read().await?;
        let lost = nodes.is_empty() && self.turned.load(Ordering::Relaxed);
        let all = nodes.remove(ALL).unwrap_or_default();
        let nodes = nodes.into_iter().map(|(name, told)| (name, json!(told)));
        Ok(Turned {
            all: json!(all),
            nodes: nodes.collect(),
            lost,
        })
    }
}

fn whose(target: &str) -> Target {
    if target == ALL {
        Target::All
    } else {
        Target::Node(target.to_owned())
    }
}

/// Reads fields as they were sent. Empty ones change nothing.
pub fn change(fields: &BTreeMap<String, String>) -> Result<Change, Usage> {
    let mut named = Map::new();
    for (name, min, max, _) in NUMBERS {
        let Some(text) = fields.get(name).filter(|text| !text.is_empty()) else {
            continue;
        };
        let number = text
            .parse()
            .ok()
            .filter(|number: &u64| (min..=max).contains(number));
        let number = number.ok_or_else(|| {
            Usage(format!(
                "{name} is {text:?}; right is a whole number from {min} to {max}"
            ))
        })?;
        named.insert(name.to_owned(), number.into());
    }
    let mut change: Change =
        serde_json::from_value(named.into()).map_err(|error| Usage(error.to_string()))?;
    if let Some(action) = fields.get("failure_action").filter(|text| !text.is_empty()) {
        let read = action.parse();
        let read = read.map_err(|error| Usage(format!("failure_action is {action:?}; {error}")))?;
        change.failure_action = Some(read);
    }
    if change == Change::default() {
        return Err(Usage("no knob is named that should change".to_owned()));
    }
    fits(change)?;
    Ok(change)
}

/// A node would refuse the whole change.
fn fits(change: Change) -> Result<(), Usage> {
    match (change.delay_min_ms, change.delay_max_ms) {
        (Some(min), Some(max)) if min > max => Err(Usage(format!(
            "delay_min_ms is {min}, more than delay_max_ms, which is {max}"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Change, Usage> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        change(&pairs.collect())
    }

    #[test]
    fn a_change_names_knobs_that_there_are_with_values_that_they_take() {
        let right = read(&[
            ("fail_one_in", "3"),
            ("failure_action", "drop"),
            ("prefetch", ""),
        ]);
        assert_eq!(
            json!(right.unwrap()),
            json!({"fail_one_in": 3, "failure_action": "drop"})
        );
        for wrong in [
            &[("prefetch", "0")][..],
            // as no node takes it
            &[("prefetch", "2001")],
            &[("delay_max_ms", "-1")],
            &[("failure_action", "explode")],
            &[("delay_min_ms", "9"), ("delay_max_ms", "8")],
            &[],
        ] {
            read(wrong).unwrap_err();
        }
    }
}
