//! The auditor against hand-made ledgers, and against a naive one on random ledgers.

use std::collections::BTreeMap;

use futures::stream;
use proptest::prelude::*;
use uuid::Uuid;

use super::class::Class;
use super::facts::{Requests, Scatter};
use super::merge::{DeadRow, EffectRow, MessageRow, merge};
use super::verdict::{Circumstances, Counts, Told, Verdict, verdict};
use super::{Bench, Who};
use crate::run::requests::{Answer, Answered, Line, Offered, Recorder};
use crate::run::tests::Root;

/// All records of a run, made by hand.
#[derive(Debug, Clone, Default)]
struct Made {
    lines: Vec<Line>,
    messages: Vec<MessageRow>,
    effects: Vec<EffectRow>,
    dead: Vec<DeadRow>,
}

fn offered(number: u64, messages: u32, poison: bool) -> Line {
    Line::Offered(Offered {
        number,
        due_us: 0,
        messages,
        poison,
    })
}

fn answered(number: u64, answer: Answer) -> Line {
    Line::Answered(Answered {
        number,
        answer,
        tries: 1,
        done_us: 1,
    })
}

fn row(id: u128, number: Option<u64>, position: i32) -> MessageRow {
    MessageRow {
        id: Uuid::from_u128(id),
        number,
        position,
        accepted_us: 1,
    }
}

fn effect(id: u128) -> EffectRow {
    EffectRow {
        id: Uuid::from_u128(id),
        processed_us: 2,
        attempt: 1,
        redelivered: false,
    }
}

fn dead(id: u128) -> DeadRow {
    DeadRow {
        id: Uuid::from_u128(id),
        dead_us: 3,
    }
}

/// By the code under test, with so little memory that nearly everything is paged out.
fn audit(made: &Made, circumstances: &Circumstances) -> (Counts, Requests, Vec<Who>) {
    let root = Root::new();
    std::fs::create_dir_all(&root.0).unwrap();
    let mut bench = Bench::new(Scatter::small(&root.0).unwrap(), circumstances).unwrap();
    for line in &made.lines {
        bench.scatter.line(line).unwrap();
    }
    let Made {
        lines: _,
        mut messages,
        mut effects,
        mut dead,
    } = made.clone();
    messages.sort_by_key(|row| row.id);
    effects.sort_by_key(|row| row.id);
    dead.sort_by_key(|row| row.id);
    let merging = merge(
        stream::iter(messages.into_iter().map(Ok)),
        stream::iter(effects.into_iter().map(Ok)),
        stream::iter(dead.into_iter().map(Ok)),
        &mut bench,
    );
    futures::executor::block_on(merging).unwrap();
    let requests = bench.judge().unwrap();
    assert_eq!(bench.scatter.damaged(), 0);
    (bench.counts, requests, bench.suspects.names())
}

fn drained() -> Circumstances {
    Circumstances {
        drained: true,
        ..Circumstances::default()
    }
}

/// How the ids of a ledger stand to the numbers of its requests.
#[derive(Debug, Clone, Copy)]
enum Order {
    Same,
    Reverse,
    Scattered,
}

const ORDERS: [Order; 3] = [Order::Same, Order::Reverse, Order::Scattered];
/// An id that sorts before, between and behind those of a healthy ledger.
const STRAYS: [u128; 3] = [0, 1_000_001, u128::MAX];

fn id(order: Order, number: u64, position: u32) -> u128 {
    let nth = u128::from(number) * 10 + u128::from(position);
    2 * match order {
        Order::Same => 1 + nth,
        Order::Reverse => 1_000_000 - nth,
        // a prime that does not divide: every number once
        Order::Scattered => 1 + nth * 7_919 % 999_983,
    }
}

/// All accepted and processed once.
fn healthy(requests: u64, batch: u32, order: Order) -> Made {
    let mut made = Made::default();
    for number in 0..requests {
        made.lines.push(offered(number, batch, false));
        made.lines.push(answered(number, Answer::Accepted));
        for position in 0..batch {
            let id = id(order, number, position);
            made.messages
                .push(row(id, Some(number), position.cast_signed()));
            made.effects.push(effect(id));
        }
    }
    made
}

impl Made {
    fn without_effect(&mut self, id: u128) {
        self.effects.retain(|row| row.id != Uuid::from_u128(id));
    }

