//! A run is started: what may be asked for, and why it is refused.

use std::sync::Arc;

use axum::Json;
use axum::body::HttpBody;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use web::Error;
use web::json::JsonBody;

use super::api::{App, RETRY_SECS, conflict};
use super::book::Refused;
use super::director::Order;
use super::shown::Shown;
use crate::run::{RunDir, RunId};

/// Seeds that are chosen here are whole numbers to every reader of JSON.
const SEED_END: u64 = 1 << 53;

/// What a run may be told.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Its name; without it a new one.
    pub run: Option<RunId>,
    pub twin: bool,
    /// Without it by chance.
    pub seed: Option<u64>,
}

impl Wanted {
    /// An empty body wants nothing in particular; any other must be said to be JSON, which no foreign form can say.
    async fn read(request: Request) -> Result<Self, Error> {
        if request.body().size_hint().exact() == Some(0) {
            return Ok(Self::default());
        }
        let body = JsonBody::from_request(request, &()).await?;
        if body.is_array() {
            return Err(Error::unprocessable(
                "The JSON is an array; an object is needed.",
            ));
        }
        body.read()
    }
}

/// `POST /lab/api/experiments/{name}/runs`
pub(super) async fn start(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    app.offer(&name)?;
    let wanted = Wanted::read(request).await?;
    let shown = begin(&app, &name, wanted)?;
    let location = [(LOCATION, format!("/lab/api/runs/{}", shown.run))];
    Ok((StatusCode::ACCEPTED, location, Json(shown)).into_response())
}

/// A run of this experiment begins, or it is said why not.
pub fn begin(app: &App, name: &str, wanted: Wanted) -> Result<Shown, Error> {
    let offer = app.offer(name)?;
    let experiment = Arc::clone(&offer.experiment);
    if let Some(why) = &offer.why_not {
        return Err(Error::unprocessable(format!(
            "This stack cannot do it: {why}."
        )));
    }
    if wanted.twin && experiment.twin.is_none() {
        return Err(Error::unprocessable(format!("{name} has no twin.")));
    }
    let id = wanted.run.unwrap_or_default();
    if RunDir::open(&app.root, &id).is_ok() {
        return Err(exists(&id));
    }
    let seed = wanted
        .seed
        .unwrap_or_else(|| rand::random_range(0..SEED_END));
    let shown = Shown::new(id.clone(), name, &experiment.title, wanted.twin, seed);
    app.book
        .begin(shown.clone())
        .map_err(|refused| refuse(&id, refused))?;
    // only after that: to look at the lock takes it for a moment, and nobody else can be about to
    if let Some(pid) = app.stage_is_taken() {
        app.book.forget(&id);
        let detail = format!(
            "Another command (pid {pid}) runs experiments in the same folder; wait for it, or end it."
        );
        return Err(conflict(detail).coded("stage_taken"));
    }
    let order = Order {
        id: id.clone(),
        experiment,
        twin: wanted.twin,
        seed,
    };
    if app.orders.try_send(order).is_err() {
        app.book.forget(&id);
        return Err(Error::away("The lab is stopping."));
    }
    Ok(shown)
}

fn refuse(id: &RunId, refused: Refused) -> Error {
    match refused {
        Refused::Exists => exists(id),
        Refused::Closed => Error::away("The lab is stopping."),
        Refused::Busy(other) => {
            let (run, experiment, state) = (&other.run, &other.experiment, other.state.word());
            let detail = format!("One runs at a time, and {run} ({experiment}) is {state}.");
            let page = (format!("/lab/runs/{run}"), "To its page, to stop it there");
            let programs = format!("Wait for its verdict, or stop it: DELETE /lab/api/runs/{run}");
            conflict(detail)
                .coded("busy")
                .retry_in(RETRY_SECS)
                .advised(page, programs)
        }
    }
}

fn exists(id: &RunId) -> Error {
    conflict(format!("The run {id} exists; choose another name.")).coded("run_exists")
}
