//! What moves: `GET /lab/live` as server-sent events, and what was before as `GET /lab/api/history` and `/lab/api/state`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::StreamExt;
use web::Error;

use super::app::App;
use super::balance::Balances;
use super::history::Shown;
use super::picture::Picture;

/// After which a browser comes back.
const RETRY: Duration = Duration::from_secs(1);
const ALIVE: Duration = Duration::from_secs(10);

/// Looks for programs and scripts.
pub fn api(app: App) -> Router {
    Router::new()
        .route("/lab/live", get(live))
        .route("/lab/api/history", get(history))
        .route("/lab/api/state", get(state))
        .route("/lab/api/balance", get(balance))
        .with_state(app)
}

async fn live(State(app): State<App>, headers: HeaderMap) -> Result<Response, Error> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let state = serde_json::to_string(&*app.picture()).map_err(Error::internal)?;
    let events = app.feed.read(last, state);
    let events = events.ok_or_else(|| Error::away("Too many pages watch this console already."))?;
    let events = events.map(|event| {
        let sent = Event::default().event(event.kind).id(&event.id);
        Ok::<_, Infallible>(sent.data(&event.data).retry(RETRY))
    });
    // a console that stops waits for no reader
    let events = events.take_until(app.stopping.clone().cancelled_owned());
    let alive = KeepAlive::new().interval(ALIVE);
    // for a gateway that would gather an answer before it passes it on
    let head = [("x-accel-buffering", "no")];
    Ok((head, Sse::new(events).keep_alive(alive)).into_response())
}

async fn history(State(app): State<App>) -> Json<Shown> {
    Json(app.history.all())
}

async fn state(State(app): State<App>) -> Json<Arc<Picture>> {
    Json(app.picture())
}

/// In all, and of each run.
async fn balance(State(app): State<App>) -> Json<Balances> {
    Json(app.balances.borrow().clone())
}