    fn without_row(&mut self, id: u128) {
        self.messages.retain(|row| row.id != Uuid::from_u128(id));
    }

    fn without_answer(&mut self, number: u64) {
        self.lines
            .retain(|line| !matches!(line, Line::Answered(answered) if answered.number == number));
    }

    fn poison(&mut self, number: u64) {
        for line in &mut self.lines {
            if let Line::Offered(offered) = line
                && offered.number == number
            {
                offered.poison = true;
            }
        }
    }
}

/// What can be wrong with one request (or right in another way): the harm that is done to one of its messages, by its
/// number and id and an id that nobody has; and what must be counted of the request then.
type Harm = (
    &'static str,
    fn(&mut Made, u64, u128, u128),
    Circumstances,
    fn(u32) -> Vec<(Class, u64)>,
);

fn harms() -> Vec<Harm> {
    let busy = Circumstances::default();
    let stuck = Circumstances {
        stuck: true,
        ..Circumstances::default()
    };
    vec![
        (
            "no effect",
            |made, _, id, _| made.without_effect(id),
            drained(),
            |batch| vec![(Class::Lost, 1), (Class::Ok, u64::from(batch - 1))],
        ),
        (
            "not stored",
            |made, _, id, _| {
                made.without_effect(id);
                made.without_row(id);
            },
            drained(),
            |batch| vec![(Class::Lost, 1), (Class::Ok, u64::from(batch - 1))],
        ),
        (
            "row deleted",
            |made, _, id, _| made.without_row(id),
            drained(),
            |batch| {
                vec![
                    (Class::Lost, 1),
                    (Class::Unexpected, 1),
                    (Class::Ok, u64::from(batch - 1)),
                ]
            },
        ),
        (
            "two effects of one id",
            |made, _, id, _| made.effects.push(effect(id)),
            drained(),
            |batch| vec![(Class::Duplicated, 1), (Class::Ok, u64::from(batch - 1))],
        ),
        (
            "300 effects of one id",
            |made, _, id, _| {
                made.effects.extend(std::iter::repeat_n(effect(id), 299));
            },
            drained(),
            |batch| vec![(Class::Duplicated, 1), (Class::Ok, u64::from(batch - 1))],
        ),
        (
            "one request under two ids",
            |made, number, id, stray| {
                let position = made
                    .messages
                    .iter()
                    .find(|row| row.id == Uuid::from_u128(id))
                    .unwrap()
                    .position;
                made.messages.push(row(stray, Some(number), position));
                made.effects.push(effect(stray));
            },
            drained(),
            |batch| vec![(Class::Duplicated, 1), (Class::Ok, u64::from(batch - 1))],
        ),
        (
            "stored twice, processed once",
            |made, number, id, stray| {
                let position = made
                    .messages
                    .iter()
                    .find(|row| row.id == Uuid::from_u128(id))
                    .unwrap()
                    .position;
                made.messages.push(row(stray, Some(number), position));
            },
            drained(),
            |batch| vec![(Class::Duplicated, 1), (Class::Ok, u64::from(batch - 1))],
        ),
        (
            "an effect without a message",
            |made, _, _, stray| made.effects.push(effect(stray)),
            drained(),
            |batch| vec![(Class::Unexpected, 1), (Class::Ok, u64::from(batch))],
        ),
        (
            "a dead letter without a message",
            |made, _, _, stray| made.dead.push(dead(stray)),
            drained(),
            |batch| vec![(Class::Unexpected, 1), (Class::Ok, u64::from(batch))],
        ),
        (
            "a message that was never offered",
            |made, _, _, stray| {
                made.messages.push(row(stray, Some(4_000_000), 0));
                made.effects.push(effect(stray));
            },
            drained(),
            |batch| vec![(Class::Unexpected, 1), (Class::Ok, u64::from(batch))],
        ),
        (
            "a message behind the last of its request",
            |made, number, _, stray| {
                made.messages.push(row(stray, Some(number), 9));
            },
            drained(),
            |batch| vec![(Class::Unexpected, 1), (Class::Ok, u64::from(batch))],
        ),
        (
            "a message with a key of nobody",
            |made, _, _, stray| made.messages.push(row(stray, None, 0)),
            drained(),
            |batch| vec![(Class::Unexpected, 1), (Class::Ok, u64::from(batch))],
        ),
        (
            "an effect of a refused request",
            |made, number, _, _| {
                made.without_answer(number);
                made.lines.push(answered(number, Answer::Refused));
            },
            drained(),
            |batch| vec![(Class::Unexpected, u64::from(batch))],
        ),
        (
            "no answer",
            |made, number, _, _| made.without_answer(number),
            drained(),
            |batch| vec![(Class::Recovered, u64::from(batch))],
        ),
        (
            "an answer that says nothing",
            |made, number, _, _| {
                made.without_answer(number);
                made.lines.insert(0, answered(number, Answer::Unknown));
            },
            drained(),
            |batch| vec![(Class::Recovered, u64::from(batch))],
        ),
        (
            "poison, parked",
            |made, number, id, _| {
                made.poison(number);
                made.without_effect(id);
                made.dead.push(dead(id));
            },
            drained(),
            |batch| vec![(Class::Parked, 1), (Class::Ok, u64::from(batch - 1))],
        ),
        (
            "parked and processed",
            |made, _, id, _| made.dead.push(dead(id)),
            drained(),
            |batch| vec![(Class::Ok, u64::from(batch))],
        ),
        (
            "given up wrongly",
            |made, _, id, _| {
                made.without_effect(id);
                made.dead.push(dead(id));
            },
            drained(),
            |batch| {
                vec![
                    (Class::GivenUpWrongly, 1),
                    (Class::Ok, u64::from(batch - 1)),
                ]
            },
        ),
        (
            "given up wrongly, and it may be",
            |made, _, id, _| {
                made.without_effect(id);
                made.dead.push(dead(id));
                made.dead.push(dead(id));
            },
            Circumstances {
                dead_max: 1,
                ..drained()
            },
            |batch| vec![(Class::Parked, 1), (Class::Ok, u64::from(batch - 1))],
        ),
        (
            "still on its way",
            |made, _, id, _| made.without_effect(id),
            busy,
            |batch| vec![(Class::Pending, 1), (Class::Ok, u64::from(batch - 1))],
        ),
        (
            "still on its way, for long",
            |made, _, id, _| made.without_effect(id),
            stuck,
            |batch| vec![(Class::Stuck, 1), (Class::Ok, u64::from(batch - 1))],
        ),
    ]
}

