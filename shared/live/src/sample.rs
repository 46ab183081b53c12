//! Which events travel when there are too many for all.

use std::collections::BTreeMap;

use crate::frame::{Event, Kind};

/// Most events of one frame.
pub(crate) const SAMPLE_MAX: usize = 20;

/// At most [`SAMPLE_MAX`] of them, in order of time: each kind gets the same share while it has that
/// many, and gives what it does not need to the others. Within a kind they are spread over the
/// whole moment.
pub(crate) fn sample(events: Vec<Event>) -> Vec<Event> {
    if events.len() <= SAMPLE_MAX {
        return events;
    }
    let mut kinds: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
    for (place, event) in events.iter().enumerate() {
        kinds.entry(event.kind).or_default().push(place);
    }
    let mut kinds: Vec<Vec<usize>> = kinds.into_values().collect();
    // The rarest first: what they leave is for the others.
    kinds.sort_by_key(Vec::len);
    let mut chosen = vec![false; events.len()];
    let mut room = SAMPLE_MAX;
    for (done, places) in kinds.iter().enumerate() {
        let share = (room / (kinds.len() - done)).min(places.len());
        for n in 0..share {
            chosen[places[n * places.len() / share]] = true;
        }
        room -= share;
    }
    let chosen = events.into_iter().zip(chosen);
    chosen
        .filter_map(|(event, is)| is.then_some(event))
        .collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn events(kind: Kind, count: usize) -> Vec<Event> {
        let one = |n| Event {
            at: i64::try_from(n).unwrap(),
            ..Event::now(kind, Uuid::from_u128(n as u128))
        };
        (0..count).map(one).collect()
    }

    fn count(sample: &[Event], kind: Kind) -> usize {
        sample.iter().filter(|event| event.kind == kind).count()
    }

    #[test]
    fn few_events_all_travel_as_they_came() {
        let few = events(Kind::Accepted, SAMPLE_MAX);
        assert_eq!(sample(few.clone()), few);
    }

    #[test]
    fn a_rare_kind_is_not_crowded_out() {
        let mut many = events(Kind::Processed, 1_000);
        many.extend(events(Kind::Delivered, 1_000));
        many.extend(events(Kind::Dead, 1));
        let sample = sample(many);
        assert_eq!(sample.len(), SAMPLE_MAX);
        assert_eq!(count(&sample, Kind::Dead), 1);
        assert_eq!(count(&sample, Kind::Processed), 10);
        assert_eq!(count(&sample, Kind::Delivered), 9);
    }

    #[test]
    fn a_kind_is_spread_over_the_moment() {
        let sample = sample(events(Kind::Accepted, 200));
        let times: Vec<i64> = sample.iter().map(|event| event.at).collect();
        let wanted: Vec<i64> = (0..20).map(|n| n * 10).collect();
        assert_eq!(times, wanted);
    }
}
