//! Figures of a run, gathered while the ledger passes by.

use std::collections::BTreeMap;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::merge::{EffectRow, Found};
use super::timeline::{Event, Rates, Timeline};
use crate::load::Latency;
use crate::say::grouped;

/// More attempts than this are counted as this many.
const ATTEMPTS_MAX: u32 = 100;

/// What a run came to in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// From accepted to the first effect, by the database's clock.
    pub processed_us: Option<Latency>,
    /// How many effects came at the nth attempt.
    pub attempts: BTreeMap<u32, u64>,
    /// Effects of deliveries that the broker marked as redelivered.
    pub redelivered: u64,
    /// Message ids with more than one effect: with a redelivery among them, and without any.
    pub twice_redelivered: u64,
    pub twice_unmarked: u64,
    /// The longest time without any effect while messages waited for one.
    pub longest_silence_ms: i64,
    /// Failures of the work.
    pub failures: u64,
    /// Deliveries that did not end with an effect, and why. Best effort: some may be missing.
    pub redeliveries: Vec<Cause>,
    /// Of those that are lost: the sender has no row of them.
    #[serde(default)]
    pub never_stored: u64,
    /// Of those that are parked: a person has discarded them.
    #[serde(default)]
    pub discarded: u64,
    /// Mails beyond the first one under each Message-ID; none: no mails were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail_copies: Option<u64>,
    pub nodes: BTreeMap<String, NodeCounts>,
    pub rates: Rates,
}

/// Why deliveries ended without an effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `failed`, `returned`, `duplicate`, `dead-lettered`, or `unsettled`: its node has not said how it ended.
    pub outcome: String,
    pub cause: Option<String>,
    pub deliveries: u64,
}

/// What a node did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCounts {
    pub accepted: u64,
    pub effects: u64,
    pub parked: u64,
}

impl NodeCounts {
    /// As it is told to people: what it did, and how often.
    pub fn text(&self) -> String {
        let did = [
            (self.accepted, "accepted"),
            (self.effects, "processed"),
            (self.parked, "parked"),
        ];
        let did = did.iter().filter(|(count, _)| *count > 0);
        let did: Vec<String> = did
            .map(|(count, deed)| format!("{deed} {}", grouped(*count)))
            .collect();
        did.join(", ")
    }
}

/// Counts while the ledger passes by, in memory that does not grow.
#[derive(Debug)]
pub struct Gatherer {
    figures: Figures,
    times: Histogram<u64>,
    timeline: Timeline,
}

impl Gatherer {
    /// Nothing yet.
    pub fn new() -> Result<Self> {
        Ok(Self {
            figures: Figures::default(),
            times: Histogram::new(3)?,
            timeline: Timeline::default(),
        })
    }

    /// An effect.
    pub fn effect(&mut self, row: &EffectRow) {
        let attempt = u32::try_from(row.attempt).unwrap_or(0).min(ATTEMPTS_MAX);
        *self.figures.attempts.entry(attempt).or_default() += 1;
        self.figures.redelivered += u64::from(row.redelivered);
        self.timeline.add(row.processed_us, Event::Effect);
    }

    /// A message id.
    pub fn found(&mut self, found: &Found) {
        if found.effects > 1 {
            self.figures.twice_redelivered += u64::from(found.redelivered);
            self.figures.twice_unmarked += u64::from(!found.redelivered);
        }
        // only what was accepted is waited for
        let Some(message) = found.message else { return };
        self.figures.discarded += u64::from(found.discarded && found.effects == 0);
        self.timeline.add(message.accepted_us, Event::Accepted);
        let settled = [found.first_effect_us, found.parked_us]
            .into_iter()
            .flatten()
            .min();
        if let Some(at) = settled {
            self.timeline.add(at, Event::Settled);
        }
        self.aside(&found.aside_us, settled);
        if let Some(processed) = found.first_effect_us {
            let took = processed.saturating_sub(message.accepted_us);
            // a histogram that grows by itself takes any value
            let _ = self.times.record(u64::try_from(took).unwrap_or(0));
        }
    }

    /// While it lies among the dead letters nobody waits for it.
    fn aside(&mut self, spans: &[(i64, i64)], settled_us: Option<i64>) {
        let mut spans = spans.to_vec();
        spans.sort_unstable();
        let mut done_us = i64::MIN;
        for (from, until) in spans {
            let from = from.max(done_us);
            let until = settled_us.map_or(until, |at| until.min(at));
            if from < until {
                self.timeline.add(from, Event::Settled);
                self.timeline.add(until, Event::Again);
                done_us = until;
            }
        }
    }

    /// The end. `until_us`: messages were waiting for an effect until then.
    pub fn finish(mut self, until_us: Option<i64>) -> Figures {
        self.figures.processed_us = Latency::of(&self.times);
        self.figures.longest_silence_ms = self.timeline.longest_silence_us(until_us) / 1_000;
        self.figures.rates = self.timeline.rates();
        self.figures
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::audit::merge::MessageRow;

    fn found(effects: u32, redelivered: bool, accepted_us: i64, first: Option<i64>) -> Found {
        let id = Uuid::from_u128(1);
        Found {
            id,
            message: Some(MessageRow {
                id,
                number: Some(0),
                position: 0,
                accepted_us,
            }),
            effects,
            redelivered,
            first_effect_us: first,
            parked: false,
            discarded: false,
            parked_us: None,
            aside_us: Vec::new(),
        }
    }

    #[test]
    fn nobody_waits_for_what_lies_among_the_dead_letters() {
        let silence = |aside_us: &[(i64, i64)], first: Option<i64>| {
            let mut gatherer = Gatherer::new().unwrap();
            gatherer.found(&Found {
                aside_us: aside_us.to_vec(),
                ..found(1, false, 0, first)
            });
            gatherer.finish(Some(70_000_000)).longest_silence_ms
        };
        let about = |seconds: i64| seconds * 1_000 - 50..=seconds * 1_000;
        assert!(about(60).contains(&silence(&[], Some(60_000_000))));
        let twice = [(31_000_000, 55_000_000), (1_000_000, 30_000_000)];
        assert!(about(5).contains(&silence(&twice, Some(60_000_000))));
        // two copies, and an effect before the second was sent back
        let over = [(1_000_000, 50_000_000), (2_000_000, 90_000_000)];
        assert!(about(1).contains(&silence(&over, Some(60_000_000))));
        // sent back, and never seen again
        assert!(about(20).contains(&silence(&[(1_000_000, 50_000_000)], None)));
    }

    #[test]
    fn times_count_to_the_first_effect_and_second_effects_by_their_redelivery() {
        let mut gatherer = Gatherer::new().unwrap();
        for (attempt, redelivered) in [(1, false), (2, true), (1_000, true)] {
            gatherer.effect(&EffectRow {
                id: Uuid::from_u128(1),
                processed_us: 5_000_000,
                attempt,
                redelivered,
            });
        }
        gatherer.found(&found(1, false, 4_000_000, Some(5_000_000)));
        gatherer.found(&found(2, true, 4_000_000, Some(5_000_000)));
        gatherer.found(&found(3, false, 4_000_000, Some(5_000_000)));
        gatherer.found(&found(0, false, 4_000_000, None));
        let figures = gatherer.finish(None);
        assert_eq!((figures.twice_redelivered, figures.twice_unmarked), (1, 1));
        assert_eq!(figures.redelivered, 2);
        assert_eq!(figures.attempts, BTreeMap::from([(1, 1), (2, 1), (100, 1)]));
        let max = figures.processed_us.unwrap().max;
        assert!((999_000..=1_001_000).contains(&max), "{max}");
    }
}
