//! Finds one page, newest first, at a cost that does not depend on which page it is, nor on how common the text is.
//!
//! Messages are looked at in windows of their numbers, from the cursor on. A first short window is walked: that finds what is
//! common. What is not found there is rare, at least here, and is looked up: texts slice by slice in the index, runs by
//! theirs. What has no index is walked on, in growing windows, for a bounded time; then the page says how far it came.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{AssertSqlSafe, FromRow, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::index::SLICE;
use super::query::{Cursor, Query};
use crate::passport::story::State;

/// Rows of a page.
pub const ROWS: usize = 50;
/// Messages that are walked before an index is asked.
const FIRST_WINDOW: i64 = 2_000;
const LAST_WINDOW: i64 = 64_000;
/// For how long further windows are begun.
const BUDGET: Duration = Duration::from_millis(600);
/// How far numbers and times may be out of step.
const CLOCK_SLACK: &str = "10 s";

/// A message that fits.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct Found {
    pub number: i64,
    pub message_id: Uuid,
    pub text: String,
    pub accepted_at: DateTime<Utc>,
    pub node: String,
    pub run: Option<String>,
    #[sqlx(try_from = "String")]
    pub state: State,
    /// How often its work was tried, as far as is known; 0 before the first.
    pub attempts: i32,
    /// The receiver that processed it.
    pub processed_by: Option<String>,
}

impl TryFrom<String> for State {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let state = Self::ALL.into_iter().find(|state| state.name() == name);
        state.ok_or(name)
    }
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Page {
    /// The newest first.
    pub messages: Vec<Found>,
    pub older: Option<String>,
    pub newer: Option<String>,
    /// The time was over before the page was full: the number down (or up) to which all were looked at.
    pub searched_to: Option<i64>,
    /// How many numbers the index of texts is behind; these are walked.
    pub behind: i64,
}

/// A piece of the way, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    low: i64,
    high: i64,
}

/// How the messages of a range are come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Walk,
    ByRun,
    ByText,
}

#[derive(Debug, Clone, Copy)]
struct Index {
    upto: i64,
    has_text: bool,
}

struct Engine<'a> {
    tx: Transaction<'a, Postgres>,
    query: &'a Query,
    /// Whether there are tables of receivers.
    received: bool,
    /// Towards older ones.
    down: bool,
    found: Vec<Found>,
    began: Instant,
}

/// One page.
///
/// # Errors
/// The database's.
pub async fn find(lab: &PgPool, query: &Query, cursor: Cursor) -> Result<Page, sqlx::Error> {
    let mut tx = lab.begin().await?;
    // Estimates of texts and of what was just copied are worth little, and each step is bounded: by index, row by row.
    sqlx::raw_sql(
        "set transaction isolation level repeatable read, read only;
         set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off;
         set local jit = off; set local statement_timeout = '5s'",
    )
    .execute(&mut *tx)
    .await?;
    let newest: i64 = sqlx::query_scalar("select coalesce(max(number), 0) from sender.message")
        .fetch_one(&mut *tx)
        .await?;
    let index = index(&mut tx).await?;
    let received = sqlx::query_scalar("select to_regclass('receiver.redrive') is not null");
    let received = received.fetch_one(&mut *tx).await?;
    let mut whole = limits(&mut tx, query, newest).await?;
    let down = match cursor {
        Cursor::Older(number) => {
            whole.high = whole.high.min(number.saturating_sub(1));
            true
        }
        Cursor::Newer(number) => {
            whole.low = whole.low.max(number.saturating_add(1));
            false
        }
    };
    let mut engine = Engine {
        tx,
        query,
        received,
        down,
        found: Vec::new(),
        began: Instant::now(),
    };
    let stopped_at = engine.go(whole, index).await?;
    engine.tx.rollback().await?;
    let behind = (newest - index.map_or(newest, |index| index.upto)).max(0);
    Ok(page(engine.found, cursor, stopped_at, behind))
}

fn page(mut found: Vec<Found>, cursor: Cursor, stopped_at: Option<i64>, behind: i64) -> Page {
    let more = found.len() > ROWS;
    found.truncate(ROWS);
    let down = matches!(cursor, Cursor::Older(_));
    if !down {
        found.reverse();
    }
    let first = found.first().map(|row| row.number);
    let last = found.last().map(|row| row.number);
    // Where the time was over, the next page goes on there, and not at the last row.
    let further = if more { None } else { stopped_at };
    let (older, newer) = if down {
        let older = match further {
            Some(at) => Some(at),
            None => last.filter(|_| more),
        };
        (older, first.filter(|_| cursor != Cursor::FIRST))
    } else {
        let newer = match further {
            Some(at) => Some(at),
            None => first.filter(|_| more),
        };
        (last, newer)
    };
    Page {
        messages: found,
        older: older.map(|number| Cursor::Older(number).text()),
        newer: newer.map(|number| Cursor::Newer(number).text()),
        searched_to: further,
        behind,
    }
}

