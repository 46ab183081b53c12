//! Looks through a window of messages: by one statement, which gives those that fit with all that a page tells of them.

use sqlx::{AssertSqlSafe, FromRow, Postgres, Transaction};

use super::page::Found;
use super::query::Query;
use super::range::Range;
use crate::passport::story::State;

/// How the messages of a window are come by.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// One after the other.
    Walk,
    /// By the index of runs.
    ByRun,
    /// By the index of texts, in these slices.
    ByText(Slices),
}

/// The slices from one to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slices(pub(super) i64, pub(super) i64);

/// Which messages, and what is asked of them.
pub(super) struct Window<'a> {
    pub(super) query: &'a Query,
    /// Whether there are tables of receivers.
    pub(super) received: bool,
    /// Towards older ones.
    pub(super) down: bool,
    pub(super) source: Source,
    pub(super) range: Range,
    /// How many are looked at.
    pub(super) most: i64,
    /// How many that fit are wanted.
    pub(super) missing: usize,
}

/// What a look came to.
pub(super) struct Seen {
    /// Messages that were looked at.
    pub(super) count: i64,
    /// The farthest of them.
    pub(super) edge: Option<i64>,
    pub(super) found: Vec<Found>,
}

impl Window<'_> {
    /// Looks.
    pub(super) async fn look(
        &self,
        tx: &mut Transaction<'_, Postgres>,
    ) -> Result<Seen, sqlx::Error> {
        #[derive(FromRow)]
        struct Row {
            seen: i64,
            edge: Option<i64>,
            #[sqlx(flatten)]
            found: Maybe,
        }
        let (query, range) = (self.query, self.range);
        let (source, slices) = match self.source {
            Source::Walk => (WALK, Slices(0, 0)),
            Source::ByRun => (BY_RUN, Slices(0, 0)),
            Source::ByText(slices) => (BY_TEXT, slices),
        };
        let (order, farthest) = if self.down {
            ("desc", "min")
        } else {
            ("asc", "max")
        };
        let facts = if query.is_plain() { LATER } else { FIRST };
        let (facts_of_one, must) = if self.received {
            (FACTS, MUST)
        } else {
            (SENT, "")
        };
        let sql = facts
            .replace("{source}", source)
            .replace("{facts}", facts_of_one)
            .replace("{must}", must)
            .replace("{order}", order)
            .replace("{farthest}", farthest);
        let missing = i64::try_from(self.missing).unwrap_or(1);
        let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(sql))
            // A plan made for these values: what it costs depends on them.
            .persistent(false)
            .bind(range.low)
            .bind(range.high)
            .bind(self.most)
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
            .fetch_all(&mut **tx)
            .await?;
        let (count, edge) = rows.first().map_or((0, None), |row| (row.seen, row.edge));
        let found = rows.into_iter().filter_map(|row| row.found.0).collect();
        Ok(Seen { count, edge, found })
    }
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
    select case when effect.node is not null then 'processed' when known.dead then 'parked'
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

/// Each a must of its state, and far cheaper than to find out which state it is.
const MUST: &str = "and ($7::text is distinct from 'processed'
                    or exists (select from receiver.processed p where p.message_id = m.message_id))
               and ($7::text is distinct from 'parked'
                    or exists (select from receiver.dead_letter d where d.fingerprint = m.message_id::text))
               and ($7::text is distinct from 'waiting'
                    or exists (select from sender.outbox o where o.message_id = m.message_id))
               and ($7::text is distinct from 'failed-and-back'
                    or exists (select from receiver.failure f where f.message_id = m.message_id))
               and ($7::text is distinct from 'under-way'
                    or not exists (select from receiver.processed p where p.message_id = m.message_id))";

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
               and $13::bigint is not null and $14::bigint is not null
               {must}
             ) as m {facts}
     where ($6::text is null or m.node = $6 or facts.processed_by = $6)
       and ($7::text is null or facts.state = $7)
       and ($8::int is null or facts.attempts >= $8)
     order by m.number {order} limit $15
  )
  select looked.seen, looked.edge, hit.*
    from (select count(*) as seen, {farthest}(number) as edge from source) as looked
    left join hit on true
   order by hit.number {order}";
