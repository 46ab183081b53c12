//! How everything is now, as `/lab/live` and the page show it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::balance::Balance;
use super::knobs::Turned;
use super::load::LoadNow;
use crate::faults::Active;
use crate::service::shown::Shown;
use crate::status::NodeCondition;

/// The picture of a moment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Picture {
    /// Milliseconds since 1970.
    pub at: i64,
    /// Whether nodes' announcements are heard.
    pub live: bool,
    pub why_not: Option<String>,
    pub nodes: Vec<NodeNow>,
    /// Why what is said of nodes is old, if it is.
    pub nodes_why_old: Option<String>,
    pub exchange: &'static str,
    pub queue: QueueNow,
    /// Of the load's run while there is a load, else of all messages.
    pub balance: Balance,
    pub all: Balance,
    /// Of the newest runs, the newest first.
    pub runs: Vec<Balance>,
    /// Older rows are still being added to the balance.
    pub counting: bool,
    /// Why the balance is not newer than it is.
    pub uncounted: Option<String>,
    pub faults: Vec<FaultNow>,
    pub knobs: Turned,
    pub guarantees_off: Vec<String>,
    pub load: Option<LoadNow>,
    /// The run of an experiment that is going on.
    pub experiment: Option<Shown>,
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

/// The queue; figures are up to five seconds old. None: the broker does not say.
#[derive(Debug, Clone, Default, Serialize)]
pub struct QueueNow {
    pub name: &'static str,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub ready: Option<u64>,
    pub unacked: Option<u64>,
    pub dead: Option<u64>,
    /// Dead letters that were stored, and that nobody has decided about.
    pub parked: Option<i64>,
    pub blocked: bool,
}

/// What is broken on purpose.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultNow {
    pub id: String,
    pub kind: String,
    pub target: String,
    pub since: i64,
    /// When it heals by itself; none: somebody must heal it, as far as this console knows.
    pub until: Option<i64>,
    /// What was seen of it; none: not seen yet.
    pub evidence: Option<String>,
    pub healable: bool,
}

impl From<Active> for FaultNow {
    fn from(active: Active) -> Self {
        Self {
            target: active.struck.join(", "),
            since: active.at.timestamp_millis(),
            until: None,
            id: active.id,
            kind: active.order.fault,
            evidence: active.seen,
            healable: true,
        }
    }
}

/// When faults heal by themselves, in milliseconds since 1970, by their ids. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Healing(Arc<Mutex<HashMap<String, i64>>>);

impl Healing {
    fn all(&self) -> MutexGuard<'_, HashMap<String, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This fault heals then.
    pub fn plan(&self, id: String, at: i64) {
        self.all().insert(id, at);
    }

    /// It is over, or will not heal by itself any more.
    pub fn forget(&self, id: &str) {
        self.all().remove(id);
    }

    /// When it heals; none: not by itself.
    pub fn of(&self, id: &str) -> Option<i64> {
        self.all().get(id).copied()
    }
}

/// What `lab up` said of its nodes last. One slow answer is no reason to show none; what is old says so.
#[derive(Debug, Default)]
pub struct Conditions(Option<(Vec<NodeCondition>, Instant)>);

impl Conditions {
    /// For so long the last answer stands in for one that did not come.
    const KEPT: Duration = Duration::from_secs(30);
    /// One that is so old is called that.
    const OLD: Duration = Duration::from_secs(2);

    /// What it said now; none: nothing, in time.
    pub fn hear(&mut self, nodes: Option<Vec<NodeCondition>>, now: Instant) {
        if let Some(nodes) = nodes {
            self.0 = Some((nodes, now));
        }
        self.0
            .take_if(|(_, at)| now.duration_since(*at) > Self::KEPT);
    }

    /// The last answer, as long as it holds.
    pub fn last(&self) -> Option<&[NodeCondition]> {
        self.0.as_ref().map(|(nodes, _)| nodes.as_slice())
    }

    /// Why it is not newer, if it is old.
    pub fn why_old(&self, now: Instant) -> Option<String> {
        let (_, at) = self.0.as_ref()?;
        let age = now.duration_since(*at);
        (age > Self::OLD).then(|| {
            format!(
                "`lab up` does not answer; nodes are as they were {} s ago",
                age.as_secs()
            )
        })
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
    use crate::stack::node::Service;
    use crate::stack::supervisor::Doing;

    #[test]
    fn one_slow_answer_leaves_the_nodes_where_they_are_and_old_ones_say_so() {
        let node = NodeCondition {
            name: "receiver-1".to_owned(),
            service: Service::Receiver,
            ops: String::new(),
            doing: Doing::Ready,
            frozen: false,
            restarts: 0,
        };
        let (mut conditions, start) = (Conditions::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        conditions.hear(None, start);
        assert!(conditions.last().is_none() && conditions.why_old(start).is_none());
        conditions.hear(Some(vec![node]), start);
        conditions.hear(None, after(1));
        assert_eq!(conditions.last().map(<[_]>::len), Some(1));
        assert_eq!(conditions.why_old(after(1)), None);
        let why = conditions.why_old(after(9)).unwrap();
        assert!(why.contains("9 s ago"), "{why}");
        conditions.hear(None, after(31));
        assert!(conditions.last().is_none());
        conditions.hear(Some(Vec::new()), after(32));
        assert_eq!(conditions.last().map(<[_]>::len), Some(0), "all are gone");
    }

    #[test]
    fn a_fault_heals_by_itself_only_while_that_is_planned() {
        let healing = Healing::default();
        assert_eq!(healing.of("a"), None);
        healing.clone().plan("a".to_owned(), 7);
        assert_eq!((healing.of("a"), healing.of("b")), (Some(7), None));
        healing.forget("a");
        assert_eq!(healing.of("a"), None);
    }

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
