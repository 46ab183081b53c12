//! The running balance: accepted = processed + parked + waiting (+ lost), in all and of each run.
//!
//! Rows are counted once, in the order of their numbers, and never all of them each second. A number is taken when a row is
//! written, and its transaction may commit later than that of a higher one. So the numbers of the last twenty seconds are
//! counted anew each time, and only what is older is added to what stands: no transaction of a service lasts that long, by
//! limits that the database itself enforces. All counts are of one moment.
//!
//! *Waiting* is what is neither processed nor parked. *Lost* is only what an audit of the run has proven, and is then not
//! waiting. What a pruning removes makes the counts begin anew.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use daemon::clock;
use daemon::database::within;
use serde::Serialize;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::audit::class::Class;
use crate::audit::{Report, report};
use crate::run::RunDir;

/// No transaction of a service is older: a statement ends after 10 s, and a pause between two after 5 s.
const SETTLED: Duration = Duration::from_secs(20);
/// At the start, the newest so many may still be on their way.
const FRESH: i64 = 100_000;
/// So many rows are added at once.
const PAGE: i64 = 100_000;
/// So many runs are told apart; the others are counted together.
const RUNS_MAX: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(10);
const AUDITS_EVERY: Duration = Duration::from_secs(5);
const OTHERS: &str = "others";

/// How it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// None: of all messages.
    pub run: Option<String>,
    pub accepted: i64,
    pub processed: i64,
    pub parked: i64,
    pub waiting: i64,
    pub lost: i64,
    /// Effects beyond the first of a message: there should be none.
    pub again: i64,
    /// Milliseconds since 1970; none: nothing was counted yet.
    pub as_of: Option<i64>,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Balances {
    pub all: Balance,
    /// By the names of runs.
    pub runs: BTreeMap<String, Balance>,
    /// Older rows are still being added: what is said of all is too little.
    pub counting: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    rows: i64,
    again: i64,
}

type Counts = BTreeMap<Option<String>, Count>;

/// One table whose rows have numbers.
struct Table {
    top: &'static str,
    settled: &'static str,
    fresh: &'static str,
    /// All rows up to this number are in `counted`.
    below: i64,
    counted: Counts,
    /// The highest number, at times of the last [`SETTLED`].
    tops: VecDeque<(Instant, i64)>,
}

/// What was accepted.
const MESSAGE: [&str; 3] = [
    "select coalesce(max(number), 0) from sender.message",
    "select run, count(*), 0::bigint from sender.message where number > $1 and number <= $2 group by run",
    "select run, count(*), 0::bigint from sender.message where number > $1 group by run",
];
/// Effects. Numbers below zero are of pruned rows. Whether there was an earlier effect of the message is asked once for each
/// row; among the newest only each other are compared.
const PROCESSED: [&str; 3] = [
    "select coalesce(max(processed_id), 0) from receiver.processed",
    "select run, count(*), count(*) filter (where exists (
         select from receiver.processed e where e.message_id = p.message_id and e.processed_id > 0 and e.processed_id < p.processed_id))
     from receiver.processed p where processed_id > $1 and processed_id <= $2 group by run",
    "select run, count(*), count(*) - count(distinct message_id) from receiver.processed where processed_id > $1 group by run",
];
/// Those that also have an effect count as processed, and what was sent back is on its way again. What is not of ours was
/// never accepted.
const PARKED: &str = "select m.run, count(distinct d.message_id), 0::bigint
     from receiver.dead_letter d join sender.message m using (message_id)
     where d.state in ('parked', 'discarded')
       and not exists (select from receiver.processed p where p.message_id = d.message_id) group by m.run";
/// Rows that a pruning took: elsewhere nothing is removed.
const REMOVED: &str = "select coalesce(sum(n_tup_del), 0)::bigint from pg_stat_all_tables
     where schemaname in ('sender', 'receiver') and relname in ('message', 'processed')";

