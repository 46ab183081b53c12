//! Sending dead letters back, and discarding them, for programs: by HTTP, with a secret.
//!
//! The lab is who calls it. [`messaging::receive::redrive`] does what is asked.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use messaging::receive::redrive::{NotDone, Order, Redrive, Redrives, Selection};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;
use web::{Error, json::JsonBody};

use crate::process::Work;

/// The header with the secret.
pub const TOKEN: &str = "x-redrive-token";
/// What a refusal is called where nothing is selected that could be done.
pub const NONE_FITS: &str = "none_fits";
/// What it is called where there is no redrive of that id.
pub const UNKNOWN: &str = "no_such_redrive";
/// Messages a second, where nobody says.
const PER_SECOND: i32 = 100;
const PER_SECOND_MAX: i32 = 10_000;
/// How many orders are listed.
const LISTED: i64 = 50;

type Orders = Redrives<Work>;

/// The routes; without a `token` all of them refuse.
pub(crate) fn api(redrives: Orders, token: Option<&str>) -> Router {
    let token: Option<Arc<str>> = token.map(Arc::from);
    Router::new()
        .route("/received/api/redrives", get(list).post(plan))
        .route("/received/api/redrives/{id}", get(show))
        .route("/received/api/redrives/{id}/start", post(start))
        .route("/received/api/redrives/{id}/cancel", post(cancel))
        .route("/received/api/dead-letters/discard", post(discard))
        .with_state(redrives)
        .layer(middleware::from_fn_with_state(token, guard))
}

async fn guard(
    State(token): State<Option<Arc<str>>>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = token else {
        let off = Error::forbidden("Nobody may do this here: the receiver has no REDRIVE_TOKEN.");
        return off.coded("redrives_off").into_response();
    };
    let given = headers.get(TOKEN).map_or(&[][..], |value| value.as_bytes());
    if !same(given, token.as_bytes()) {
        let wrong = Error::forbidden("The header X-Redrive-Token is missing, or is not right.");
        return wrong.coded("wrong_token").into_response();
    }
    next.run(request).await
}

/// In a time that does not tell where they differ.
fn same(given: &[u8], right: &[u8]) -> bool {
    let differences = given.iter().zip(right).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differences) == 0 && given.len() == right.len()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Made by the client: asked for twice, it is one.
    id: Option<Uuid>,
    selection: Selection,
    per_second: Option<i32>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    who: String,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    redrive: Redrive,
    plan: String,
    left: i64,
}

impl From<Redrive> for Shown {
    fn from(redrive: Redrive) -> Self {
        Self {
            plan: redrive.plan(),
            left: redrive.left(),
            redrive,
        }
    }
}

async fn plan(State(redrives): State<Orders>, body: JsonBody) -> Result<Response, Error> {
    let asked: Asked = body.read()?;
    check(&asked.selection)?;
    let per_second = asked.per_second.unwrap_or(PER_SECOND);
    if !(1..=PER_SECOND_MAX).contains(&per_second) {
        return Err(Error::unprocessable(format!(
            "per_second is {per_second}. Right is 1 to {PER_SECOND_MAX}."
        )));
    }
    let order = Order {
        redrive_id: asked.id.unwrap_or_else(Uuid::now_v7),
        selection: asked.selection,
        per_second,
        who: named(asked.who)?,
    };
    let planned = redrives.plan(&order, asked.dry_run).await.map_err(wrong)?;
    let status = if asked.dry_run {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Json(Shown::from(planned))).into_response())
}

/// Whether something is selected, in words that the database takes.
fn check(selection: &Selection) -> Result<(), Error> {
    if selection.is_empty() {
        return Err(Error::unprocessable(
            "Nothing is selected. If all dead letters are meant, say \"all\": true.",
        ));
    }
    if selection.has_nul() {
        return Err(Error::unprocessable(
            "reason, run, node and text are without NUL.",
        ));
    }
    Ok(())
}

/// Who asks: an address, or whatever tells people who it was.
fn named(who: String) -> Result<String, Error> {
    if who.len() > 200 || who.contains('\0') {
        return Err(Error::unprocessable(
            "who is at most 200 bytes, without NUL.",
        ));
    }
    Ok(who)
}

async fn list(State(redrives): State<Orders>) -> Result<Json<serde_json::Value>, Error> {
    let list = redrives.list(LISTED).await.map_err(wrong)?;
    let list: Vec<Shown> = list.into_iter().map(Shown::from).collect();
    Ok(Json(json!({ "redrives": list })))
}

async fn show(State(redrives): State<Orders>, Path(id): Path<Uuid>) -> Result<Json<Shown>, Error> {
    let redrive = redrives.get(id).await.map_err(wrong)?;
    Ok(Json(redrive.into()))
}

async fn start(State(redrives): State<Orders>, Path(id): Path<Uuid>) -> Result<Json<Shown>, Error> {
    let redrive = redrives.start(id).await.map_err(wrong)?;
    Ok(Json(redrive.into()))
}

async fn cancel(
    State(redrives): State<Orders>,
    Path(id): Path<Uuid>,
) -> Result<Json<Shown>, Error> {
    let redrive = redrives.cancel(id).await.map_err(wrong)?;
    Ok(Json(redrive.into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Discard {
    selection: Selection,
    /// "discard 412": how many there are, typed by a person.
    confirm: String,
    #[serde(default)]
    who: String,
}

async fn discard(
    State(redrives): State<Orders>,
    body: JsonBody,
) -> Result<Json<serde_json::Value>, Error> {
    let asked: Discard = body.read()?;
    check(&asked.selection)?;
    let count = asked.confirm.trim().strip_prefix("discard ");
    let Some(count) = count.and_then(|count| count.trim().parse().ok()) else {
        return Err(Error::unprocessable(
            "confirm is not \"discard\" and how many there are, such as \"discard 3\".",
        ));
    };
    let who = named(asked.who)?;
    let done = redrives.discard(&asked.selection, count, &who).await;
    Ok(Json(json!({ "discarded": done.map_err(wrong)? })))
}

fn wrong(error: NotDone) -> Error {
    let said = sentence(&error.to_string());
    let conflict = |said: String, code| Error::new(StatusCode::CONFLICT, said).coded(code);
    match error {
        NotDone::Database(error) => error.into(),
        NotDone::Unknown(_) => Error::new(StatusCode::NOT_FOUND, said).coded(UNKNOWN),
        NotDone::Ended => conflict(said, "redrive_ended"),
        NotDone::NoneFits | NotDone::NotOurs { .. } => conflict(said, NONE_FITS),
        NotDone::Settled(_) => conflict(said, "settled"),
        NotDone::NotConfirmed { .. } => conflict(said, "not_confirmed"),
        NotDone::TooMany => Error::unprocessable(said).coded("too_many"),
        // not 503: the gateway would try the same on every other receiver
        NotDone::TooLong => Error::unprocessable(said).coded("too_long"),
    }
}

fn sentence(said: &str) -> String {
    let mut letters = said.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_begins_and_ends_as_a_sentence() {
        assert_eq!(sentence("no dead letter fits"), "No dead letter fits.");
        assert_eq!(sentence("1 dead letter fits"), "1 dead letter fits.");
    }

    #[test]
    fn only_the_whole_token_is_the_same() {
        assert!(same(b"secret", b"secret"));
        for wrong in ["", "s", "secreT", "secret2"] {
            assert!(!same(wrong.as_bytes(), b"secret"), "{wrong}");
        }
    }
}
