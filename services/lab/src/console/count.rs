//! Rows of tables that only grow: each is counted once, by its number, and for its run.
//!
//! A number is taken when a row is written, and its transaction may commit later than that of a higher one. So a row that is
//! some seconds old proves nothing of the lower numbers until every transaction is over that ran when it was seen: those
//! have taken theirs by then. Up to there rows are added to what stands; what is newer is counted anew each time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;
use sqlx::{Postgres, Transaction};

/// So many rows are added at once.
const PAGE: i64 = 100_000;
/// So many runs are told apart: the newest.
const RUNS_MAX: usize = 1_000;
/// So many others are remembered as such. Beyond that no further run is told apart.
const OTHERS_MAX: usize = 1_000_000;

/// Whose rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    /// Of no run.
    Nobody,
    Run(String),
    /// Of older runs, together.
    Others,
}

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub rows: i64,
    /// Beyond the first of a message.
    pub again: i64,
}

impl Count {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            again: self.again + other.again,
        }
    }
}

pub type Counts = BTreeMap<Of, Count>;

/// A run, its rows, those beyond the first of a message, the lowest number.
pub type Row = (Option<String>, i64, i64, i64);

/// The runs that are told apart: those whose first message is the newest. Messages decide, and hold for every table.
#[derive(Debug, Default)]
pub struct Runs {
    first: HashMap<String, i64>,
    order: BTreeSet<(i64, String)>,
    /// What was counted of these is with the others, so they never come back; by hash.
    others: HashSet<u64>,
}

fn hash(run: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    run.hash(&mut hasher);
    hasher.finish()
}

impl Runs {
    /// Messages from this number on are of this run. Gives the run that is among the others from now on.
    fn see(&mut self, run: &str, number: i64) -> Option<String> {
        let full = self.first.len() >= RUNS_MAX;
        if self.first.contains_key(run)
            || self.is_other(run)
            || (full && self.others.len() >= OTHERS_MAX)
        {
            return None;
        }
        self.first.insert(run.to_owned(), number);
        self.order.insert((number, run.to_owned()));
        if !full {
            return None;
        }
        let (_, oldest) = self.order.pop_first()?;
        self.first.remove(&oldest);
        self.others.insert(hash(&oldest));
        Some(oldest)
    }

    /// Whether it was counted, and is not told apart.
    pub fn is_other(&self, run: &str) -> bool {
        self.others.contains(&hash(run))
    }

    /// Whether it is told apart.
    pub fn is_named(&self, run: &str) -> bool {
        self.first.contains_key(run)
    }

    /// The newest first.
    pub fn newest(&self, most: usize) -> Vec<String> {
        let newest = self.order.iter().rev().take(most);
        newest.map(|(_, run)| run.clone()).collect()
    }

    /// Where rows of this run belong.
    pub fn of(&self, run: Option<String>) -> Of {
        match run {
            None => Of::Nobody,
            Some(run) if self.is_named(&run) => Of::Run(run),
            Some(_) => Of::Others,
        }
    }

    /// Adds what was read.
    pub fn add(&self, counts: &mut Counts, rows: Vec<Row>) {
        for (run, rows, again, _) in rows {
            let count = counts.entry(self.of(run)).or_default();
            count.rows += rows;
            count.again += again;
        }
    }
}

/// What is asked of a table.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The newest number whose row is some seconds old.
    old: &'static str,
    /// From one number to another.
    settled: &'static str,
    /// From a number on.
    fresh: &'static str,
}

/// What was accepted.
pub const MESSAGE: Asked = Asked {
    old: "select number from sender.message where accepted_at < clock_timestamp() - interval '20 s'
          order by number desc limit 1",
    settled: "select run, count(*), 0::bigint, min(number) from sender.message
              where number > $1 and number <= $2 group by run order by 4",
    fresh: "select run, count(*), 0::bigint, min(number) from sender.message where number > $1 group by run order by 4",
};
/// Effects. Numbers below zero are of pruned rows. Whether there was an earlier effect of the message is asked once for each
/// row; among the newest only each other are compared.
pub const PROCESSED: Asked = Asked {
    old: "select processed_id from receiver.processed
          where processed_id > 0 and processed_at < clock_timestamp() - interval '20 s' order by processed_id desc limit 1",
    settled: "select run, count(*), count(*) filter (where exists (
                  select from receiver.processed e
                   where e.message_id = p.message_id and e.processed_id > 0 and e.processed_id < p.processed_id)), 0::bigint
              from receiver.processed p where processed_id > $1 and processed_id <= $2 group by run",
    fresh: "select run, count(*), count(*) - count(distinct message_id), 0::bigint
            from receiver.processed where processed_id > $1 group by run",
};

