//! The running balance: accepted = processed + parked + waiting (+ lost), in all and of each run.
//!
//! What only grows is counted once ([`super::count`]); dead letters, which change, are counted anew each time. All counts are
//! of one moment, and nothing is told before all of it was counted.
//!
//! *Waiting* is what is neither processed nor parked. *Lost* is only what an audit of the run has proven, and is then not
//! waiting; what a client was told yes to and the sender never stored is both accepted and lost. What a pruning removes makes
//! the counts begin anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use daemon::clock;
use daemon::database::within;
use serde::Serialize;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::count::{self, Count, Counts, Horizon, MESSAGE, Of, PROCESSED, Row, Runs, Table};
use super::proven::{Audits, Proven, audits};

const LIMIT: Duration = Duration::from_secs(10);
const AUDITS_EVERY: Duration = Duration::from_secs(5);
/// So many runs stand on the page.
const NEWEST: usize = 5;

/// How it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// None: of all messages.
    pub run: Option<String>,
    pub accepted: i64,
    pub processed: i64,
    pub parked: i64,
    /// Of those that are parked: a person has discarded them.
    pub discarded: i64,
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
    /// By the names of runs; the newest thousand.
    pub runs: BTreeMap<String, Balance>,
    /// Of older runs together; none: there are none.
    pub others: Option<Balance>,
    /// The names of the newest, the newest first.
    pub newest: Vec<String>,
    /// Dead letters that nobody has decided about; none: that is not known.
    pub undecided: Option<i64>,
    /// Older rows are still being added: nothing new is told meanwhile.
    pub counting: bool,
    /// Why it was not counted since then.
    pub why_not: Option<String>,
}

/// Those that also have an effect count as processed, and what was sent back is on its way again. What is not of ours was
/// never accepted. In the place of a count's `again`: those of them that are discarded.
const PARKED: &str = "select m.run, count(distinct d.message_id),
       count(distinct d.message_id) filter (where d.state = 'discarded'), 0::bigint
     from receiver.dead_letter d join sender.message m using (message_id)
     where d.state in ('parked', 'discarded')
       and not exists (select from receiver.processed p where p.message_id = d.message_id) group by m.run";
const UNDECIDED: &str = "select count(*) from receiver.dead_letter where state = 'parked'";
/// Rows that a pruning took: elsewhere nothing is removed.
const REMOVED: &str = "select coalesce(sum(n_tup_del), 0)::bigint from pg_stat_all_tables
     where schemaname in ('sender', 'receiver') and relname in ('message', 'processed')";
const HORIZON: &str =
    "select pg_snapshot_xmin(now)::text::bigint, pg_snapshot_xmax(now)::text::bigint
     from pg_current_snapshot() as now";
/// Before any receiver was started there are no tables of theirs.
const RECEIVED: &str = "select to_regclass('receiver.redrive') is not null";

/// Who counts.
pub struct Ledger {
    pool: PgPool,
    root: PathBuf,
    runs: Runs,
    message: Table,
    processed: Table,
    removed: Option<i64>,
    audits: Arc<Audits>,
    audits_read: Option<Instant>,
}

