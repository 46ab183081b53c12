//! Knobs for all nodes, as people turn them here: what a form may say, and what is turned.
//!
//! `live::knobs` keeps them, in a hash in Redis that every node reads. It is lost with Redis' data: then every node has its
//! settings again, and the page says so. That something was turned stands in a file of the stack's folder; a mark beside the
//! hash, which is lost with it, tells a loss from knobs that another program turned back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use chaos::knobs::{Change, DELAY_MAX_MS, PREFETCH_MAX};
use daemon::redis::fred::clients::Pool;
use daemon::redis::fred::interfaces::KeysInterface;
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
    /// Why none can be turned now; what stands here is then what was last known.
    pub why_not: Option<String>,
}

/// What is turned through the console.
pub struct Knobs {
    writer: KnobWriter,
    redis: Pool,
    /// In Redis, while something is turned.
    mark: String,
    /// There, while something is turned: so that an empty hash is a loss.
    turned: PathBuf,
    changing: tokio::sync::Mutex<()>,
}

impl Knobs {
    /// With the beginning that the names of all our keys have, and the stack's folder.
    pub fn new(redis: Pool, prefix: &str, root: &Path) -> Self {
        Self {
            writer: KnobWriter::new(redis.clone(), prefix),
            redis,
            mark: format!("{prefix}knobs-turned"),
            turned: root.join("knobs-turned"),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Adds to what is turned for all, or for one node.
    pub async fn set(&self, target: &str, change: Change) -> Result<()> {
        let _alone = self.changing.lock().await;
        let before = self.writer.read().await?.remove(target);
        fits(before.unwrap_or_default().then(change))?;
        // first: whoever dies in between has turned nothing that could be lost without a word
        fs::write(&self.turned, "")?;
        let _: () = self.redis.set(&self.mark, 1, None, None, false).await?;
        self.writer.set(&whose(target), change).await?;
        Ok(())
    }

    /// Back to the settings: those of one node, or all.
    pub async fn clear(&self, target: &str) -> Result<()> {
        let _alone = self.changing.lock().await;
        self.writer.clear(&whose(target)).await?;
        if self.writer.read().await?.is_empty() {
            self.forget();
        }
        Ok(())
    }

    /// Nothing is turned any more, and nothing was lost.
    fn forget(&self) {
        let _ = fs::remove_file(&self.turned);
    }

    /// All that is turned now.
    pub async fn read(&self) -> Result<Turned> {
        let mut nodes = self.writer.read().await?;
        let mut lost = false;
        if nodes.is_empty() && self.turned.exists() {
            let marked: bool = self.redis.exists(&self.mark).await?;
            // not in the middle of somebody's turning
            let _alone = self.changing.lock().await;
            if self.writer.read().await?.is_empty() {
                lost = !marked;
                if marked {
                    self.forget();
                }
            }
        }
        let all = nodes.remove(ALL).unwrap_or_default();
        let nodes = nodes.into_iter().map(|(name, told)| (name, json!(told)));
        Ok(Turned {
            all: json!(all),
            nodes: nodes.collect(),
            lost,
            why_not: None,
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