/// None where it was never made.
async fn index(tx: &mut Transaction<'_, Postgres>) -> Result<Option<Index>, sqlx::Error> {
    let (made, has_text): (bool, bool) = sqlx::query_as(
        "select to_regclass('lab.text_state') is not null, to_regclass('lab.message_text_by_text') is not null",
    )
    .fetch_one(&mut **tx)
    .await?;
    if !made {
        return Ok(None);
    }
    let upto = sqlx::query_scalar("select upto from lab.text_state")
        .fetch_one(&mut **tx)
        .await?;
    Ok(Some(Index { upto, has_text }))
}

/// From which number to which: by the times, which ids begin with too.
async fn limits(
    tx: &mut Transaction<'_, Postgres>,
    query: &Query,
    newest: i64,
) -> Result<Range, sqlx::Error> {
    if let Some((id, last)) = query.ids
        && id == last
    {
        let number: Option<i64> =
            sqlx::query_scalar("select number from sender.message where message_id = $1")
                .bind(id)
                .fetch_optional(&mut **tx)
                .await?;
        // An empty range where there is none.
        let (low, high) = number.map_or((1, 0), |number| (number, number));
        return Ok(Range { low, high });
    }
    let born = |id: Uuid| {
        let millis = i64::try_from(id.as_u128() >> 80).unwrap_or(i64::MAX);
        DateTime::from_timestamp_millis(millis)
    };
    let ids = query.ids.map(|(low, high)| (born(low), born(high)));
    let from = query.from.max(ids.and_then(|(low, _)| low));
    let to = match (query.to, ids.and_then(|(_, high)| high)) {
        (Some(to), Some(born)) => Some(to.min(born)),
        (to, born) => to.or(born),
    };
    let low = match from {
        Some(from) => first_after(tx, from, "-", newest).await?,
        None => 1,
    };
    let high = match to {
        Some(to) => first_after(tx, to, "+", newest).await?,
        None => newest,
    };
    Ok(Range { low, high })
}

