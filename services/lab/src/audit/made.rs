//! Ledgers made by hand, and the audit of one.

use futures::stream;
use uuid::Uuid;

use super::facts::{Requests, Scatter};
use super::merge::{Dead, DeadRow, EffectRow, MessageRow, merge};
use super::verdict::{Circumstances, Counts};
use super::{Bench, Who};
use crate::run::requests::{Answer, Answered, Line, Offered};
use crate::run::tests::Root;

/// All records of a run, made by hand.
#[derive(Debug, Clone, Default)]
pub(super) struct Made {
    pub(super) lines: Vec<Line>,
    pub(super) messages: Vec<MessageRow>,
    pub(super) effects: Vec<EffectRow>,
    pub(super) dead: Vec<DeadRow>,
}

pub(super) fn offered(number: u64, messages: u32, poison: bool) -> Line {
    Line::Offered(Offered {
        number,
        due_us: 0,
        messages,
        poison,
    })
}

pub(super) fn answered(number: u64, answer: Answer) -> Line {
    Line::Answered(Answered {
        number,
        answer,
        tries: 1,
        done_us: 1,
    })
}

pub(super) fn row(id: u128, number: Option<u64>, position: i32) -> MessageRow {
    MessageRow {
        id: Uuid::from_u128(id),
        number,
        position,
        accepted_us: 1,
    }
}

pub(super) fn effect(id: u128) -> EffectRow {
    EffectRow {
        id: Uuid::from_u128(id),
        processed_us: 2,
        attempt: 1,
        redelivered: false,
    }
}

pub(super) fn dead(id: u128) -> DeadRow {
    DeadRow {
        id: Uuid::from_u128(id),
        dead_us: 3,
        now: Dead::Parked,
    }
}

/// By the code under test, with so little memory that nearly everything is paged out.
pub(super) fn audit(made: &Made, circumstances: &Circumstances) -> (Counts, Requests, Vec<Who>) {
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

pub(super) fn drained() -> Circumstances {
    Circumstances {
        drained: true,
        ..Circumstances::default()
    }
}

/// How the ids of a ledger stand to the numbers of its requests.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Same,
    Reverse,
    Scattered,
}

pub(super) const ORDERS: [Order; 3] = [Order::Same, Order::Reverse, Order::Scattered];
/// An id that sorts before, between and behind those of a healthy ledger.
pub(super) const STRAYS: [u128; 3] = [0, 1_000_001, u128::MAX];

pub(super) fn id(order: Order, number: u64, position: u32) -> u128 {
    let nth = u128::from(number) * 10 + u128::from(position);
    2 * match order {
        Order::Same => 1 + nth,
        Order::Reverse => 1_000_000 - nth,
        // a prime that does not divide: every number once
        Order::Scattered => 1 + nth * 7_919 % 999_983,
    }
}

/// All accepted and processed once.
pub(super) fn healthy(requests: u64, batch: u32, order: Order) -> Made {
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
    pub(super) fn without_effect(&mut self, id: u128) {
        self.effects.retain(|row| row.id != Uuid::from_u128(id));
    }

    pub(super) fn without_row(&mut self, id: u128) {
        self.messages.retain(|row| row.id != Uuid::from_u128(id));
    }

    pub(super) fn without_answer(&mut self, number: u64) {
        self.lines
            .retain(|line| !matches!(line, Line::Answered(answered) if answered.number == number));
    }

    /// The same message of the same request once more, under another id.
    pub(super) fn store_again(&mut self, id: u128, other: u128) {
        let mut rows = self.messages.iter();
        let row = rows.find(|row| row.id == Uuid::from_u128(id)).unwrap();
        let again = MessageRow {
            id: Uuid::from_u128(other),
            ..*row
        };
        self.messages.push(again);
    }

    pub(super) fn give_up(&mut self, id: u128) {
        self.without_effect(id);
        self.dead.push(dead(id));
    }

    pub(super) fn poison(&mut self, number: u64) {
        for line in &mut self.lines {
            if let Line::Offered(offered) = line
                && offered.number == number
            {
                offered.poison = true;
            }
        }
    }
}