/// Transactions as a moment sees them: all below the first are over, none has begun from the second on.
#[derive(Debug, Clone, Copy)]
pub struct Horizon {
    pub over_below: i64,
    pub next: i64,
}

/// A table, and how far it was counted.
#[derive(Debug)]
pub struct Table {
    asked: Asked,
    /// All rows up to this number are in `counted`.
    below: i64,
    counted: Counts,
    /// Up to this number nothing can come any more.
    proven: i64,
    /// Up to this one neither, once all transactions before that one are over.
    candidate: Option<(i64, i64)>,
    /// It was counted to its end once.
    complete: bool,
}

/// Rows of a table, as they are added to it.
pub struct Page {
    to: i64,
    settled: Vec<Row>,
    /// None: older ones come first.
    fresh: Option<Vec<Row>>,
}

impl Table {
    pub fn new(asked: Asked) -> Self {
        Self {
            asked,
            below: 0,
            counted: Counts::new(),
            proven: 0,
            candidate: None,
            complete: false,
        }
    }

    /// The next rows, as of the transaction's moment.
    pub async fn read(
        &mut self,
        moment: &mut Transaction<'_, Postgres>,
        horizon: Horizon,
    ) -> Result<Page> {
        let old = sqlx::query_scalar(self.asked.old);
        let old: Option<i64> = old.fetch_optional(&mut **moment).await?;
        self.prove(old.unwrap_or(0), horizon);
        let to = self.proven.min(self.below + PAGE).max(self.below);
        let mut settled = Vec::new();
        if to > self.below {
            let page = sqlx::query_as(self.asked.settled).bind(self.below).bind(to);
            settled = page.fetch_all(&mut **moment).await?;
        }
        let mut fresh = None;
        if self.is_near(to) {
            let rows = sqlx::query_as(self.asked.fresh).bind(to);
            fresh = Some(rows.fetch_all(&mut **moment).await?);
        }
        Ok(Page { to, settled, fresh })
    }

    /// `old` is a number whose row is some seconds old.
    fn prove(&mut self, old: i64, horizon: Horizon) {
        if let Some((number, before)) = self.candidate
            && horizon.over_below >= before
        {
            self.proven = number;
            self.candidate = None;
        }
        if self.candidate.is_none() && old > self.proven {
            self.candidate = Some((old, horizon.next));
        }
    }

    /// Whether all from there on is few enough to be counted each time. At the start what is old is waited for.
    fn is_near(&self, to: i64) -> bool {
        let waits = self.candidate.is_some_and(|(number, _)| number - to > PAGE);
        to == self.proven && (self.complete || !waits)
    }

    /// Adds rows; gives all of them, or none while older ones are missing.
    pub fn add(&mut self, page: Page, runs: &Runs) -> Option<Counts> {
        runs.add(&mut self.counted, page.settled);
        self.below = page.to;
        let mut all = self.counted.clone();
        runs.add(&mut all, page.fresh?);
        self.complete = true;
        Some(all)
    }

    /// The run is no longer told apart.
    fn merge_with_others(&mut self, run: &str) {
        if let Some(count) = self.counted.remove(&Of::Run(run.to_owned())) {
            let others = self.counted.entry(Of::Others).or_default();
            others.rows += count.rows;
            others.again += count.again;
        }
    }
}

