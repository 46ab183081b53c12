//! The auditor against hand-made ledgers.

use std::collections::BTreeMap;

use futures::stream;
use uuid::Uuid;

use super::class::Class;
use super::facts::Scatter;
use super::made::{
    Made, ORDERS, Order, STRAYS, answered, audit, dead, drained, effect, healthy, id, offered, row,
};
use super::merge::merge;
use super::verdict::{Circumstances, Told, Verdict, verdict};
use super::{Bench, Who};
use crate::run::requests::{Answer, Recorder};
use crate::run::tests::Root;

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
            |made, _, id, stray| {
                made.store_again(id, stray);
                made.effects.push(effect(stray));
            },
            drained(),
            |batch| vec![(Class::Duplicated, 1), (Class::Ok, u64::from(batch - 1))],
        ),
        (
            "stored twice, processed once",
            |made, _, id, stray| {
                made.store_again(id, stray);
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
                made.give_up(id);
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
                made.give_up(id);
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
                made.give_up(id);
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
