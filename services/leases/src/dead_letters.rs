//! Dead letters over HTTP: list them, send them back, discard them.
//!
//! An order means ids, or all that there are when it comes. It is done batch by batch, each a commit of its own: die in between,
//! and some are done; said again, it does the rest.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{RawQuery, State},
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::SecondsFormat;
use daemon::database::within;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;
use web::Error;

use crate::{
    app::App,
    dead_letter::{self, DeadLetter, Meant},
    numbers, reaper,
    request::{Queue, parameters, whole},
};

const AMOUNT: i32 = 100;
const AMOUNT_MAX: i32 = 1_000;
/// Of bodies in one answer, but for the first.
const BYTES_MAX: i64 = 8 * 1024 * 1024;
/// Ids in one order.
const IDS_MAX: usize = 1_000;
const BATCH: i64 = 1_000;
/// An order of more than fits into this time is told as not done, and said again.
const ORDER_LIMIT: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(5);
/// Of burying what has just died, before an answer; the reaper does the rest.
const BURY_LIMIT: Duration = Duration::from_secs(1);

/// All of it under this prefix.
pub(crate) fn routes(prefix: &str) -> Router<Arc<App>> {
    let mut routes = Router::new();
    for queue in [prefix.to_owned(), format!("{prefix}/queues/{{name}}")] {
        let letters = format!("{queue}/dead-letters");
        routes = routes
            .route(&letters, get(list))
            .route(&format!("{letters}/redrive"), post(redrive))
            .route(&format!("{letters}/discard"), post(discard));
    }
    routes
}

async fn list(
    State(app): State<Arc<App>>,
    queue: Queue,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    let [amount, after] = parameters(query.as_deref(), ["amount", "after"])?;
    let amount = whole("amount", amount, &(1..=AMOUNT_MAX))?.unwrap_or(AMOUNT);
    let after = whole("after", after, &(0..=i64::MAX))?.unwrap_or(0);
    reaper::bury(&app.pool, &app.stopping, BURY_LIMIT).await?;
    // one more tells whether there are more
    let most = i64::from(amount) + 1;
    let found = dead_letter::list(&app.pool, queue.queue_id, after, most, BYTES_MAX);
    let mut letters = within(LIMIT, found).await?;
    let last = dead_letter::last(&app.pool, queue.queue_id);
    let last = within(LIMIT, last).await?;
    letters.truncate(usize::try_from(amount).unwrap_or(1));
    let next = letters.last().map(|letter| letter.number);
    let next = next.filter(|number| *number < last);
    let json = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, json)], written(&letters, next)).into_response())
}

/// By hand, so that bodies are what they were, byte by byte.
fn written(letters: &[DeadLetter], next: Option<i64>) -> String {
    let length: usize = letters.iter().map(|letter| letter.body.len() + 200).sum();
    let mut text = String::with_capacity(length + 40);
    text.push_str(r#"{"deadLetters":["#);
    for (index, letter) in letters.iter().enumerate() {
        let DeadLetter {
            message_id,
            body,
            receive_count,
            ..
        } = letter;
        let comma = if index > 0 { "," } else { "" };
        let [pushed, dead] = [letter.pushed_at, letter.dead_at]
            .map(|moment| moment.to_rfc3339_opts(SecondsFormat::Millis, true));
        let _ = write!(
            text,
            r#"{comma}{{"id":"{message_id}","body":{body},"receiveCount":{receive_count},"pushedAt":"{pushed}","deadAt":"{dead}"}}"#
        );
    }
    let _ = match next {
        Some(next) => write!(text, r#"],"next":{next}}}"#),
        None => write!(text, r#"],"next":null}}"#),
    };
    text
}

/// `{"ids": [..]}` or `{"all": true}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    ids: Option<Vec<Uuid>>,
    #[serde(default)]
    all: bool,
}

impl Order {
    fn read(body: &[u8]) -> Result<Self, Error> {
        let order: Self = web::json::read(body)?;
        match &order.ids {
            Some(ids) if !order.all && (1..=IDS_MAX).contains(&ids.len()) => Ok(order),
            None if order.all => Ok(order),
            _ => Err(Error::unprocessable(
                "Say which: {\"ids\": [..]} with 1 to 1,000 of them, or {\"all\": true}.",
            )),
        }
    }
}

/// What is ordered.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Redrive,
    Discard,
}

async fn redrive(
    State(app): State<Arc<App>>,
    queue: Queue,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Response, Error> {
    let [] = parameters(query.as_deref(), [])?;
    let order = Order::read(&body)?;
    let (count, done) = each_batch(&app, &queue, &order, Fate::Redrive).await?;
    numbers::count(numbers::REDRIVEN, usize::try_from(count).unwrap_or(0));
    Ok(Json(json!({ "redriven": count, "done": done })).into_response())
}

async fn discard(
    State(app): State<Arc<App>>,
    queue: Queue,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Response, Error> {
    let [] = parameters(query.as_deref(), [])?;
    let order = Order::read(&body)?;
    let (count, done) = each_batch(&app, &queue, &order, Fate::Discard).await?;
    numbers::count(numbers::DISCARDED, usize::try_from(count).unwrap_or(0));
    Ok(Json(json!({ "discarded": count, "done": done })).into_response())
}

/// How many it was done to, and whether that was all.
async fn each_batch(
    app: &App,
    queue: &Queue,
    order: &Order,
    fate: Fate,
) -> Result<(u64, bool), Error> {
    let began = Instant::now();
    reaper::bury(&app.pool, &app.stopping, BURY_LIMIT).await?;
    let last = dead_letter::last(&app.pool, queue.queue_id);
    let meant = Meant {
        queue_id: queue.queue_id,
        ids: order.ids.as_deref(),
        up_to: within(LIMIT, last).await?,
        most: BATCH,
    };
    let mut count = 0;
    loop {
        let some = match fate {
            Fate::Redrive => within(LIMIT, dead_letter::redrive(&app.pool, meant)).await?,
            Fate::Discard => within(LIMIT, dead_letter::discard(&app.pool, meant)).await?,
        };
        count += some;
        if some < BATCH.unsigned_abs() {
            return Ok((count, true));
        }
        if began.elapsed() > ORDER_LIMIT || app.stopping.is_cancelled() {
            return Ok((count, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_which() {
        let id = Uuid::nil();
        assert!(Order::read(br#"{"all":true}"#).is_ok());
        assert!(Order::read(format!(r#"{{"ids":["{id}"]}}"#).as_bytes()).is_ok());
        let both = format!(r#"{{"ids":["{id}"],"all":true}}"#);
        for wrong in [
            "{}",
            r#"{"ids":[]}"#,
            r#"{"all":false}"#,
            &both,
            r#"{"x":1}"#,
        ] {
            assert!(Order::read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