impl Table {
    fn new([top, settled, fresh]: [&'static str; 3]) -> Self {
        Self {
            top,
            settled,
            fresh,
            below: 0,
            counted: Counts::new(),
            tops: VecDeque::new(),
        }
    }

    /// The highest number so far up to which nothing can come any more.
    fn boundary(&mut self, now: Instant, top: i64) -> i64 {
        self.tops.push_back((now, top));
        let mut settled = 0;
        while let Some((at, top)) = self.tops.front()
            && now.duration_since(*at) >= SETTLED
        {
            settled = *top;
            self.tops.pop_front();
        }
        settled.max(top - FRESH).max(self.below)
    }

    /// Everything as of the transaction's moment, and whether that is all.
    async fn count(&mut self, moment: &mut Transaction<'_, Postgres>) -> Result<(Counts, bool)> {
        let top: i64 = sqlx::query_scalar(self.top)
            .fetch_one(&mut **moment)
            .await?;
        let boundary = self.boundary(Instant::now(), top);
        let to = boundary.min(self.below + PAGE);
        if to > self.below {
            let page = sqlx::query_as(self.settled).bind(self.below).bind(to);
            add(&mut self.counted, page.fetch_all(&mut **moment).await?);
            self.below = to;
        }
        let mut all = self.counted.clone();
        if to < boundary {
            return Ok((all, false));
        }
        let fresh = sqlx::query_as(self.fresh).bind(to);
        add(&mut all, fresh.fetch_all(&mut **moment).await?);
        Ok((all, true))
    }
}

fn add(counts: &mut Counts, rows: Vec<(Option<String>, i64, i64)>) {
    for (run, rows, again) in rows {
        let known = counts.contains_key(&run) || counts.len() < RUNS_MAX;
        let run = if known { run } else { Some(OTHERS.to_owned()) };
        let count = counts.entry(run).or_default();
        count.rows += rows;
        count.again += again;
    }
}

/// Who counts.
pub struct Ledger {
    pool: PgPool,
    root: PathBuf,
    message: Table,
    processed: Table,
    removed: Option<i64>,
    lost: BTreeMap<String, i64>,
    audits_read: Option<Instant>,
}

impl Ledger {
    /// By the role that only reads; audits of runs lie in `root`.
    pub fn new(pool: PgPool, root: PathBuf) -> Self {
        Self {
            pool,
            root,
            message: Table::new(MESSAGE),
            processed: Table::new(PROCESSED),
            removed: None,
            lost: BTreeMap::new(),
            audits_read: None,
        }
    }

    /// Counts each second, or less often when counting takes long.
    pub async fn run(
        mut self,
        told: watch::Sender<Balances>,
        stop: CancellationToken,
    ) -> Result<()> {
        let counting = async {
            loop {
                let began = Instant::now();
                let mut pause = Duration::from_secs(1);
                match within(LIMIT, async { Ok(self.step().await) }).await {
                    Ok(Ok(balances)) => {
                        // older rows are added at once
                        if balances.counting {
                            pause = Duration::from_millis(50);
                        }
                        told.send_replace(balances);
                    }
                    // what was told keeps its time; the part says that the database is away
                    Ok(Err(error)) => tracing::debug!("not counted: {error:#}"),
                    Err(error) => tracing::debug!("not counted: {error:#}"),
                }
                sleep(
                    (began.elapsed() * 20)
                        .min(Duration::from_mins(1))
                        .max(pause),
                )
                .await;
            }
        };
        stop.run_until_cancelled(counting).await;
        Ok(())
    }

    /// Counts what came since the last step.
    pub async fn step(&mut self) -> Result<Balances> {
        let mut moment = self
            .pool
            .begin_with("begin isolation level repeatable read read only")
            .await?;
        let removed: i64 = sqlx::query_scalar(REMOVED).fetch_one(&mut *moment).await?;
        if self
            .removed
            .replace(removed)
            .is_some_and(|before| before != removed)
        {
            self.message = Table::new(MESSAGE);
            self.processed = Table::new(PROCESSED);
        }
        let (accepted, all) = self.message.count(&mut moment).await?;
        let (effects, all_effects) = self.processed.count(&mut moment).await?;
        let mut parked = Counts::new();
        add(
            &mut parked,
            sqlx::query_as(PARKED).fetch_all(&mut *moment).await?,
        );
        let as_of = clock::now().timestamp_millis();
        moment.commit().await?;
        self.read_audits(&accepted).await;
        Ok(balances(
            &accepted,
            &effects,
            &parked,
            &self.lost,
            (as_of, !(all && all_effects)),
        ))
    }