/// The first and last request of pages, by heads (256 on a page) and by places (1,024 on a page).
const EDGES: [u64; 9] = [0, 1, 255, 256, 341, 512, 1_023, 1_024, 1_099];
const REQUESTS: u64 = 1_100;

#[test]
fn a_healthy_ledger_passes() {
    for order in ORDERS {
        for batch in [1, 3] {
            let made = healthy(REQUESTS, batch, order);
            let (counts, requests, names) = audit(&made, &drained());
            let messages = REQUESTS * u64::from(batch);
            assert_eq!((requests.offered, requests.messages), (REQUESTS, messages));
            assert_eq!(requests.accepted, REQUESTS);
            assert_eq!(counts.keys().collect::<Vec<_>>(), [&Class::Ok]);
            assert_eq!(
                (counts[&Class::Ok].messages, counts[&Class::Ok].requests),
                (messages, REQUESTS)
            );
            assert_eq!(names, []);
            assert_eq!(verdict(&counts, &drained()).0, Verdict::Pass);
        }
    }
}

#[test]
fn one_harm_is_found_wherever_it_is() {
    for order in ORDERS {
        for batch in [1, 3] {
            let made = healthy(REQUESTS, batch, order);
            for (what, harm, circumstances, expected) in harms() {
                for (nth, number) in EDGES.into_iter().enumerate() {
                    let position = u32::try_from(nth).unwrap() % batch;
                    let mut made = made.clone();
                    let stray = STRAYS[nth % STRAYS.len()];
                    harm(&mut made, number, id(order, number, position), stray);
                    let (counts, ..) = audit(&made, &circumstances);
                    let mut right: BTreeMap<Class, u64> = expected(batch).into_iter().collect();
                    *right.entry(Class::Ok).or_default() += (REQUESTS - 1) * u64::from(batch);
                    let found: BTreeMap<Class, u64> = counts
                        .iter()
                        .map(|(class, count)| (*class, count.messages))
                        .collect();
                    assert_eq!(
                        found, right,
                        "{what} at {number}.{position} of {batch}, {order:?}"
                    );
                    let fails = right.keys().any(|class| class.fails());
                    let failed = verdict(&counts, &circumstances).0 == Verdict::Fail;
                    assert_eq!(failed, fails, "{what}");
                }
            }
        }
    }
}

