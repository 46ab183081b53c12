//! How everything is now, as `/lab/live` and the page show it.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;

use super::balance::Balance;
use super::knobs::Turned;
use super::load::LoadNow;
use crate::faults::Active;

/// The picture of a moment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Picture {
    /// Milliseconds since 1970.
    pub at: i64,
    /// Whether nodes' announcements are heard.
    pub live: bool,
    pub why_not: Option<String>,
    pub nodes: Vec<NodeNow>,
    pub exchange: &'static str,
    pub queue: QueueNow,
    pub balance: Balance,
    /// Older rows are still being added to the balance.
    pub counting: bool,
    pub faults: Vec<FaultNow>,
    pub knobs: Turned,
    pub guarantees_off: Vec<String>,
    pub load: Option<LoadNow>,
    /// The run of an experiment that is going on.
    pub experiment: Option<Value>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeNow {
    pub name: String,
    pub service: String,
    pub colour: u8,
    /// `up`, `starting`, `stopping`, `dead`, `frozen`.
    pub state: &'static str,
    /// Since when it is so, as far as this console saw it.
    pub since: i64,
    pub rate: f64,
    pub in_hand: u64,
    pub prefetch: Option<u64>,
    pub waiting: u64,
    pub held: u64,
    pub blocked: bool,
}

/// The queue; figures are up to two seconds old. None: the broker does not say.
#[derive(Debug, Clone, Default, Serialize)]
pub struct QueueNow {
    pub name: &'static str,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub ready: Option<u64>,
    pub unacked: Option<u64>,
    pub dead: Option<u64>,
    pub blocked: bool,
}

/// What is broken on purpose.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultNow {
    pub id: String,
    pub kind: String,
    pub target: String,
    pub since: i64,
    /// What was seen of it; none: not seen yet.
    pub evidence: Option<String>,
    pub healable: bool,
}

impl From<Active> for FaultNow {
    fn from(active: Active) -> Self {
        Self {
            target: active.struck.join(", "),
            since: active.at.timestamp_millis(),
            id: active.id,
            kind: active.order.fault,
            evidence: active.seen,
            healable: true,
        }
    }
}

/// Since when each node is in its state.
#[derive(Debug, Default)]
pub struct Since(HashMap<String, (&'static str, i64)>);

impl Since {
    /// A node is in this state now.
    pub fn of(&mut self, name: &str, state: &'static str, now: i64) -> i64 {
        let entry = self.0.entry(name.to_owned()).or_insert((state, now));
        if entry.0 != state {
            *entry = (state, now);
        }
        entry.1
    }

    /// Forgets all but these.
    pub fn keep(&mut self, nodes: &[NodeNow]) {
        self.0
            .retain(|name, _| nodes.iter().any(|node| node.name == *name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_began_when_it_was_first_seen() {
        let mut since = Since::default();
        assert_eq!(since.of("a", "up", 1), 1);
        assert_eq!(since.of("a", "up", 2), 1);
        assert_eq!(since.of("a", "dead", 3), 3);
        since.keep(&[]);
        assert_eq!(since.of("a", "dead", 9), 9);
    }
}