    /// What audits have proven, of the runs that are counted.
    async fn read_audits(&mut self, accepted: &Counts) {
        if self
            .audits_read
            .is_some_and(|at| at.elapsed() < AUDITS_EVERY)
        {
            return;
        }
        let names: Vec<String> = accepted.keys().flatten().rev().take(50).cloned().collect();
        let root = self.root.clone();
        let read = tokio::task::spawn_blocking(move || {
            let lost = |name: &String| {
                let run = RunDir::open(&root, &name.parse().ok()?).ok()?;
                let report: Report = run.read(report::FILE).ok()??;
                let lost = report.classes.get(&Class::Lost)?.messages;
                Some((name.clone(), i64::try_from(lost).ok()?))
            };
            names.iter().filter_map(lost).collect()
        });
        self.lost = read.await.unwrap_or_default();
        self.audits_read = Some(Instant::now());
    }
}

fn balances(
    accepted: &Counts,
    effects: &Counts,
    parked: &Counts,
    lost: &BTreeMap<String, i64>,
    (as_of, counting): (i64, bool),
) -> Balances {
    let of = |run: &Option<String>| {
        let effects = effects.get(run).copied().unwrap_or_default();
        let accepted = accepted.get(run).copied().unwrap_or_default().rows;
        let processed = effects.rows - effects.again;
        let parked = parked.get(run).copied().unwrap_or_default().rows;
        // what came after all is not lost, and waits no more
        let open = (accepted - processed - parked).max(0);
        let lost = run
            .as_ref()
            .and_then(|run| lost.get(run))
            .copied()
            .unwrap_or(0)
            .min(open);
        Balance {
            run: run.clone(),
            accepted,
            processed,
            parked,
            waiting: open - lost,
            lost,
            again: effects.again,
            as_of: Some(as_of),
        }
    };
    let mut told = Balances {
        counting,
        ..Balances::default()
    };
    told.all.as_of = Some(as_of);
    for run in accepted.keys() {
        let one = of(run);
        let all = &mut told.all;
        all.accepted += one.accepted;
        all.processed += one.processed;
        all.parked += one.parked;
        all.waiting += one.waiting;
        all.lost += one.lost;
        all.again += one.again;
        if let Some(name) = run {
            told.runs.insert(name.clone(), one);
        }
    }
    told
}

/// From accepted to processed, in milliseconds, of the newest effects above this number, and the number of the newest.
pub async fn latency(
    pool: &PgPool,
    above: Option<i64>,
) -> Result<(i64, Option<(f64, f64)>), sqlx::Error> {
    let newest =
        sqlx::query_scalar("select coalesce(max(processed_id), 0) from receiver.processed");
    let newest: i64 = within(LIMIT, newest.fetch_one(pool)).await?;
    let Some(above) = above.filter(|above| *above < newest) else {
        return Ok((newest, None));
    };
    let times = sqlx::query_as(
        "select percentile_disc(0.5) within group (order by ms), percentile_disc(0.99) within group (order by ms)
         from (select extract(epoch from processed_at - accepted_at)::float8 * 1000 as ms
               from (select message_id, processed_at from receiver.processed
                     where processed_id > $1 and processed_id <= $2 order by processed_id desc limit 500) p
               join sender.message using (message_id)) t",
    );
    let times = times.bind(above).bind(newest).fetch_one(pool);
    let (p50, p99): (Option<f64>, Option<f64>) = within(LIMIT, times).await?;
    let round = |ms: f64| (ms * 10.0).round() / 10.0;
    Ok((
        newest,
        p50.zip(p99).map(|(p50, p99)| (round(p50), round(p99))),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(Option<&str>, i64, i64)]) -> Counts {
        let mut counts = Counts::new();
        let rows = rows
            .iter()
            .map(|(run, rows, again)| (run.map(str::to_owned), *rows, *again));
        add(&mut counts, rows.collect());
        counts
    }

    #[test]
    fn every_accepted_message_is_somewhere_and_lost_is_only_what_was_proven() {
        let accepted = counts(&[(None, 5, 0), (Some("r1"), 10, 0)]);
        let effects = counts(&[(None, 5, 0), (Some("r1"), 7, 1)]);
        let parked = counts(&[(Some("r1"), 1, 0)]);
        let told = |lost: &[(&str, i64)]| {
            let lost = lost
                .iter()
                .map(|(run, lost)| ((*run).to_owned(), *lost))
                .collect();
            balances(&accepted, &effects, &parked, &lost, (1, false))
        };
        let now = told(&[]);
        let r1 = &now.runs["r1"];
        assert_eq!(
            (
                r1.accepted,
                r1.processed,
                r1.parked,
                r1.waiting,
                r1.lost,
                r1.again
            ),
            (10, 6, 1, 3, 0, 1)
        );
        assert_eq!(
            (now.all.accepted, now.all.processed, now.all.waiting),
            (15, 11, 3)
        );
        let r1 = &told(&[("r1", 2)]).runs["r1"];
        assert_eq!((r1.waiting, r1.lost), (1, 2));
        // an old audit does not stand against what came since
        let r1 = &told(&[("r1", 99)]).runs["r1"];
        assert_eq!((r1.waiting, r1.lost), (0, 3));
    }

    #[test]
    fn runs_are_bounded() {
        let mut many = Counts::new();
        for n in 0..RUNS_MAX + 50 {
            add(&mut many, vec![(Some(format!("r{n}")), 1, 0)]);
        }
        assert_eq!(many.len(), RUNS_MAX + 1);
        assert_eq!(many[&Some(OTHERS.to_owned())].rows, 50);
    }

    #[test]
    fn only_what_is_old_enough_is_counted_for_good() {
        let mut table = Table::new(MESSAGE);
        let now = Instant::now();
        assert_eq!(table.boundary(now, 50), 0);
        assert_eq!(table.boundary(now + SETTLED / 2, 80), 0);
        assert_eq!(table.boundary(now + SETTLED, 90), 50);
        table.below = 50;
        assert_eq!(table.boundary(now + SETTLED + SETTLED / 4, 90), 50);
        assert_eq!(table.boundary(now + SETTLED * 2, 300_000), 200_000);
    }
}
