//! What nodes announce through Redis: frames, passed on as they came, and the newest gauges of each node.
//!
//! Redis pub/sub forgets: what was announced while the console was not listening is gone, and the page says when it is not
//! live. Nothing here is needed to know what is true; that comes from the ledger, the broker and the nodes themselves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use live::listener::Hearing;
use live::{Frame, Gauges, Listener};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::feed::Feed;

/// So many frames a second go on as they came; the rest of that second is merged, node by node.
const FRAMES_MAX: usize = 200;
const MERGE_EVERY: Duration = Duration::from_millis(250);
/// Events that a merged frame shows.
const SAMPLE_MAX: usize = 20;
/// Names come from the network: no more of them are kept.
const NODES_MAX: usize = 256;
/// A node that has announced nothing for so long is silent; it should once a second.
pub const SILENT: Duration = Duration::from_secs(3);

/// What a node said last.
#[derive(Debug, Clone)]
pub struct Said {
    pub at: Instant,
    pub gauges: Gauges,
}

/// All that is heard. Clones share it.
#[derive(Clone)]
pub struct Heard {
    ears: Listener,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    nodes: HashMap<String, Said>,
    /// Of this second.
    passed: usize,
    /// Frames that wait to be passed on as one.
    merged: HashMap<String, Frame>,
}

impl Heard {
    /// By these ears.
    pub fn new(ears: Listener) -> Self {
        Self {
            ears,
            inner: Arc::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each node said last.
    pub fn nodes(&self) -> HashMap<String, Said> {
        self.inner().nodes.clone()
    }

    /// Why nothing is heard; none: it is.
    pub fn why_not(&self) -> Option<String> {
        match &*self.ears.hearing().borrow() {
            Hearing::Live => None,
            Hearing::NotLive(why) => Some(format!("Redis is away ({why})")),
        }
    }

    /// Passes on what is heard until the process stops.
    pub async fn listen(self, feed: Feed, stop: CancellationToken) -> Result<()> {
        let mut heard = self.ears.subscribe();
        let mut ticks = interval(MERGE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quarter = 0_u32;
        loop {
            tokio::select! {
                news = heard.recv() => match news {
                    Ok(live::Heard::Frame(frame)) => self.take(&frame, &feed),
                    // Whether it is live is asked for with each picture; what was missed leaves a gap in the frames' numbers, by
                    // which a reader knows.
                    Ok(live::Heard::Live | live::Heard::NotLive(_)) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Ok(()),
                },
                _ = ticks.tick() => {
                    self.pass_merged(&feed);
                    quarter += 1;
                    if quarter.is_multiple_of(4) {
                        self.inner().passed = 0;
                    }
                }
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    fn take(&self, frame: &Frame, feed: &Feed) {
        let mut inner = self.inner();
        if inner.nodes.len() >= NODES_MAX && !inner.nodes.contains_key(&frame.node) {
            inner.nodes.retain(|_, said| said.at.elapsed() < SILENT);
            if inner.nodes.len() >= NODES_MAX {
                return;
            }
        }
        let said = Said {
            at: Instant::now(),
            gauges: frame.gauges,
        };
        inner.nodes.insert(frame.node.clone(), said);
        inner.passed += 1;
        if inner.passed <= FRAMES_MAX {
            drop(inner);
            tell(frame, feed);
            return;
        }
        let together = match inner.merged.remove(&frame.node) {
            Some(before) if before.boot == frame.boot => merge(before, frame),
            _ => frame.clone(),
        };
        inner.merged.insert(frame.node.clone(), together);
    }

    fn pass_merged(&self, feed: &Feed) {
        let merged = std::mem::take(&mut self.inner().merged);
        for frame in merged.into_values() {
            tell(&frame, feed);
        }
    }
}

fn tell(frame: &Frame, feed: &Feed) {
    if let Ok(text) = serde_json::to_string(frame) {
        feed.tell("frame", text);
    }
}

/// Two frames of one node as one: the later one, with the counts of both and some of the events of both.
fn merge(before: Frame, later: &Frame) -> Frame {
    let mut now = later.clone();
    for (kind, count) in before.counts {
        *now.counts.entry(kind).or_default() += count;
    }
    let events = [before.sample, now.sample].concat();
    let all = events.len();
    now.sample = events.into_iter().take(SAMPLE_MAX).collect();
    let cut = u64::try_from(all - now.sample.len()).unwrap_or(u64::MAX);
    now.left_out = before.left_out + later.left_out + cut;
    now.dropped = before.dropped + later.dropped;
    now.since = before.since;
    now
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt, StreamExt};
    use serde_json::{Value, json};

    use super::*;

    const BOOT: &str = "0190a5b2-0000-7000-8000-000000000001";

    fn frame(node: &str, seq: u64) -> Frame {
        let sample = json!([{"kind": "processed", "id": BOOT, "at": seq}]);
        let frame = json!({"v": 1, "node": node, "service": "receiver", "boot": BOOT, "seq": seq, "at": seq, "since": seq,
            "counts": {"processed": 2}, "sample": sample, "left_out": 1, "gauges": {"in_hand": seq}});
        Frame::read(frame.to_string().as_bytes()).unwrap()
    }

    fn deaf() -> Heard {
        Heard::new(Listener::silent("nobody speaks here"))
    }

    #[tokio::test]
    async fn frames_pass_as_they_came_until_there_are_too_many() {
        let (heard, feed) = (deaf(), Feed::default());
        let mut reader = pin!(feed.read(None, String::new()).unwrap());
        let _state = reader.next().await;
        let many = FRAMES_MAX as u64 + 30;
        for seq in 0..many {
            heard.take(&frame("receiver-1", seq), &feed);
        }
        for seq in 0..FRAMES_MAX as u64 {
            let told = reader.next().await.unwrap().data.clone();
            assert_eq!(Frame::read(told.as_bytes()), Some(frame("receiver-1", seq)));
        }
        assert!(reader.next().now_or_never().is_none());
        heard.pass_merged(&feed);
        let merged: Value = serde_json::from_str(&reader.next().await.unwrap().data).unwrap();
        assert_eq!(merged["counts"]["processed"], 60);
        assert_eq!(
            (&merged["seq"], &merged["since"]),
            (&json!(many - 1), &json!(FRAMES_MAX))
        );
        let shown = merged["sample"].as_array().unwrap().len() as u64;
        // each frame showed one and left one out
        assert_eq!(shown + merged["left_out"].as_u64().unwrap(), 60);
        assert_eq!(heard.nodes()["receiver-1"].gauges.in_hand, many - 1);
    }

    #[test]
    fn names_are_bounded_and_it_is_said_why_nothing_is_heard() {
        let (heard, feed) = (deaf(), Feed::default());
        for n in 0..2 * NODES_MAX {
            heard.take(&frame(&n.to_string(), 1), &feed);
        }
        assert_eq!(heard.nodes().len(), NODES_MAX);
        assert!(heard.why_not().unwrap().contains("nobody speaks here"));
    }
}