/// About the first number after a moment, by halving: numbers and times grow together, but for the slack.
async fn first_after(
    tx: &mut Transaction<'_, Postgres>,
    moment: DateTime<Utc>,
    slack: &str,
    newest: i64,
) -> Result<i64, sqlx::Error> {
    let sql = format!(
        "select accepted_at < $2::timestamptz {slack} interval '{CLOCK_SLACK}'
           from sender.message where number >= $1 order by number limit 1"
    );
    let (mut low, mut high) = (1, newest.saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        let before: Option<bool> = sqlx::query_scalar(AssertSqlSafe(sql.clone()))
            .bind(middle)
            .bind(moment)
            .fetch_optional(&mut **tx)
            .await?;
        if before == Some(true) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

impl Engine<'_> {
    /// Fills the page. Says where it stopped, if the time was over first.
    async fn go(&mut self, whole: Range, index: Option<Index>) -> Result<Option<i64>, sqlx::Error> {
        let way = match index {
            Some(_) if self.query.run.is_some() => Way::ByRun,
            Some(Index { has_text: true, .. }) if self.query.text.is_some() => Way::ByText,
            _ => Way::Walk,
        };
        let Some(index) = index.filter(|_| way != Way::Walk) else {
            return self.walk(whole, None).await.map(|(stopped, _)| stopped);
        };
        let new = Range {
            low: whole.low.max(index.upto + 1),
            ..whole
        };
        let old = Range {
            high: whole.high.min(index.upto),
            ..whole
        };
        let order = if self.down {
            [(new, false), (old, true)]
        } else {
            [(old, true), (new, false)]
        };
        for (range, indexed) in order {
            let mut range = range;
            if range.low > range.high || self.is_full() {
                continue;
            }
            if !indexed {
                let (stopped, _) = self.walk(range, None).await?;
                if stopped.is_some() {
                    return Ok(stopped);
                }
                continue;
            }
            let (_, reached) = self.walk(range, Some(FIRST_WINDOW)).await?;
            let Some(reached) = reached.filter(|_| !self.is_full()) else {
                continue;
            };
            self.cut(&mut range, reached);
            let stopped = match way {
                Way::ByRun => self.by_run(range).await?,
                _ => self.by_text(range).await?,
            };
            if stopped.is_some() {
                return Ok(stopped);
            }
        }
        Ok(None)
    }

    fn is_full(&self) -> bool {
        self.found.len() > ROWS
    }

    /// What is behind a number is done.
    fn cut(&self, range: &mut Range, done: i64) {
        if self.down {
            range.high = done - 1;
        } else {
            range.low = done + 1;
        }
    }

    /// Through all messages of a range, window by window: one window, or as many as the time allows. Gives where the time
    /// was over, and what was reached; none where nothing is left.
    async fn walk(
        &mut self,
        mut range: Range,
        only: Option<i64>,
    ) -> Result<(Option<i64>, Option<i64>), sqlx::Error> {
        let mut window = only.unwrap_or(FIRST_WINDOW);
        while range.low <= range.high && !self.is_full() {
            let (seen, edge) = self.window(WALK, range, window, SliceRange::NONE).await?;
            let Some(edge) = edge.filter(|_| seen == window) else {
                return Ok((None, None));
            };
            if only.is_some() {
                return Ok((None, Some(edge)));
            }
            self.cut(&mut range, edge);
            if !self.is_full() && self.began.elapsed() > BUDGET {
                return Ok((Some(edge), None));
            }
            window = (window * 2).min(LAST_WINDOW);
        }
        Ok((None, None))
    }

    async fn by_run(&mut self, mut range: Range) -> Result<Option<i64>, sqlx::Error> {
        let mut window = FIRST_WINDOW;
        while range.low <= range.high && !self.is_full() {
            let (seen, edge) = self.window(BY_RUN, range, window, SliceRange::NONE).await?;
            let Some(edge) = edge.filter(|_| seen >= window) else {
                return Ok(None);
            };
            self.cut(&mut range, edge);
            if !self.is_full() && self.began.elapsed() > BUDGET {
                return Ok(Some(edge));
            }
            window = (window * 2).min(LAST_WINDOW);
        }
        Ok(None)
    }

    /// Slice by slice, more at a time where little is found.
    async fn by_text(&mut self, mut range: Range) -> Result<Option<i64>, sqlx::Error> {
        let mut many = 1;
        while range.low <= range.high && !self.is_full() {
            let slices = if self.down {
                let high = range.high / SLICE;
                SliceRange(high - many + 1, high)
            } else {
                let low = range.low / SLICE;
                SliceRange(low, low + many - 1)
            };
            // A slice is looked through at once; with nothing else to fit, no more than a page of it is needed.
            let most = if self.query.is_plain() && self.query.run.is_none() && !self.timed() {
                i64::try_from(ROWS).unwrap_or(i64::MAX) + 1
            } else {
                i64::MAX
            };
            let began = Instant::now();
            self.window(BY_TEXT, range, most, slices).await?;
            let edge = if self.down {
                slices.0 * SLICE
            } else {
                (slices.1 + 1) * SLICE - 1
            };
            self.cut(&mut range, edge);
            if range.low <= range.high && !self.is_full() && self.began.elapsed() > BUDGET {
                return Ok(Some(edge));
            }
            if began.elapsed() < BUDGET / 12 {
                many *= 2;
            }
        }
        Ok(None)
    }

    fn timed(&self) -> bool {
        self.query.from.is_some() || self.query.to.is_some()
    }

    /// Adds what fits among these messages; gives how many they were, and the farthest number.
    async fn window(
        &mut self,
        source: &str,
        range: Range,
        most: i64,
        slices: SliceRange,
    ) -> Result<(i64, Option<i64>), sqlx::Error> {
        #[derive(FromRow)]
        struct Row {
            seen: i64,
            edge: Option<i64>,
            #[sqlx(flatten)]
            found: Maybe,
        }
        let (order, farthest) = if self.down {
            ("desc", "min")
        } else {
            ("asc", "max")
        };
        let facts = if self.query.is_plain() { LATER } else { FIRST };
        let sql = facts
            .replace("{source}", source)
            .replace("{facts}", if self.received { FACTS } else { SENT })
            .replace("{order}", order)
            .replace("{farthest}", farthest);
        let query = self.query;
        let missing = i64::try_from(ROWS + 1 - self.found.len()).unwrap_or(1);
        let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(sql))
            // A plan made for these values: what it costs depends on them.
            .persistent(false)
            .bind(range.low)
            .bind(range.high)
            .bind(most)
            .bind(query.pattern())
            .bind(&query.run)
            .bind(&query.node)
            .bind(query.state.map(State::name))
            .bind(query.attempts)
            .bind(query.from)
            .bind(query.to)
            .bind(query.ids.map(|ids| ids.0))
            .bind(query.ids.map(|ids| ids.1))
            .bind(slices.0)
            .bind(slices.1)
            .bind(missing)
            .fetch_all(&mut *self.tx)
            .await?;
        let first = rows.first().map_or((0, None), |row| (row.seen, row.edge));
        self.found
            .extend(rows.into_iter().filter_map(|row| row.found.0));
        Ok(first)
    }
}

/// The slices from one to another.
#[derive(Debug, Clone, Copy)]
struct SliceRange(i64, i64);

impl SliceRange {
    const NONE: Self = Self(0, 0);
}

/// A row may say only how many were looked at.
struct Maybe(Option<Found>);

