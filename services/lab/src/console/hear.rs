//! What nodes announce through Redis: frames, passed on as they came, and the newest gauges of each node.
//!
//! Redis pub/sub forgets: what was announced while the console was not listening is gone, and the page says when it is not
//! live. Nothing here is needed to know what is true; that comes from the ledger, the broker and the nodes themselves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use daemon::redis::fred::clients::Pool;
use daemon::redis::fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::feed::Feed;

/// So many frames a second go on as they came; the rest of that second is merged, node by node.
const FRAMES_MAX: usize = 200;
const MERGE_EVERY: Duration = Duration::from_millis(250);
/// Events that a merged frame shows.
const SAMPLE_MAX: usize = 20;
/// Names come from the network: no more of them are kept.
const NODES_MAX: usize = 256;
const FRAME_MAX: usize = 64 * 1024;
/// A node that has announced nothing for so long is silent; it should once a second.
pub const SILENT: Duration = Duration::from_secs(3);
const SUBSCRIBE_LIMIT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(500);

/// What a node said last.
#[derive(Debug, Clone)]
pub struct Said {
    pub at: Instant,
    pub service: String,
    pub gauges: Value,
}

/// All that is heard. Clones share it.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    nodes: HashMap<String, Said>,
    /// Why nothing is heard; none: it is.
    why_not: Option<String>,
    /// Of this second.
    passed: usize,
    /// Frames that wait to be passed on as one.
    merged: HashMap<String, Value>,
}

impl Heard {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each node said last.
    pub fn nodes(&self) -> HashMap<String, Said> {
        self.inner().nodes.clone()
    }

    /// Why nothing is heard; none: it is.
    pub fn why_not(&self) -> Option<String> {
        self.inner().why_not.clone()
    }

    /// Listens until the process stops.
    pub async fn listen(
        self,
        redis: Pool,
        prefix: String,
        feed: Feed,
        stop: CancellationToken,
    ) -> Result<()> {
        let channel = format!("{prefix}live");
        let listening = async {
            loop {
                if let Err(error) = self.session(&redis, &channel, &feed).await {
                    self.inner().why_not = Some(format!("Redis is away ({error:#})"));
                }
                sleep(PAUSE).await;
            }
        };
        stop.run_until_cancelled(listening).await;
        Ok(())
    }

