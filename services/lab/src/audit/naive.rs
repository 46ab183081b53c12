//! A naive auditor, and the real one beside it on random ledgers.

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::class::Class;
use super::facts::Requests;
use super::made::{Made, answered, audit, dead, effect, offered, row};
use super::merge::MessageRow;
use super::verdict::{Circumstances, Counts};
use crate::run::requests::{Answer, Line};

/// Everything at once and in memory, by plain conditions: it knows neither the table nor the files.
fn naive(made: &Made, circumstances: &Circumstances) -> (Counts, Requests) {
    let mut classes: Vec<(Class, Option<u64>)> = Vec::new();
    let mut known = Vec::new();
    let mut requests = Requests::default();
    for line in &made.lines {
        let Line::Offered(request) = line else {
            continue;
        };
        let answer = made.lines.iter().find_map(|line| match line {
            Line::Answered(answered) if answered.number == request.number => Some(answered.answer),
            _ => None,
        });
        requests.offered += 1;
        requests.messages += u64::from(request.messages);
        match answer {
            Some(Answer::Accepted) => requests.accepted += 1,
            Some(Answer::Refused) => requests.refused += 1,
            _ => requests.unknown += 1,
        }
        let at = |row: &&MessageRow, position: u32| {
            row.number == Some(request.number) && i64::from(row.position) == i64::from(position)
        };
        let stored_at: Vec<Vec<Uuid>> = (0..request.messages)
            .map(|position| {
                made.messages
                    .iter()
                    .filter(|row| at(row, position))
                    .map(|row| row.id)
                    .collect()
            })
            .collect();
        let any_stored = stored_at.iter().any(|ids| !ids.is_empty());
        for ids in stored_at {
            let effects = made
                .effects
                .iter()
                .filter(|row| ids.contains(&row.id))
                .count();
            let parked = made.dead.iter().any(|row| ids.contains(&row.id));
            let class = if ids.is_empty() {
                match answer {
                    Some(Answer::Accepted) => Class::Lost,
                    Some(Answer::Refused) => Class::Refused,
                    _ if any_stored => Class::Lost,
                    _ => Class::Refused,
                }
            } else if answer == Some(Answer::Refused) {
                Class::Unexpected
            } else if ids.len() > 1 || effects > 1 {
                Class::Duplicated
            } else if effects == 1 {
                match answer {
                    Some(Answer::Accepted) => Class::Ok,
                    _ => Class::Recovered,
                }
            } else if parked {
                if request.poison {
                    Class::Parked
                } else {
                    Class::GivenUpWrongly
                }
            } else if circumstances.drained {
                Class::Lost
            } else if circumstances.stuck {
                Class::Stuck
            } else {
                Class::Pending
            };
            classes.push((class, Some(request.number)));
            known.extend(ids);
        }
    }
    let rows = made.messages.iter().map(|row| row.id);
    let ids = rows
        .chain(made.effects.iter().map(|row| row.id))
        .chain(made.dead.iter().map(|row| row.id));
    let mut strays: Vec<Uuid> = ids.filter(|id| !known.contains(id)).collect();
    strays.sort();
    strays.dedup();
    classes.extend(strays.iter().map(|_| (Class::Unexpected, None)));

    let wrong = classes
        .iter()
        .filter(|(class, _)| *class == Class::GivenUpWrongly)
        .count();
    let allowed = wrong as u64 <= circumstances.dead_max;
    let mut counts = Counts::default();
    let mut worst: BTreeMap<u64, Class> = BTreeMap::new();
    for (class, number) in classes {
        if let Some(number) = number {
            let worst = worst.entry(number).or_insert(class);
            *worst = class.min(*worst);
        }
        let class = if allowed && class == Class::GivenUpWrongly {
            Class::Parked
        } else {
            class
        };
        counts.entry(class).or_default().messages += 1;
    }
    for class in worst.into_values() {
        let class = if allowed && class == Class::GivenUpWrongly {
            Class::Parked
        } else {
            class
        };
        counts.entry(class).or_default().requests += 1;
    }
    (counts, requests)
}

/// One request of a random ledger: messages, poison, and its answer (none, or one of three).
type Request = (u32, bool, Option<u8>);
/// One row: id, number (of a request, of nobody, of another run), position.
type Stored = (u8, u64, i32);

fn random() -> impl Strategy<Value = (Made, Circumstances)> {
    let requests =
        prop::collection::vec((1..4_u32, any::<bool>(), prop::option::of(0..3_u8)), 0..25);
    let stored = prop::collection::vec((0..80_u8, 0..28_u64, -1..4_i32), 0..60);
    let effects = prop::collection::vec(0..90_u8, 0..70);
    let parked = prop::collection::vec(0..90_u8, 0..20);
    let around = (any::<bool>(), any::<bool>(), 0..4_u64, any::<u64>());
    (requests, stored, effects, parked, around).prop_map(
        |(requests, stored, effects, parked, around)| {
            let (drained, stuck, dead_max, seed) = around;
            let made = of_random(&requests, &stored, &effects, &parked, seed);
            let circumstances = Circumstances {
                drained,
                stuck,
                dead_max,
                ..Circumstances::default()
            };
            (made, circumstances)
        },
    )
}

fn of_random(
    requests: &[Request],
    stored: &[Stored],
    effects: &[u8],
    parked: &[u8],
    seed: u64,
) -> Made {
    // numbers far enough apart that each has a page to itself, or nearly
    let number = |nth: u64| nth * 97;
    let id = |small: u8| u128::from(u64::from(small).wrapping_mul(seed | 1));
    let mut made = Made::default();
    for (nth, (messages, poison, answer)) in (0..).zip(requests) {
        let line = answer.map(|answer| {
            let answers = [Answer::Accepted, Answer::Refused, Answer::Unknown];
            answered(number(nth), answers[usize::from(answer)])
        });
        // some answers far from their offers
        if nth % 3 == 0 {
            made.lines.splice(0..0, line);
            made.lines.push(offered(number(nth), *messages, *poison));
        } else {
            made.lines.push(offered(number(nth), *messages, *poison));
            made.lines.extend(line);
        }
    }
    // an id is a message once: the ledger's own key says so
    let rows: BTreeMap<u8, (u64, i32)> = stored
        .iter()
        .map(|(small, of, at)| (*small, (*of, *at)))
        .collect();
    for (small, (of, at)) in rows {
        made.messages
            .push(row(id(small), (of < 27).then(|| number(of)), at));
    }
    made.effects = effects.iter().map(|small| effect(id(*small))).collect();
    made.dead = parked.iter().map(|small| dead(id(*small))).collect();
    made
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_auditor_says_what_a_naive_one_says((made, circumstances) in random()) {
        let (counts, requests, _) = audit(&made, &circumstances);
        let right = naive(&made, &circumstances);
        prop_assert_eq!((counts, requests), right);
    }
}