impl<'r> FromRow<'r, sqlx::postgres::PgRow> for Maybe {
    fn from_row(row: &'r sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        use sqlx::Row;
        let number: Option<i64> = row.try_get("number")?;
        number.map(|_| Found::from_row(row)).transpose().map(Self)
    }
}

const WALK: &str =
    "select * from sender.message where number between $1 and $2 order by number {order} limit $3";

// Gap by gap (offset 0), not the other way round: what is in one may be committed by now, and not copied yet.
// What was pruned is a candidate too, so that a window is known to be full.
const BY_RUN: &str = "select number, m.message_id, m.text, m.accepted_at, m.node, m.run from (
      (select number from lab.message_text where run = $5 and number between $1 and $2 order by number {order} limit $3)
      union
      (select m.number from lab.text_gap g cross join lateral (
          select * from sender.message where number between g.low and g.high offset 0) as m
        where m.run = $5 and m.number between $1 and $2)
      order by number {order} limit $3
    ) as candidate left join sender.message m using (number)";

// The numbers are hidden from the planner, or it would walk: the slices bound the look-up.
const BY_TEXT: &str = "select m.* from (
      (select number from lab.message_text
        where slice between $13 and $14 and text ilike $4 and number + 0 between $1 and $2
        order by number + 0 {order} limit $3)
      union
      (select m.number from lab.text_gap g cross join lateral (
          select * from sender.message where number between g.low and g.high offset 0) as m
        where m.text ilike $4 and m.number between $1 and $2 and m.number / 20000 between $13 and $14)
    ) as candidate join sender.message m using (number)";

/// Before any receiver was started.
const SENT: &str = "
  cross join lateral (
    select case when exists (select from sender.outbox o where o.message_id = m.message_id)
                then 'waiting' else 'under-way' end as state, 0 as attempts, null::text as processed_by
  ) as facts";

const FACTS: &str = "
  cross join lateral (
    select exists (select from sender.outbox o where o.message_id = m.message_id) as waits,
           exists (select from receiver.dead_letter d where d.fingerprint = m.message_id::text
                      and to_jsonb(d) ->> 'state' is distinct from 'redriven') as dead,
           (select max(d.attempts) from receiver.dead_letter d where d.fingerprint = m.message_id::text) as gave_up_after,
           (select count(*)::int from receiver.failure f where f.message_id = m.message_id) as failures
  ) as known
  left join lateral (
    select p.node, p.attempt from receiver.processed p where p.message_id = m.message_id
     order by p.processed_id limit 1
  ) as effect on true
  cross join lateral (
    select case when effect.node is not null then 'processed' when known.dead then 'dead'
                when known.waits then 'waiting' when known.failures > 0 then 'failed-and-back'
                else 'under-way' end as state,
           greatest(effect.attempt, known.failures, known.gave_up_after, 0) as attempts,
           effect.node as processed_by
  ) as facts";

/// Only what is on the page is looked up further.
const LATER: &str = "with source as materialized ({source}),
  hit as materialized (
    select * from source m
     where m.message_id is not null and ($4::text is null or m.text ilike $4) and ($5::text is null or m.run = $5)
       and ($6::text is null and $7::text is null and $8::int is null)
       and ($9::timestamptz is null or m.accepted_at >= $9) and ($10::timestamptz is null or m.accepted_at < $10)
       and ($11::uuid is null or m.message_id between $11 and $12::uuid)
       and $13::bigint is not null and $14::bigint is not null
     order by number {order} limit $15
  )
  select looked.seen, looked.edge, m.number, m.message_id, m.text, m.accepted_at, m.node, m.run,
         facts.state, facts.attempts, facts.processed_by
    from (select count(*) as seen, {farthest}(number) as edge from source) as looked
    left join (hit m {facts}) on true
   order by m.number {order}";

/// What is asked for is among the facts.
const FIRST: &str = "with source as materialized ({source}),
  hit as materialized (
    select m.number, m.message_id, m.text, m.accepted_at, m.node, m.run,
           facts.state, facts.attempts, facts.processed_by
      from (select * from source m
             where m.message_id is not null and ($4::text is null or m.text ilike $4) and ($5::text is null or m.run = $5)
               and ($9::timestamptz is null or m.accepted_at >= $9)
               and ($10::timestamptz is null or m.accepted_at < $10)
               and ($11::uuid is null or m.message_id between $11 and $12::uuid)
               and $13::bigint is not null and $14::bigint is not null) as m {facts}
     where ($6::text is null or m.node = $6 or facts.processed_by = $6)
       and ($7::text is null or facts.state = $7)
       and ($8::int is null or facts.attempts >= $8)
     order by m.number {order} limit $15
  )
  select looked.seen, looked.edge, hit.*
    from (select count(*) as seen, {farthest}(number) as edge from source) as looked
    left join hit on true
   order by hit.number {order}";
