//! Dead letters for programs: what the pages show and do, as JSON.

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use messaging::receive::redrive::Selection;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;
use web::Error;
use web::json::JsonBody;

use super::fields::{Fields, who};
use super::room::{PER_SECOND, Room};

/// All that is posted here.
pub(super) const DEEDS: &[&str] = &[
    "/lab/api/dead/redrives",
    "/lab/api/dead/redrives/{id}/start",
    "/lab/api/dead/redrives/{id}/cancel",
    "/lab/api/dead/redrives/{id}/audit",
    "/lab/api/dead/discard",
];

/// The routes.
pub(super) fn routes(room: Room) -> Router {
    Router::new()
        .route("/lab/api/dead", get(list))
        .route("/lab/api/dead/redrives", post(plan))
        .route("/lab/api/dead/redrives/{id}", get(order))
        .route("/lab/api/dead/redrives/{id}/start", post(start))
        .route("/lab/api/dead/redrives/{id}/cancel", post(cancel))
        .route("/lab/api/dead/redrives/{id}/audit", post(audit))
        .route("/lab/api/dead/discard", post(discard))
        .with_state(room)
}

async fn list(
    State(room): State<Room>,
    RawQuery(query): RawQuery,
) -> Result<Json<serde_json::Value>, Error> {
    let asked = Fields::read(query.unwrap_or_default().as_bytes())?;
    let seen = room.list(&asked).await?;
    let letters: Vec<_> = seen
        .letters
        .iter()
        .map(|letter| {
            let mut shown = json!(letter);
            shown["text"] = json!(letter.text());
            shown
        })
        .collect();
    Ok(Json(
        json!({"groups": seen.groups, "dead_letters": letters, "redrives": seen.orders}),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    id: Option<Uuid>,
    selection: Selection,
    per_second: Option<u32>,
    #[serde(default)]
    dry_run: bool,
}

async fn plan(
    State(room): State<Room>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Error> {
    let asked: Asked = body.read()?;
    let id = asked.id.unwrap_or_else(Uuid::now_v7);
    let rate = asked.per_second.unwrap_or(PER_SECOND);
    let told = room
        .dead
        .receivers
        .plan(id, &asked.selection, rate, &who(&headers), asked.dry_run)
        .await?;
    let status = if asked.dry_run {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Json(told)).into_response())
}

async fn order(
    State(room): State<Room>,
    Path(id): Path<Uuid>,
) -> Result<Json<serde_json::Value>, Error> {
    let seen = room.order(id).await?;
    let order = &seen.order;
    Ok(Json(json!({
        "redrive": order,
        "plan": order.plan(),
        "left": order.left(),
        "outcome": seen.outcome,
        "runs": seen.runs.iter().map(|run| &run.run).collect::<Vec<_>>(),
        "audits": seen.runs,
        "more_runs": seen.more_runs,
    })))
}

async fn start(State(room): State<Room>, Path(id): Path<Uuid>) -> Result<Response, Error> {
    Ok(Json(room.start(id).await?).into_response())
}

async fn cancel(State(room): State<Room>, Path(id): Path<Uuid>) -> Result<Response, Error> {
    Ok(Json(room.cancel(id).await?).into_response())
}

/// Begun, if it was not; the order tells how far it is.
async fn audit(State(room): State<Room>, Path(id): Path<Uuid>) -> Result<Response, Error> {
    let runs = room.audit(id).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "runs": runs }))).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Discard {
    selection: Selection,
    confirm: String,
}

async fn discard(
    State(room): State<Room>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Json<serde_json::Value>, Error> {
    let asked: Discard = body.read()?;
    let done = room
        .dead
        .receivers
        .discard(&asked.selection, &asked.confirm, &who(&headers))
        .await?;
    Ok(Json(json!({ "discarded": done })))
}
