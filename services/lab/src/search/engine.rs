//! Finds one page, newest first, at a cost that does not depend on which page it is, nor on how common the text is.
//!
//! Messages are looked at in windows of their numbers, from the cursor on. A first short window is walked: that finds what is
//! common. What is not found there is rare, at least here, and is looked up: texts slice by slice in the index, runs by
//! theirs. What has no index is walked on, in growing windows, for a bounded time; then the page says how far it came.

use std::time::{Duration, Instant};

use sqlx::{PgPool, Postgres, Transaction};

use super::index::SLICE;
use super::page::{Found, Page, ROWS};
use super::query::{Cursor, Query};
use super::range::{Range, limits};
use super::window::{Slices, Source, Window};

/// Messages that are walked before an index is asked.
const FIRST_WINDOW: i64 = 2_000;
const LAST_WINDOW: i64 = 64_000;
const LEAST_WINDOW: i64 = 500;
/// For how long further windows are begun.
const BUDGET: Duration = Duration::from_millis(600);

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
    // the last of their tables to be made, and there since their first build
    let received = sqlx::query_scalar("select to_regclass('receiver.processed') is not null");
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
    Ok(Page::new(engine.found, cursor, stopped_at, behind))
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
            let begun = Instant::now();
            let (seen, edge) = self.window(Source::Walk, range, window).await?;
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
            window = self.next_window(window, begun.elapsed());
        }
        Ok((None, None))
    }

    async fn by_run(&mut self, mut range: Range) -> Result<Option<i64>, sqlx::Error> {
        let mut window = FIRST_WINDOW;
        while range.low <= range.high && !self.is_full() {
            let begun = Instant::now();
            let (seen, edge) = self.window(Source::ByRun, range, window).await?;
            let Some(edge) = edge.filter(|_| seen >= window) else {
                return Ok(None);
            };
            self.cut(&mut range, edge);
            if !self.is_full() && self.began.elapsed() > BUDGET {
                return Ok(Some(edge));
            }
            window = self.next_window(window, begun.elapsed());
        }
        Ok(None)
    }

    /// Slice by slice, more at a time where little is found.
    async fn by_text(&mut self, mut range: Range) -> Result<Option<i64>, sqlx::Error> {
        let mut many = 1;
        while range.low <= range.high && !self.is_full() {
            let slices = if self.down {
                let high = range.high / SLICE;
                Slices(high - many + 1, high)
            } else {
                let low = range.low / SLICE;
                Slices(low, low + many - 1)
            };
            // A slice is looked through at once; with nothing else to fit, no more than a page of it is needed.
            let most = if self.query.is_plain() && self.query.run.is_none() && !self.timed() {
                i64::try_from(ROWS).unwrap_or(i64::MAX) + 1
            } else {
                i64::MAX
            };
            let began = Instant::now();
            self.window(Source::ByText(slices), range, most).await?;
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

    fn next_window(&self, window: i64, took: Duration) -> i64 {
        grown(window, took, BUDGET.saturating_sub(self.began.elapsed()))
    }

    fn timed(&self) -> bool {
        self.query.from.is_some() || self.query.to.is_some()
    }

    /// Adds what fits among these messages; gives how many they were, and the farthest number.
    async fn window(
        &mut self,
        source: Source,
        range: Range,
        most: i64,
    ) -> Result<(i64, Option<i64>), sqlx::Error> {
        let window = Window {
            query: self.query,
            received: self.received,
            down: self.down,
            source,
            range,
            most,
            missing: ROWS + 1 - self.found.len(),
        };
        let seen = window.look(&mut self.tx).await?;
        self.found.extend(seen.found);
        Ok((seen.count, seen.edge))
    }
}

/// The window after one of this size that took so long: larger, but not so large that it would take much longer than what
/// is left of the time.
fn grown(window: i64, took: Duration, left: Duration) -> i64 {
    let fits = left.as_secs_f64() / took.as_secs_f64().max(1e-6);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "windows are small, and a cast saturates"
    )]
    let fits = (window as f64 * fits) as i64;
    fits.clamp(LEAST_WINDOW, (window * 2).min(LAST_WINDOW))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_grow_as_long_as_the_time_allows() {
        let ms = Duration::from_millis;
        assert_eq!(grown(2_000, ms(10), ms(590)), 4_000);
        assert_eq!(grown(64_000, ms(10), ms(590)), LAST_WINDOW);
        // 10,000 in 100 ms, and 50 are left
        assert_eq!(grown(10_000, ms(100), ms(50)), 5_000);
        assert_eq!(grown(10_000, ms(100), ms(0)), LEAST_WINDOW);
    }
}
