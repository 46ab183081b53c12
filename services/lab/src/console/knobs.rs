//! Knobs for all nodes: a hash in Redis that every node reads, and a channel that wakes them.
//!
//! A field of the hash is `all` or a node's name; its value is the change, as a node's second port takes it. A change adds to
//! what was turned before. The hash is lost with Redis' data: then every node has its settings again, and the page says so.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use daemon::redis::fred::clients::Pool;
use daemon::redis::fred::interfaces::{HashesInterface, PubsubInterface};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::say::Usage;

/// The field for every node.
pub const ALL: &str = "all";
const ACTIONS: [&str; 7] = ["nack", "reject", "drop", "crash", "ack", "park", "hang"];

/// A knob that is a number: its name, from .. to, and what it says.
pub const NUMBERS: [(&str, u64, u64, &str); 4] = [
    ("delay_min_ms", 0, 600_000, "the work takes at least, in ms"),
    ("delay_max_ms", 0, 600_000, "and at most"),
    (
        "fail_one_in",
        0,
        1_000_000,
        "it fails one time in so many (0: never)",
    ),
    ("prefetch", 1, 65_535, "deliveries in hand at most"),
];

/// Every change that is turned, as the page shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Turned {
    pub all: Value,
    pub nodes: BTreeMap<String, Value>,
    /// They were turned here, and Redis has forgotten them.
    pub lost: bool,
}

/// The hash.
pub struct Knobs {
    redis: Pool,
    key: String,
    /// Something was turned by this process, so that an empty hash is a loss.
    turned: AtomicBool,
    changing: tokio::sync::Mutex<()>,
}

impl Knobs {
    /// With the beginning that the names of all our keys have.
    pub fn new(redis: Pool, prefix: &str) -> Self {
        Self {
            redis,
            key: format!("{prefix}knobs"),
            turned: AtomicBool::new(false),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Adds to what is turned for all, or for one node.
    pub async fn set(&self, target: &str, change: &Map<String, Value>) -> Result<()> {
        let _alone = self.changing.lock().await;
        let before: Option<String> = self.redis.hget(&self.key, target).await?;
        let before = before.and_then(|text| serde_json::from_str::<Map<String, Value>>(&text).ok());
        let mut now = before.unwrap_or_default();
        now.extend(change.clone());
        fits(&now)?;
        let text = serde_json::to_string(&now)?;
        let _: i64 = self.redis.hset(&self.key, (target, text)).await?;
        self.turned.store(true, Ordering::Relaxed);
        self.wake(target).await
    }

    /// Back to the settings: those of one node, or all.
    pub async fn clear(&self, target: &str) -> Result<()> {
        let _alone = self.changing.lock().await;
        let _: i64 = self.redis.hdel(&self.key, target).await?;
        let left: i64 = self.redis.hlen(&self.key).await?;
        self.turned.store(left > 0, Ordering::Relaxed);
        self.wake(target).await
    }

    /// Who does not hear it looks within a second anyway.
    async fn wake(&self, target: &str) -> Result<()> {
        let heard: Result<i64, _> = self.redis.next().publish(&self.key, target).await;
        heard.map(drop).context("the nodes could not be woken")
    }

    /// All that is turned now.
    pub async fn read(&self) -> Result<Turned> {
        let all: HashMap<String, String> = self.redis.hgetall(&self.key).await?;
        let read = |text: &String| serde_json::from_str(text).unwrap_or(Value::Null);
        let lost = all.is_empty() && self.turned.load(Ordering::Relaxed);
        Ok(Turned {
            all: all.get(ALL).map_or_else(|| Value::Object(Map::new()), read),
            nodes: all
                .iter()
                .filter(|(name, _)| *name != ALL)
                .map(|(name, text)| (name.clone(), read(text)))
                .collect(),
            lost,
        })
    }
}

/// Reads fields as they were sent. Empty ones change nothing.
pub fn change(fields: &BTreeMap<String, String>) -> Result<Map<String, Value>, Usage> {
    let mut change = Map::new();
    for (name, min, max, _) in NUMBERS {
        let Some(text) = fields.get(name).filter(|text| !text.is_empty()) else {
            continue;
        };
        let number = text
            .parse()
            .ok()
            .filter(|number| (min..=max).contains(number));
        let number = number.ok_or_else(|| {
            Usage(format!(
                "{name} is {text:?}; right is a whole number from {min} to {max}"
            ))
        })?;
        change.insert(name.to_owned(), number.into());
    }
    if let Some(action) = fields.get("failure_action").filter(|text| !text.is_empty()) {
        if !ACTIONS.contains(&&**action) {
            let right = ACTIONS.join(", ");
            return Err(Usage(format!(
                "failure_action is {action:?}; right is one of {right}"
            )));
        }
        change.insert("failure_action".to_owned(), action.as_str().into());
    }
    if change.is_empty() {
        return Err(Usage("no knob is named that should change".to_owned()));
    }
    fits(&change)?;
    Ok(change)
}

/// A node would refuse the whole change.
fn fits(change: &Map<String, Value>) -> Result<(), Usage> {
    let of = |name: &str| change.get(name).and_then(Value::as_u64);
    match (of("delay_min_ms"), of("delay_max_ms")) {
        (Some(min), Some(max)) if min > max => Err(Usage(format!(
            "delay_min_ms is {min}, more than delay_max_ms, which is {max}"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Map<String, Value>, Usage> {
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
            Value::Object(right.unwrap()),
            serde_json::json!({"fail_one_in": 3, "failure_action": "drop"})
        );
        for wrong in [
            &[("prefetch", "0")][..],
            &[("delay_max_ms", "-1")],
            &[("failure_action", "explode")],
            &[("delay_min_ms", "9"), ("delay_max_ms", "8")],
            &[],
        ] {
            read(wrong).unwrap_err();
        }
    }
}