    /// On a connection of its own, until that is lost.
    async fn session(&self, redis: &Pool, channel: &str, feed: &Feed) -> Result<()> {
        let client = redis.next().clone_new();
        let (mut messages, mut lost) = (client.message_rx(), client.error_rx());
        let connection = client.connect();
        let heard = async {
            timeout(SUBSCRIBE_LIMIT, client.wait_for_connect()).await??;
            timeout(SUBSCRIBE_LIMIT, client.subscribe(channel)).await??;
            self.inner().why_not = None;
            let mut ticks = interval(MERGE_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut quarter = 0_u32;
            loop {
                tokio::select! {
                    message = messages.recv() => match message {
                        Ok(message) => {
                            if let Some(text) = message.value.as_string() {
                                self.take(&text, feed);
                            }
                        }
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => anyhow::bail!("the connection is closed"),
                    },
                    error = lost.recv() => match error {
                        Ok((error, _)) => anyhow::bail!("{error}"),
                        Err(_) => anyhow::bail!("the connection is lost"),
                    },
                    _ = ticks.tick() => {
                        self.pass_merged(feed);
                        quarter += 1;
                        if quarter.is_multiple_of(4) {
                            self.inner().passed = 0;
                        }
                    }
                }
            }
        };
        let ended: Result<()> = heard.await;
        connection.abort();
        // with a server that is gone there is nobody to say farewell to
        let _ = timeout(PAUSE, client.quit()).await;
        ended
    }

    /// One frame. What is none is nobody's.
    fn take(&self, text: &str, feed: &Feed) {
        if text.len() > FRAME_MAX {
            return;
        }
        let Ok(frame) = serde_json::from_str::<Value>(text) else {
            return;
        };
        let (Some(node), Some(service)) = (frame["node"].as_str(), frame["service"].as_str())
        else {
            return;
        };
        let mut inner = self.inner();
        if inner.nodes.len() >= NODES_MAX && !inner.nodes.contains_key(node) {
            inner.nodes.retain(|_, said| said.at.elapsed() < SILENT);
            if inner.nodes.len() >= NODES_MAX {
                return;
            }
        }
        let said = Said {
            at: Instant::now(),
            service: service.to_owned(),
            gauges: frame["gauges"].clone(),
        };
        inner.nodes.insert(node.to_owned(), said);
        inner.passed += 1;
        if inner.passed <= FRAMES_MAX {
            drop(inner);
            feed.tell("frame", text.to_owned());
            return;
        }
        let name = node.to_owned();
        let together = match inner.merged.remove(&name) {
            Some(before) if before["boot"] == frame["boot"] => merge(&before, frame),
            _ => frame,
        };
        inner.merged.insert(name, together);
    }

    fn pass_merged(&self, feed: &Feed) {
        let merged = std::mem::take(&mut self.inner().merged);
        for frame in merged.into_values() {
            feed.tell("frame", frame.to_string());
        }
    }
}

/// Two frames of one node as one: the later one, with the counts of both and some of the events of both.
fn merge(before: &Value, mut now: Value) -> Value {
    let mut counts = before["counts"].as_object().cloned().unwrap_or_default();
    for (kind, count) in now["counts"].as_object().unwrap_or(&Map::new()) {
        let sum =
            counts.get(kind).and_then(Value::as_u64).unwrap_or(0) + count.as_u64().unwrap_or(0);
        counts.insert(kind.clone(), sum.into());
    }
    let list = |frame: &Value| frame["sample"].as_array().cloned().unwrap_or_default();
    let mut sample = [list(before), list(&now)].concat();
    let number = |frame: &Value, name: &str| frame[name].as_u64().unwrap_or(0);
    let all = u64::try_from(sample.len()).unwrap_or(u64::MAX);
    sample.truncate(SAMPLE_MAX);
    let shown = u64::try_from(sample.len()).unwrap_or(u64::MAX);
    let left_out = number(before, "left_out") + number(&now, "left_out") + all - shown;
    now["since"] = before["since"].clone();
    now["counts"] = counts.into();
    now["sample"] = sample.into();
    now["left_out"] = json!(left_out);
    now
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt, StreamExt};

    use super::*;

    fn frame(seq: u64) -> String {
        let sample = json!([{"kind": "processed", "id": seq}]);
        json!({"v": 1, "node": "receiver-1", "service": "receiver", "boot": "b", "seq": seq, "since": seq,
            "counts": {"processed": 2}, "sample": sample, "left_out": 1, "gauges": {"in_hand": seq}})
        .to_string()
    }

    #[tokio::test]
    async fn frames_pass_as_they_came_until_there_are_too_many() {
        let (heard, feed) = (Heard::default(), Feed::default());
        let mut reader = pin!(feed.read(None, String::new()).unwrap());
        let _state = reader.next().await;
        let many = FRAMES_MAX as u64 + 30;
        for seq in 0..many {
            heard.take(&frame(seq), &feed);
        }
        for seq in 0..FRAMES_MAX as u64 {
            assert_eq!(reader.next().await.unwrap().data, frame(seq));
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
        assert_eq!(heard.nodes()["receiver-1"].gauges["in_hand"], many - 1);
    }

    #[tokio::test]
    async fn what_is_no_frame_is_nobodys_and_names_are_bounded() {
        let (heard, feed) = (Heard::default(), Feed::default());
        for wrong in ["", "{", "[]", r#"{"node": 1}"#, r#"{"node": "x"}"#] {
            heard.take(wrong, &feed);
        }
        assert!(heard.nodes().is_empty());
        for n in 0..2 * NODES_MAX {
            heard.take(
                &json!({"node": n.to_string(), "service": "sender"}).to_string(),
                &feed,
            );
        }
        assert_eq!(heard.nodes().len(), NODES_MAX);
    }
}