impl Ledger {
    /// By the role that only reads; audits of runs lie in `root`.
    pub fn new(pool: PgPool, root: PathBuf) -> Self {
        Self {
            pool,
            root,
            runs: Runs::default(),
            message: Table::new(MESSAGE),
            processed: Table::new(PROCESSED),
            removed: None,
            audits: Arc::default(),
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
                let pause = self.tell(&told).await;
                sleep(pause(began.elapsed())).await;
            }
        };
        stop.run_until_cancelled(counting).await;
        Ok(())
    }

    /// One step; gives how long to wait after one that took so long.
    async fn tell(&mut self, told: &watch::Sender<Balances>) -> fn(Duration) -> Duration {
        let step = within(LIMIT, async { Ok(self.step().await) }).await;
        let why = match step.map_err(anyhow::Error::from).flatten() {
            Ok(Some(balances)) => {
                told.send_replace(balances);
                return seldom;
            }
            // older rows are added soon
            Ok(None) => {
                told.send_modify(|told| (told.counting, told.why_not) = (true, None));
                return |took| (took * 2).max(Duration::from_millis(50));
            }
            Err(error) => format!("{error:#}"),
        };
        // said once; what was told keeps its time
        if told.borrow().why_not.is_none() {
            tracing::warn!("the balance is not counted: {why}");
        }
        told.send_modify(|told| told.why_not = Some(why));
        seldom
    }

    /// Counts what came since the last step; none: older rows are still being added.
    pub async fn step(&mut self) -> Result<Option<Balances>> {
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
            self.runs = Runs::default();
            self.message = Table::new(MESSAGE);
            self.processed = Table::new(PROCESSED);
        }
        let Some((accepted, effects)) = self.count(&mut moment).await? else {
            moment.rollback().await?;
            return Ok(None);
        };
        let mut parked = Counts::new();
        let mut undecided = None;
        if received(&mut moment).await? {
            let rows: Vec<Row> = sqlx::query_as(PARKED).fetch_all(&mut *moment).await?;
            self.runs.add(&mut parked, rows);
            undecided = Some(
                sqlx::query_scalar(UNDECIDED)
                    .fetch_one(&mut *moment)
                    .await?,
            );
        }
        let as_of = clock::now().timestamp_millis();
        moment.rollback().await?;
        self.read_audits().await;
        let told = balances(&accepted, &effects, &parked, &self.proven(), as_of);
        Ok(Some(Balances {
            newest: self.runs.newest(NEWEST),
            undecided,
            ..told
        }))
    }

    /// Messages first: they decide which runs are told apart.
    async fn count(
        &mut self,
        moment: &mut Transaction<'_, Postgres>,
    ) -> Result<Option<(Counts, Counts)>> {
        let horizon: (i64, i64) = sqlx::query_as(HORIZON).fetch_one(&mut **moment).await?;
        let horizon = Horizon {
            over_below: horizon.0,
            next: horizon.1,
        };
        let page = self.message.read(moment, horizon).await?;
        count::name(
            &page,
            &mut self.runs,
            [&mut self.message, &mut self.processed],
        );
        let Some(accepted) = self.message.add(page, &self.runs) else {
            return Ok(None);
        };
        if !received(moment).await? {
            return Ok(Some((accepted, Counts::new())));
        }
        let page = self.processed.read(moment, horizon).await?;
        let effects = self.processed.add(page, &self.runs);
        Ok(effects.map(|effects| (accepted, effects)))
    }

    /// Reads the audits that are new, or new since the last time.
    async fn read_audits(&mut self) {
        if self
            .audits_read
            .is_some_and(|at| at.elapsed() < AUDITS_EVERY)
        {
            return;
        }
        let (root, known) = (self.root.clone(), Arc::clone(&self.audits));
        let read = tokio::task::spawn_blocking(move || audits(&root, &known));
        if let Ok(read) = read.await {
            self.audits = Arc::new(read);
        }
        self.audits_read = Some(Instant::now());
    }

    /// What audits have proven, of the runs that are counted.
    fn proven(&self) -> BTreeMap<Of, Proven> {
        let mut all = BTreeMap::new();
        for (run, (_, proven)) in &*self.audits {
            if !self.runs.is_named(run) && !self.runs.is_other(run) {
                continue;
            }
            let sum: &mut Proven = all.entry(self.runs.of(Some(run.clone()))).or_default();
            sum.stored += proven.stored;
            sum.never_stored += proven.never_stored;
        }
        all
    }
}

async fn received(moment: &mut Transaction<'_, Postgres>) -> Result<bool> {
    Ok(sqlx::query_scalar(RECEIVED)
        .fetch_one(&mut **moment)
        .await?)
}

