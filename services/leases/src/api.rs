//! The queue over HTTP, for programs: push, lease, confirm, extend, give back.
//!
//! The same at `/` for the queue `default` and at `/queues/{name}` for the others. Errors are problem details.

use std::{fmt::Write, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{RawQuery, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::{patch, post},
};
use serde_json::json;
use uuid::Uuid;
use web::{
    Error,
    headers::{self, header},
};

use crate::{
    app::App,
    hold::Holder,
    lease::Ask,
    left::Left,
    message::Leased,
    push::{Push, Receipt},
    request::{self, MessageId, Queue, not_leased, parameters, token, whole},
    wait::wait,
};

const AMOUNT: i32 = 10;
const AMOUNT_MAX: i32 = 1_000;
/// Twelve hours.
pub(crate) const LEASE_MS_MAX: i32 = 43_200_000;
const WAIT_MS_MAX: i32 = 20_000;
/// The client's own. The gateway's does not count: it tries no other node with a push, and each key is a row.
const KEY: &str = "idempotency-key";
const KEY_MAX: usize = 200;

/// All of it under this prefix.
pub(crate) fn routes(prefix: &str) -> Router<Arc<App>> {
    let mut routes = Router::new();
    for queue in [prefix.to_owned(), format!("{prefix}/queues/{{name}}")] {
        let root = || post(push).get(lease).head(look);
        if !queue.is_empty() {
            routes = routes.route(&queue, root());
        }
        routes = routes
            .route(&format!("{queue}/"), root())
            .route(&format!("{queue}/batch"), post(push_many))
            .route(&format!("{queue}/{{id}}"), patch(confirm))
            .route(
                &format!("{queue}/{{id}}/lease"),
                patch(extend).delete(give_back),
            );
    }
    routes
}

async fn push(
    State(app): State<Arc<App>>,
    queue: Queue,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Error> {
    let [] = parameters(query.as_deref(), [])?;
    let ids = store(&app, &queue, &headers, vec![request::message(&body)?]).await?;
    // As many ids as bodies, also of an earlier request: its bodies were the same.
    Ok((StatusCode::CREATED, Json(json!({ "messageID": ids[0] }))).into_response())
}

async fn push_many(
    State(app): State<Arc<App>>,
    queue: Queue,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Error> {
    let [] = parameters(query.as_deref(), [])?;
    let ids = store(&app, &queue, &headers, request::messages(&body)?).await?;
    Ok((StatusCode::CREATED, Json(json!({ "messageIDs": ids }))).into_response())
}

async fn store(
    app: &App,
    queue: &Queue,
    headers: &HeaderMap,
    bodies: Vec<String>,
) -> Result<Vec<Uuid>, Error> {
    let push = Push {
        queue_id: queue.queue_id,
        bodies,
        key: header(headers, KEY, KEY_MAX)?,
        run: headers::run(headers)?,
    };
    match app.pushing.ask(push).await? {
        Receipt::Pushed(ids) | Receipt::Repeated(ids) => Ok(ids),
        Receipt::KeyReused => {
            let detail = "This Idempotency-Key was used for other messages.";
            Err(Error::unprocessable(detail).coded("key_reused"))
        }
    }
}

async fn lease(
    State(app): State<Arc<App>>,
    queue: Queue,
    RawQuery(query): RawQuery,
    left: Left,
) -> Result<Response, Error> {
    let names = ["amount", "lease_ms", "wait_ms"];
    let [amount, lease_ms, wait_ms] = parameters(query.as_deref(), names)?;
    let amount = whole("amount", amount, &(1..=AMOUNT_MAX))?.unwrap_or(AMOUNT);
    let ask = Ask {
        queue_id: queue.queue_id,
        amount: usize::try_from(amount).unwrap_or(1),
        lease_ms: whole("lease_ms", lease_ms, &(1..=LEASE_MS_MAX))?,
    };
    let wait_ms = whole("wait_ms", wait_ms, &(0..=WAIT_MS_MAX))?.unwrap_or(0);
    let time = Duration::from_millis(u64::from(wait_ms.unsigned_abs()));
    let leased = wait(&app, ask, time, &left).await?;
    if left.is_true() {
        app.take_back(ask.queue_id, leased).await;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        // A lease is for one.
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, written(&leased)).into_response())
}

/// By hand, so that bodies are what they were, byte by byte.
fn written(leased: &[Leased]) -> String {
    let length: usize = leased.iter().map(|leased| leased.body.len() + 140).sum();
    let mut text = String::with_capacity(length + 20);
    text.push_str(r#"{"messages":["#);
    for (index, leased) in leased.iter().enumerate() {
        let Leased {
            message_id,
            body,
            token,
            receive_count,
            ..
        } = leased;
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(
            text,
            r#"{comma}{{"id":"{message_id}","body":{body},"token":"{token}","receiveCount":{receive_count}}}"#
        );
    }
    text.push_str("]}");
    text
}

/// HEAD: without this, the library would lease and throw away what was leased.
async fn look(_: Queue) -> Response {
    let json = HeaderValue::from_static("application/json");
    [(CONTENT_TYPE, json)].into_response()
}

async fn confirm(
    State(app): State<Arc<App>>,
    queue: Queue,
    id: MessageId,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<StatusCode, Error> {
    let [said] = parameters(query.as_deref(), ["token"])?;
    let holder = holder(&queue, &id, token(&headers, said)?);
    done(app.confirming.ask(holder).await?)
}

async fn extend(
    State(app): State<Arc<App>>,
    queue: Queue,
    id: MessageId,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<StatusCode, Error> {
    let [said, lease_ms] = parameters(query.as_deref(), ["token", "lease_ms"])?;
    let lease_ms = whole("lease_ms", lease_ms, &(1..=LEASE_MS_MAX))?;
    let holder = holder(&queue, &id, token(&headers, said)?);
    done(app.extending.ask((holder, lease_ms)).await?)
}

async fn give_back(
    State(app): State<Arc<App>>,
    queue: Queue,
    id: MessageId,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<StatusCode, Error> {
    let [said] = parameters(query.as_deref(), ["token"])?;
    let holder = holder(&queue, &id, token(&headers, said)?);
    done(app.giving_back.ask((holder, false)).await?)
}

fn holder(queue: &Queue, id: &MessageId, token: Option<Uuid>) -> Holder {
    Holder {
        queue_id: queue.queue_id,
        message_id: id.0,
        token,
    }
}

fn done(done: bool) -> Result<StatusCode, Error> {
    if done {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(not_leased())
    }
}