#[test]
fn the_culprit_is_named() {
    let mut made = healthy(REQUESTS, 1, Order::Scattered);
    made.without_effect(id(Order::Scattered, 513, 0));
    made.effects.push(effect(1));
    let (_, _, names) = audit(&made, &drained());
    let lost = super::facts::Place {
        number: 513,
        position: 0,
    };
    assert_eq!(names, [Who::Offered(lost), Who::Stray(Uuid::from_u128(1))]);
}

#[test]
fn a_part_of_a_request_is_not_enough_whatever_the_client_was_told() {
    let mut made = healthy(3, 3, Order::Same);
    made.without_answer(1);
    made.without_effect(id(Order::Same, 1, 2));
    made.without_row(id(Order::Same, 1, 2));
    let (counts, ..) = audit(&made, &drained());
    assert_eq!(counts[&Class::Lost].messages, 1);
    assert_eq!(counts[&Class::Recovered].messages, 2);
    // the request counts as what is worst of it
    assert_eq!(
        (
            counts[&Class::Lost].requests,
            counts[&Class::Recovered].requests
        ),
        (1, 0)
    );
}

#[test]
fn streams_that_are_not_in_order_are_an_error() {
    let root = Root::new();
    std::fs::create_dir_all(&root.0).unwrap();
    let mut bench = Bench::new(Scatter::small(&root.0).unwrap(), &drained()).unwrap();
    let rows = [row(2, Some(0), 0), row(1, Some(1), 0)];
    let merging = merge(
        stream::iter(rows.map(Ok)),
        stream::iter([]),
        stream::iter([]),
        &mut bench,
    );
    assert!(futures::executor::block_on(merging).is_err());
    let broken = stream::iter([Ok(effect(1)), Err(anyhow::anyhow!("connection reset"))]);
    let merging = merge(stream::iter([]), broken, stream::iter([]), &mut bench);
    let error = futures::executor::block_on(merging)
        .unwrap_err()
        .to_string();
    assert!(error.contains("connection reset"), "{error}");
}

#[test]
fn lines_that_contradict_each_other_are_counted() {
    let root = Root::new();
    std::fs::create_dir_all(&root.0).unwrap();
    let mut scatter = Scatter::small(&root.0).unwrap();
    for line in [
        offered(0, 1, false),
        offered(0, 1, false),
        answered(0, Answer::Accepted),
        answered(0, Answer::Refused),
        answered(7, Answer::Accepted),
        offered(u64::MAX, 1, false),
        answered(u64::MAX, Answer::Accepted),
    ] {
        scatter.line(&line).unwrap();
    }
    let requests = scatter.each(|_, _, _| {}).unwrap();
    assert_eq!((requests.offered, requests.accepted), (1, 1));
    assert_eq!(scatter.damaged(), 5);
}

#[test]
fn offers_that_come_late_count_and_answers_that_come_late_do_not() {
    let root = Root::new();
    let run = root.run("r1");
    let log = run.path(crate::run::requests::FILE);
    let mut scatter = Scatter::small(&run.path("")).unwrap();
    assert_eq!(super::length(&log).unwrap(), 0);
    let mut recorder = Recorder::create(&run).unwrap();
    recorder
        .append(&[
            offered(0, 1, false),
            offered(1, 1, false),
            answered(0, Answer::Accepted),
        ])
        .unwrap();
    let lines = super::read_all(&log, &mut scatter).unwrap();
    recorder
        .append(&[
            answered(1, Answer::Accepted),
            offered(2, 1, false),
            answered(2, Answer::Refused),
        ])
        .unwrap();
    super::read_offers(&log, lines, &mut scatter).unwrap();
    let mut told = Vec::new();
    scatter.each(|_, facts, _| told.push(facts.told)).unwrap();
    assert_eq!(told, [Told::Accepted, Told::Unknown, Told::Unknown]);
    assert_eq!(scatter.damaged(), 0);
}

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
