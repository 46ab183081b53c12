//! Watching a run until nothing of it is on its way any more.
//!
//! *Drained*: no load runs; the run's outbox is empty; and either every message is accounted for, or nothing is queued and
//! no receiver has anything in hand, for six seconds. Also in the first case the queues must look empty, once, six seconds
//! after the last thing that moved: a second copy of a message that is accounted for may still be in a queue, and its
//! second effect must not come after the verdict. (The broker's own figures are up to five seconds old.) Where they do not
//! look empty, twenty seconds without a move of ours (and the ladder's longest rung) are enough if somebody else's messages had effects
//! meanwhile; if not, it is a doubt.
//!
//! *Stuck*: something is on its way, all nodes are ready, nothing that was broken is still broken, and nothing has moved
//! for as long as a recovery may take. Where the lab cannot tell, it says so, and that is a doubt.

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::ledger::Ledger;
use super::look::{Eyes, Look};
use super::watch::{SETTLED, Watch};
use crate::run::RunDir;
use crate::run::sight::Sight;
use crate::say::grouped;

const EACH: Duration = Duration::from_secs(1);

/// How long to watch, and for what.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Nothing may move for so long before it counts as stuck; zero: look once.
    pub recovery: Duration,
    /// What is still broken on purpose, if anything is.
    pub unhealed: Option<String>,
}

/// What the watch came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drain {
    pub drained: bool,
    pub stuck: bool,
    pub doubts: Vec<String>,
    pub waited: Duration,
}

/// Watches until the run is drained or stuck, or that cannot be found out. `tell` hears how far it is.
pub async fn watch(
    sight: &Sight,
    ledger: &Ledger,
    run: &RunDir,
    bounds: &Bounds,
    tell: &mut (dyn FnMut(&str) + Send),
) -> Drain {
    let began = Instant::now();
    let mut eyes = Eyes::new(sight, ledger, run);
    let mut watch = Watch::new(bounds.clone());
    let mut ticks = interval(EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let look = eyes.look().await;
        let now = began.elapsed();
        if let Some(drain) = watch.step(now, &look) {
            return drain;
        }
        tell(&line(now, now.saturating_sub(watch.moved_at), &look));
    }
}

/// One line for people.
fn line(now: Duration, still: Duration, look: &Look) -> String {
    let mut parts = vec![format!("{:>5} s", now.as_secs())];
    if look.load_runs {
        parts.push("the load still runs".to_owned());
    }
    let count = |count: i64| grouped(u64::try_from(count).unwrap_or(0));
    match (&look.ledger, &look.ledger_error) {
        (Some(ledger), _) => parts.push(format!(
            "stored {}  outbox {}  effects {}  parked {}",
            count(ledger.messages),
            count(ledger.outbox),
            count(ledger.effects),
            count(ledger.parked)
        )),
        (None, Some(why)) => parts.push(format!("the ledger cannot be read: {why}")),
        (None, None) => {}
    }
    let known = |what: &str, count: Option<u64>| match count {
        Some(count) => format!("{what} {}", grouped(count)),
        None => format!("{what} ?"),
    };
    if look.sees_queues {
        parts.push(known("queued", look.queued));
    }
    if look.sees_nodes {
        parts.push(known("in hand", look.in_hand));
    }
    if still >= SETTLED {
        parts.push(format!("nothing has moved for {} s", still.as_secs()));
    }
    parts.extend(look.not_ready.iter().cloned());
    parts.join("  ")
}
