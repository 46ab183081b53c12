//! The deliveries of a message: those on record, those of which only what came of them is, and which sessions went on.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{FromRow, Postgres, Transaction};
use uuid::Uuid;

use super::cause::{self, CLOCKS};
use super::records::{Effect, Failure};

/// A row of `delivery`, with what is on record of its session and its node.
#[derive(Debug, Clone, Default, FromRow)]
pub struct Delivery {
    pub node: String,
    pub attempt: i32,
    pub redelivered: bool,
    pub earlier: Option<i32>,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub outcome: Option<String>,
    pub cause: Option<String>,
    pub answer: Option<String>,
    /// How the session ended in which it came, when, and in whose words.
    pub ended_by: Option<String>,
    pub session_ended_at: Option<DateTime<Utc>>,
    pub why: Option<String>,
    /// When the same process opened its next session.
    pub next_session_at: Option<DateTime<Utc>>,
    /// When another process of this node's name opened its first.
    pub next_boot_at: Option<DateTime<Utc>>,
    pub session: Option<Uuid>,
    /// Whether its session took further deliveries after the message had come again; none: that was not looked for.
    #[sqlx(skip)]
    pub went_on: Option<bool>,
    /// The message came again only just now: the record of how this one ended may still come.
    #[sqlx(skip)]
    pub fresh: bool,
    /// There is no row of it, but of what came of it.
    #[sqlx(skip)]
    pub concluded: bool,
}

/// Of so many deliveries without an end it is asked whether their session went on ..
const ASKED_MAX: usize = 20;
/// .. among so many of the next ones.
const LATER: i64 = 10_000;
/// How a delivery or a session ended is on record by then, if it ever is.
const WRITTEN_IN: TimeDelta = TimeDelta::seconds(3);

/// All of them, in order.
pub(super) async fn read(
    tx: &mut Transaction<'_, Postgres>,
    id: Uuid,
    effects: &[Effect],
    failures: &[Failure],
) -> Result<Vec<Delivery>, sqlx::Error> {
    let mut all = on_record(tx, id, effects).await?;
    all.extend(concluded(&all, effects, failures));
    all.sort_by_key(|delivery| delivery.started_at);
    fail(&mut all, failures);
    // Not before: which one is the next is known only now.
    ask(tx, &mut all).await?;
    Ok(all)
}

/// Those that brought no effect have an index. For the others none is paid: their ids begin with the time at which they came
/// in, which the effect knows.
async fn on_record(
    tx: &mut Transaction<'_, Postgres>,
    id: Uuid,
    effects: &[Effect],
) -> Result<Vec<Delivery>, sqlx::Error> {
    let around = |slack: TimeDelta| {
        let moments = effects.iter().map(|effect| effect.received_at + slack);
        moments.map(first_id).collect::<Vec<Uuid>>()
    };
    sqlx::query_as(
        "with mine as (
           select * from receiver.delivery where message_id = $1 and outcome is distinct from 'processed'
           union all
           select d.* from unnest($2::uuid[], $3::uuid[]) as near (low, high)
             join receiver.delivery d on d.delivery_id between low and high
            where d.message_id = $1 and d.outcome = 'processed'
         )
         select distinct on (d.started_at, d.delivery_id)
                d.node, d.attempt, d.redelivered, d.earlier, d.started_at, d.ended_at, d.outcome, d.cause, d.answer,
                s.ended_by, s.ended_at as session_ended_at, s.why, d.session,
                (select min(o.began_at) from receiver.session o
                  where o.node = d.node and o.boot = d.boot and o.session <> d.session
                    and o.began_at > d.started_at) as next_session_at,
                (select min(o.began_at) from receiver.session o
                  where o.node = d.node and o.boot <> d.boot and o.began_at > d.started_at) as next_boot_at
           from mine d left join receiver.session s on s.session = d.session
          order by d.started_at, d.delivery_id",
    )
    .bind(id)
    .bind(around(-CLOCKS))
    .bind(around(CLOCKS))
    .fetch_all(&mut **tx)
    .await
}

/// A failure or an effect tells of a delivery too.
fn concluded(on_record: &[Delivery], effects: &[Effect], failures: &[Failure]) -> Vec<Delivery> {
    let known = |node: &str, attempt: i32, at: DateTime<Utc>| {
        on_record.iter().any(|delivery| {
            let end = delivery.ended_at.unwrap_or(at);
            delivery.node == node
                && (delivery.attempt == attempt || delivery.outcome.as_deref() == Some("failed"))
                && delivery.started_at <= at + CLOCKS
                && at <= end + CLOCKS
        })
    };
    let failed = failures
        .iter()
        .filter(|failure| !known(&failure.node, failure.attempt, failure.failed_at));
    let failed = failed.map(|failure| Delivery {
        node: failure.node.clone(),
        attempt: failure.attempt,
        redelivered: failure.attempt > 1,
        started_at: failure.failed_at,
        ended_at: Some(failure.failed_at),
        outcome: Some("failed".to_owned()),
        cause: Some(failure.reason.clone()),
        concluded: true,
        ..Delivery::default()
    });
    let processed = effects
        .iter()
        .filter(|effect| !known(&effect.node, effect.attempt, effect.received_at));
    let processed = processed.map(|effect| Delivery {
        node: effect.node.clone(),
        attempt: effect.attempt,
        redelivered: effect.redelivered,
        started_at: effect.received_at,
        ended_at: Some(effect.processed_at),
        outcome: Some("processed".to_owned()),
        concluded: true,
        ..Delivery::default()
    });
    failed.chain(processed).collect()
}

/// Where its end was not written, but that its work failed was.
fn fail(all: &mut [Delivery], failures: &[Failure]) {
    for index in 1..all.len() {
        let next = all[index].started_at;
        let this = &mut all[index - 1];
        let failure = failures.iter().find(|failure| {
            failure.node == this.node
                && failure.attempt == this.attempt
                && this.started_at <= failure.failed_at
                && failure.failed_at <= next
        });
        if let (None, Some(failure)) = (&this.outcome, failure) {
            this.outcome = Some("failed".to_owned());
            this.cause = Some(failure.reason.clone());
        }
    }
}

/// Whether sessions went on, where a cause hangs on it.
async fn ask(tx: &mut Transaction<'_, Postgres>, all: &mut [Delivery]) -> Result<(), sqlx::Error> {
    let now: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(&mut **tx)
        .await?;
    let mut asked = 0;
    for index in 1..all.len() {
        let next = all[index].started_at;
        let this = &mut all[index - 1];
        if !cause::hangs_on_session(this) {
            continue;
        }
        this.fresh = now - next < WRITTEN_IN;
        let Some(session) = this.session.filter(|_| asked < ASKED_MAX) else {
            continue;
        };
        asked += 1;
        let after = first_id(next + CLOCKS);
        let went_on = sqlx::query_scalar(
            "select exists (select from (
               select session from receiver.delivery where delivery_id > $1 order by delivery_id limit $2) as later
              where session = $3)",
        )
        .bind(after)
        .bind(LATER)
        .bind(session)
        .fetch_one(&mut **tx)
        .await?;
        this.went_on = Some(went_on);
    }
    Ok(())
}

/// The least UUID v7 of a moment.
fn first_id(at: DateTime<Utc>) -> Uuid {
    let millis = u128::from(at.timestamp_millis().max(0).unsigned_abs());
    Uuid::from_u128(millis << 80)
}
