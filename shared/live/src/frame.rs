//! The wire: one node's news of a moment, as JSON.
//!
//! Readers ignore fields that they do not know, so a newer node may say more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The version of the wire.
pub const VERSION: u32 = 1;
/// Nobody sends more; what is longer is not read.
const BYTES_MAX: usize = 64 * 1024;

/// What may happen to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is committed.
    Accepted,
    /// The broker has confirmed it.
    Published,
    /// No queue took it; it is tried again.
    Returned,
    /// The queue said no; it is tried again.
    Refused,
    /// A receiver has it in hand.
    Delivered,
    /// Its work failed, and it goes back.
    Failed,
    /// It has its effect already; it is acked without work.
    Duplicate,
    /// Its effect is committed.
    Processed,
    /// It was given up on, and is parked.
    Dead,
    /// It was sent back from the dead letters.
    Redriven,
    /// Something that a newer node says.
    #[serde(other)]
    Unknown,
}

impl Kind {
    /// All that we say ourselves.
    pub const ALL: [Self; 10] = [
        Self::Accepted,
        Self::Published,
        Self::Returned,
        Self::Refused,
        Self::Delivered,
        Self::Failed,
        Self::Duplicate,
        Self::Processed,
        Self::Dead,
        Self::Redriven,
    ];
}

/// Something that happened to one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// To which message.
    pub id: Uuid,
    /// When, by the node's clock, in milliseconds since 1970.
    pub at: i64,
    /// At which attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    /// The message's run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Whether the broker had delivered it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redelivered: Option<bool>,
}

impl Event {
    /// Now, and nothing more is known.
    pub fn now(kind: Kind, id: Uuid) -> Self {
        Self {
            kind,
            id,
            at: daemon::clock::now().timestamp_millis(),
            attempt: None,
            ms: None,
            run: None,
            redelivered: None,
        }
    }
}

/// How a node stands at the moment of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gauges {
    /// Deliveries in hand.
    pub in_hand: u64,
    /// How many it may have; 0 without a bound.
    pub prefetch: u64,
    /// Deliveries held because the database does not do what it should.
    pub held: u64,
    /// Messages in the outbox, of all senders.
    pub waiting: u64,
    /// Whether the broker holds this node's link back.
    pub blocked: bool,
    /// Whether its link with the broker is open.
    pub connected: bool,
}

/// What one node says at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// See [`VERSION`].
    pub v: u32,
    /// Who says it.
    pub node: String,
    /// `sender`, `receiver`.
    pub service: String,
    /// New for each process.
    pub boot: Uuid,
    /// One more in each frame of a process: a gap is a loss.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Since when `counts` counts: the `at` of the frame before.
    pub since: i64,
    /// How many of each kind happened since then; what did not is left out.
    #[serde(default)]
    pub counts: BTreeMap<Kind, u64>,
    /// How many since the process started.
    #[serde(default)]
    pub totals: BTreeMap<Kind, u64>,
    /// Some of them, in order of time.
    #[serde(default)]
    pub sample: Vec<Event>,
    /// How many more there were.
    #[serde(default)]
    pub left_out: u64,
    /// How many of these found no room, so that they could not have been in the sample.
    #[serde(default)]
    pub dropped: u64,
    /// How the node stands.
    #[serde(default)]
    pub gauges: Gauges,
}

impl Frame {
    /// Reads a frame; none where it is of another version, or no frame at all.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > BYTES_MAX {
            return None;
        }
        let frame: Self = serde_json::from_slice(bytes).ok()?;
        (frame.v == VERSION).then_some(frame)
    }

    /// How many of a kind in this frame.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &str = r#"{"v":1,"node":"receiver-1","service":"receiver",
        "boot":"0190a5b2-0000-7000-8000-000000000001","seq":17,"at":2000,"since":1900,
        "counts":{"delivered":3,"failed":1,"sung":2},"totals":{"delivered":30},
        "sample":[{"kind":"processed","id":"0190a5b2-0000-7000-8000-000000000002","at":1990,
                   "attempt":2,"ms":123,"run":"r1","redelivered":true,"mood":"good"},
                  {"kind":"sung","id":"0190a5b2-0000-7000-8000-000000000003","at":1991}],
        "left_out":5,"dropped":0,"gauges":{"in_hand":4,"prefetch":10},"weather":"fair"}"#;

    #[test]
    fn what_a_newer_node_adds_is_ignored() {
        let frame = Frame::read(FRAME.as_bytes()).unwrap();
        assert_eq!(
            (frame.count(Kind::Delivered), frame.count(Kind::Failed)),
            (3, 1)
        );
        assert_eq!(frame.sample[0].ms, Some(123));
        assert_eq!(frame.sample[1].kind, Kind::Unknown);
        assert_eq!((frame.gauges.in_hand, frame.gauges.waiting), (4, 0));
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let frame = Frame::read(FRAME.as_bytes()).unwrap();
        let written = serde_json::to_vec(&frame).unwrap();
        assert_eq!(Frame::read(&written), Some(frame));
    }

    #[test]
    fn another_version_and_nonsense_are_no_frames() {
        let other = FRAME.replacen("\"v\":1", "\"v\":2", 1);
        assert_eq!(Frame::read(other.as_bytes()), None);
        assert_eq!(Frame::read(b"{}"), None);
        assert_eq!(Frame::read(&vec![b' '; BYTES_MAX + 1]), None);
    }
}
