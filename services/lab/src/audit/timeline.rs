//! When things happened, in slices of time: as many slices as fit, each as short as that allows.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Most slices while counting: ten minutes in slices of 10 ms.
const MOST: usize = 60_000;
const FINEST_US: i64 = 10_000;
/// Most slices that are shown.
const SHOWN: usize = 600;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Accepted,
    /// An effect, the first of its message or not.
    Effect,
    /// The message is accounted for, by its first effect or by being parked.
    Settled,
    /// It was parked, and was sent back.
    Again,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    accepted: u32,
    effects: u32,
    /// By how many more messages wait for an effect than before, or fewer.
    waiting: i32,
}

impl Slice {
    fn add(&mut self, other: Self) {
        self.accepted = self.accepted.saturating_add(other.accepted);
        self.effects = self.effects.saturating_add(other.effects);
        self.waiting = self.waiting.saturating_add(other.waiting);
    }
}

/// Counts events by time, in any order.
#[derive(Debug)]
pub struct Timeline {
    slices: VecDeque<Slice>,
    /// The time of the first slice is this many widths after 1970.
    first: i64,
    width_us: i64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            slices: VecDeque::new(),
            first: 0,
            width_us: FINEST_US,
        }
    }
}

/// What is shown of it: counts per slice of `slice_ms`, the first one beginning at `from_ms` after 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    pub from_ms: i64,
    pub slice_ms: i64,
    pub accepted: Vec<u32>,
    pub effects: Vec<u32>,
}

impl Timeline {
    /// Something happened at this time.
    pub fn add(&mut self, at_us: i64, event: Event) {
        let mut slice = Slice::default();
        match event {
            Event::Accepted => (slice.accepted, slice.waiting) = (1, 1),
            Event::Effect => slice.effects = 1,
            Event::Settled => slice.waiting = -1,
            Event::Again => slice.waiting = 1,
        }
        loop {
            let at = at_us.div_euclid(self.width_us);
            if self.slices.is_empty() {
                self.first = at;
            }
            let end = self.first + i64::try_from(self.slices.len()).unwrap_or(i64::MAX);
            let span = (end.max(at + 1) - self.first.min(at)).cast_unsigned();
            if span <= MOST as u64 {
                while self.first > at {
                    self.slices.push_front(Slice::default());
                    self.first -= 1;
                }
                let place = usize::try_from(at - self.first).unwrap_or(usize::MAX);
                if place >= self.slices.len() {
                    self.slices.resize(place + 1, Slice::default());
                }
                self.slices[place].add(slice);
                return;
            }
            self.double();
        }
    }

    /// Two slices become one.
    fn double(&mut self) {
        self.width_us *= 2;
        let first = self.first.div_euclid(2);
        let mut wider = VecDeque::with_capacity(self.slices.len() / 2 + 1);
        for (at, slice) in (self.first..).zip(&self.slices) {
            let place = usize::try_from(at.div_euclid(2) - first).unwrap_or(0);
            if place == wider.len() {
                wider.push_back(Slice::default());
            }
            if let Some(two) = wider.get_mut(place) {
                two.add(*slice);
            }
        }
        self.slices = wider;
        self.first = first;
    }

    /// The longest time without any effect while some message was not accounted for: to within the width of two
    /// slices. `until`: time goes on until then; else it ends with the last event.
    pub fn longest_silence_us(&self, until_us: Option<i64>) -> i64 {
        let (mut waiting, mut silent, mut longest) = (0_i64, 0_i64, 0_i64);
        for slice in &self.slices {
            let waited = waiting > 0;
            waiting += i64::from(slice.waiting);
            silent = if slice.effects == 0 && waited {
                silent + 1
            } else {
                0
            };
            longest = longest.max(silent);
        }
        let end = self.first + i64::try_from(self.slices.len()).unwrap_or(i64::MAX);
        if let Some(until) = until_us
            && waiting > 0
        {
            silent += (until.div_euclid(self.width_us) - end).max(0);
            longest = longest.max(silent);
        }
        longest * self.width_us
    }

    /// For a chart.
    pub fn rates(mut self) -> Rates {
        while self.slices.len() > SHOWN {
            self.double();
        }
        Rates {
            from_ms: self.first * self.width_us / 1_000,
            slice_ms: self.width_us / 1_000,
            accepted: self.slices.iter().map(|slice| slice.accepted).collect(),
            effects: self.slices.iter().map(|slice| slice.effects).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    fn of(events: &[(i64, Event)]) -> Timeline {
        let mut timeline = Timeline::default();
        for (at, event) in events {
            timeline.add(*at, *event);
        }
        timeline
    }

    #[test]
    fn silence_counts_only_while_something_waits() {
        let (a, e, d) = (Event::Accepted, Event::Effect, Event::Settled);
        // one at a time, with a pause of 50 s in which nobody had anything to do
        let timeline = of(&[
            (0, a),
            (S, e),
            (S, d),
            (51 * S, a),
            (53 * S, e),
            (53 * S, d),
        ]);
        let silence = timeline.longest_silence_us(None);
        assert!((1_950_000..=2_000_000).contains(&silence), "{silence}");
        // parked is accounted for, but is no effect
        let timeline = of(&[(0, a), (0, a), (3 * S, d), (4 * S, e), (4 * S, d)]);
        let silence = timeline.longest_silence_us(None);
        assert!((3_950_000..=4_000_000).contains(&silence), "{silence}");
        // sent back a minute later
        let again = (60 * S, Event::Again);
        let timeline = of(&[(0, a), (2 * S, d), again, (63 * S, e), (63 * S, d)]);
        let silence = timeline.longest_silence_us(None);
        assert!((2_950_000..=3_000_000).contains(&silence), "{silence}");
    }

    #[test]
    fn what_still_waits_at_the_end_is_silence_until_then() {
        let timeline = of(&[(0, Event::Accepted)]);
        assert_eq!(timeline.longest_silence_us(None), 0);
        let silence = timeline.longest_silence_us(Some(60 * S));
        assert!((59 * S..=60 * S).contains(&silence), "{silence}");
    }

    #[test]
    fn the_order_of_telling_does_not_matter_and_long_runs_fit() {
        let day = 86_400 * S;
        let mut events = Vec::new();
        for n in 0..1_000 {
            let at = 1_700_000_000 * S + n * day / 1_000;
            events.push((at, Event::Accepted));
            events.push((at + 40 * S, Event::Effect));
            events.push((at + 40 * S, Event::Settled));
        }
        let right = of(&events);
        events.reverse();
        let reversed = of(&events);
        assert_eq!(right.slices.len(), reversed.slices.len());
        assert!(right.slices.len() <= MOST);
        let silence = right.longest_silence_us(None);
        assert_eq!(silence, reversed.longest_silence_us(None));
        assert!((36 * S..=44 * S).contains(&silence), "{silence}");
        let rates = right.rates();
        assert_eq!(rates, reversed.rates());
        assert!(rates.accepted.len() <= SHOWN);
        assert_eq!(rates.accepted.iter().sum::<u32>(), 1_000);
        assert_eq!(rates.effects.iter().sum::<u32>(), 1_000);
    }

    #[test]
    fn nothing_happened_in_no_time() {
        assert_eq!(Timeline::default().longest_silence_us(Some(S)), 0);
        assert_eq!(
            Timeline::default().rates(),
            Rates {
                slice_ms: 10,
                ..Rates::default()
            }
        );
    }
}