/// Takes in whose messages these are, before they are added.
pub fn name(page: &Page, runs: &mut Runs, tables: [&mut Table; 2]) {
    let [message, processed] = tables;
    for (run, _, _, first) in page.settled.iter().chain(page.fresh.iter().flatten()) {
        let Some(run) = run else { continue };
        if let Some(other) = runs.see(run, *first) {
            message.merge_with_others(&other);
            processed.merge_with_others(&other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(run: &str, rows: i64, first: i64) -> Row {
        (Some(run.to_owned()), rows, 0, first)
    }

    fn page(to: i64, settled: Vec<Row>, fresh: Vec<Row>) -> Page {
        Page {
            to,
            settled,
            fresh: Some(fresh),
        }
    }

    #[test]
    fn the_newest_runs_are_told_apart_in_every_table_and_the_rest_adds_up() {
        let (mut runs, mut message, mut processed) =
            (Runs::default(), Table::new(MESSAGE), Table::new(PROCESSED));
        let old: Vec<Row> = (0..1_000)
            .map(|n| rows(&format!("r{n}"), 2, 1 + 2 * n))
            .collect();
        let first = page(2_000, old, Vec::new());
        name(&first, &mut runs, [&mut message, &mut processed]);
        message.add(first, &runs).unwrap();
        let effects = vec![rows("r0", 1, 0), rows("r1", 1, 0), rows("r999", 2, 0)];
        processed.add(page(4, effects, Vec::new()), &runs).unwrap();
        // the 1,001st, and one that is called as what is left is
        let second = page(
            2_005,
            vec![rows("z", 3, 2_001)],
            vec![rows("others", 2, 2_004)],
        );
        name(&second, &mut runs, [&mut message, &mut processed]);
        let accepted = message.add(second, &runs).unwrap();
        let late = page(6, vec![rows("r0", 1, 0), rows("z", 1, 0)], Vec::new());
        let effects = processed.add(late, &runs).unwrap();
        let of = |counts: &Counts, of: Of| counts.get(&of).map_or(0, |count| count.rows);
        let run = |name: &str| Of::Run(name.to_owned());
        assert_eq!(of(&accepted, Of::Others), 4, "r0 and r1");
        assert_eq!(of(&effects, Of::Others), 3);
        assert_eq!([of(&accepted, run("z")), of(&effects, run("z"))], [3, 1]);
        assert_eq!(of(&accepted, run("others")), 2);
        assert_eq!([of(&accepted, run("r0")), of(&effects, run("r0"))], [0, 0]);
        assert_eq!(
            accepted.values().map(|count| count.rows).sum::<i64>(),
            2_005
        );
        assert_eq!(runs.newest(2), ["others", "z"]);
        // it goes on, and stays with the others
        let third = page(2_006, vec![rows("r0", 1, 2_006)], Vec::new());
        name(&third, &mut runs, [&mut message, &mut processed]);
        assert_eq!(of(&message.add(third, &runs).unwrap(), Of::Others), 5);
        assert!(runs.is_other("r0") && runs.is_named("r999"));
    }

    #[test]
    fn only_what_no_transaction_can_add_to_is_counted_for_good() {
        let mut table = Table::new(MESSAGE);
        let at = |over_below, next| Horizon { over_below, next };
        table.prove(0, at(7, 9));
        assert_eq!((table.proven, table.candidate), (0, None));
        table.prove(50, at(7, 9));
        // one that began before is still going on
        table.prove(80, at(8, 12));
        assert_eq!((table.proven, table.candidate), (0, Some((50, 9))));
        table.prove(90, at(9, 15));
        assert_eq!((table.proven, table.candidate), (50, Some((90, 15))));
    }

    #[test]
    fn a_large_table_is_counted_page_by_page_from_its_start() {
        let mut table = Table::new(MESSAGE);
        assert!(table.is_near(0), "nothing is old");
        table.candidate = Some((10 * PAGE, 5));
        assert!(!table.is_near(0), "it waits for a transaction");
        table.proven = 10 * PAGE;
        table.candidate = None;
        assert!(!table.is_near(PAGE) && table.is_near(10 * PAGE));
        table.complete = true;
        table.candidate = Some((20 * PAGE, 5));
        assert!(
            table.is_near(10 * PAGE),
            "a transaction that stays open stops no count"
        );
    }
}