fn balances(
    accepted: &Counts,
    effects: &Counts,
    parked: &Counts,
    proven: &BTreeMap<Of, Proven>,
    as_of: i64,
) -> Balances {
    let of = |whose: &Of| {
        let count = |counts: &Counts| counts.get(whose).copied().unwrap_or_default();
        let proven = proven.get(whose).copied().unwrap_or_default();
        let effects = count(effects);
        let accepted = count(accepted).rows;
        let processed = effects.rows - effects.again;
        let parked = count(parked);
        let open = (accepted - processed - parked.rows).max(0);
        // what came after all is not lost
        let lost = proven.stored.min(open);
        Balance {
            run: None,
            accepted: accepted + proven.never_stored,
            processed,
            parked: parked.rows,
            discarded: parked.again,
            waiting: open - lost,
            lost: lost + proven.never_stored,
            again: effects.again,
            as_of: Some(as_of),
        }
    };
    let sum = |counts: &Counts| counts.values().fold(Count::default(), Count::plus);
    let (effects_of_all, parked_of_all) = (sum(effects), sum(parked));
    let mut told = Balances::default();
    let all = &mut told.all;
    all.as_of = Some(as_of);
    all.accepted = sum(accepted).rows;
    all.processed = effects_of_all.rows - effects_of_all.again;
    all.again = effects_of_all.again;
    (all.parked, all.discarded) = (parked_of_all.rows, parked_of_all.again);
    for whose in accepted.keys() {
        let mut one = of(whose);
        told.all.lost += one.lost;
        told.all.accepted += proven.get(whose).map_or(0, |proven| proven.never_stored);
        match whose {
            Of::Nobody => {}
            Of::Others => told.others = Some(one),
            Of::Run(name) => {
                one.run = Some(name.clone());
                told.runs.insert(name.clone(), one);
            }
        }
    }
    let all = &mut told.all;
    all.waiting = (all.accepted - all.processed - all.parked - all.lost).max(0);
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

/// How long to rest after a step that took so long: counting takes a twentieth of the time, or is done once a minute.
fn seldom(took: Duration) -> Duration {
    (took * 20).clamp(Duration::from_secs(1), Duration::from_mins(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(Of, i64, i64)]) -> Counts {
        let count = |(whose, rows, again): &(Of, i64, i64)| {
            let (rows, again) = (*rows, *again);
            (whose.clone(), Count { rows, again })
        };
        rows.iter().map(count).collect()
    }

    fn r1() -> Of {
        Of::Run("r1".to_owned())
    }

    fn parts(balance: &Balance) -> [i64; 5] {
        [
            balance.accepted,
            balance.processed,
            balance.parked,
            balance.waiting,
            balance.lost,
        ]
    }

    #[tokio::test]
    async fn a_count_that_fails_says_why_and_keeps_what_was_told() {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .acquire_timeout(Duration::from_millis(200))
            .connect_lazy("postgres://nobody@127.0.0.1:1/nothing")
            .unwrap();
        let mut ledger = Ledger::new(pool, PathBuf::new());
        let told = watch::Sender::new(Balances::default());
        told.send_modify(|told| told.all.accepted = 5);
        ledger.tell(&told).await;
        assert!(told.borrow().why_not.is_some());
        assert_eq!(told.borrow().all.accepted, 5);
    }

    #[test]
    fn every_accepted_message_is_somewhere_and_lost_is_only_what_was_proven() {
        let accepted = counts(&[(Of::Nobody, 5, 0), (r1(), 10, 0), (Of::Others, 3, 0)]);
        let effects = counts(&[(Of::Nobody, 5, 0), (r1(), 7, 1), (Of::Others, 2, 0)]);
        let parked = counts(&[(r1(), 1, 1)]);
        let told = |stored, never_stored| {
            let proven = Proven {
                stored,
                never_stored,
            };
            let proven = BTreeMap::from([(r1(), proven)]);
            balances(&accepted, &effects, &parked, &proven, 1)
        };
        let now = told(0, 0);
        assert_eq!(parts(&now.runs["r1"]), [10, 6, 1, 3, 0]);
        assert_eq!((now.runs["r1"].again, now.runs["r1"].discarded), (1, 1));
        assert_eq!(now.all.discarded, 1);
        assert_eq!(parts(&now.others.unwrap()), [3, 2, 0, 1, 0]);
        assert_eq!(parts(&now.all), [18, 13, 1, 4, 0]);
        assert_eq!(parts(&told(2, 0).runs["r1"]), [10, 6, 1, 1, 2]);
        // told yes and never stored: the ledger has no row, the client was promised one
        let now = told(1, 2);
        assert_eq!(parts(&now.runs["r1"]), [12, 6, 1, 2, 3]);
        assert_eq!(parts(&now.all), [20, 13, 1, 3, 3]);
        // an old audit does not stand against what came since
        assert_eq!(parts(&told(99, 2).runs["r1"]), [12, 6, 1, 0, 5]);
    }
}
