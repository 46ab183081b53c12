//! The lab's API: the catalogue, and runs that are started, watched, judged and stopped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use daemon::lifecycle::Lifecycle;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use web::Error;

use super::book::Book;
use super::director::Order;
use super::guard::guard;
use super::offers::Offer;
use super::shelf;
use super::shown::{self, Shown};
use super::start::start;
use crate::audit::Verdict;
use crate::experiment::journal::Outcome;
use crate::report;
use crate::run::{RunDir, RunId};
use crate::stack::dir;

/// The longest time that an answer may wait for the end of a run.
pub const PATIENCE: Duration = Duration::from_mins(2);
/// Seconds after which it is worth asking again.
pub(super) const RETRY_SECS: u32 = 2;
const RUNS: u64 = 20;
const RUNS_MAX: u64 = 200;
/// A report needs its own style and nothing else.
const REPORT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What a request can reach.
#[derive(Clone)]
pub struct App {
    pub(super) root: PathBuf,
    offers: Arc<Vec<Offer>>,
    pub(super) book: Arc<Book>,
    pub(super) orders: Sender<Order>,
    life: Lifecycle,
}

impl App {
    /// Runs lie in `root`.
    pub fn new(
        root: PathBuf,
        offers: Vec<Offer>,
        book: Arc<Book>,
        orders: Sender<Order>,
        life: Lifecycle,
    ) -> Self {
        Self {
            root,
            offers: Arc::new(offers),
            book,
            orders,
            life,
        }
    }

    /// The runs of this process.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Everything that can be had.
    pub fn offers(&self) -> &[Offer] {
        &self.offers
    }

    /// The experiment of this name.
    pub(super) fn offer(&self, name: &str) -> Result<&Offer, Error> {
        let found = self
            .offers
            .iter()
            .find(|offer| offer.experiment.name == name);
        found.ok_or_else(|| {
            let detail = "There is no experiment of this name; /lab/api/experiments lists all.";
            Error::new(StatusCode::NOT_FOUND, detail)
        })
    }

    /// The run of this name, of this process or an older one.
    pub async fn run(&self, id: &RunId) -> Result<Shown, Error> {
        let (root, id, ours) = (self.root.clone(), id.clone(), self.book.get(id));
        let found = spawn_blocking(move || match ours {
            Some(run) => Some(shelf::renewed(&root, run)),
            None => shelf::read(&root, &id),
        });
        let found = found.await;
        found.map_err(Error::internal)?.ok_or_else(no_run)
    }

    /// The same when it is over, if that comes in time.
    async fn run_at_its_end(&self, id: &RunId, wait: Duration) -> Result<Shown, Error> {
        let over = self.book.until(id, |run| run.state.is_over());
        let stopping = self.life.stopping();
        if self.book.get(id).is_some() {
            tokio::select! {
                _ = timeout(wait, over) => {}
                () = stopping.cancelled() => {}
            }
        }
        self.run(id).await
    }

    /// Another process of ours that has the stage: `lab experiment run`, say.
    pub(super) fn stage_is_taken(&self) -> Option<i32> {
        let holder = dir::holder(&self.root.join("experiments"))?;
        (u32::try_from(holder) != Ok(std::process::id())).then_some(holder)
    }
}

/// All routes, and the guard of a service that nobody signs in to.
pub fn router(app: App) -> Router {
    web::wrap_api(routes(app).layer(from_fn(guard)))
}

/// All routes; who may ask is the caller's.
pub fn routes(app: App) -> Router {
    Router::new()
        .route("/lab/api/experiments", get(experiments))
        .route("/lab/api/experiments/{name}/runs", post(start))
        .route("/lab/api/runs", get(runs))
        .route("/lab/api/runs/{id}", get(one).delete(stop))
        .route("/lab/api/runs/{id}/verdict", get(verdict))
        .route("/lab/runs/{id}/report.html", get(page))
        .with_state(app)
}

async fn experiments(State(app): State<App>) -> Json<Value> {
    let all: Vec<_> = app.offers.iter().map(Offer::listed).collect();
    Json(json!({ "experiments": all }))
}

/// 409.
pub fn conflict(detail: impl Into<String>) -> Error {
    Error::new(StatusCode::CONFLICT, detail.into())
}

fn no_run() -> Error {
    let detail = "There is no run of an experiment with this name.";
    Error::new(StatusCode::NOT_FOUND, detail)
}

/// Only what can name a run can name a folder.
pub fn id(text: &str) -> Result<RunId, Error> {
    text.parse().map_err(|_| {
        Error::bad_request("The name of a run is 1 to 40 of a-z, 0-9 and -, and this is none.")
    })
}

fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Error> {
    query.map(|Query(query)| query).map_err(|error| {
        let text = error.body_text();
        let why = text.trim_start_matches("Failed to deserialize query string: ");
        Error::unprocessable(format!("The query is not as expected: {why}."))
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<u64>,
}

async fn runs(
    State(app): State<App>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Error> {
    let limit = query(page)?.limit.unwrap_or(RUNS);
    if !(1..=RUNS_MAX).contains(&limit) {
        let detail = format!("limit is a number from 1 to {RUNS_MAX}.");
        return Err(Error::unprocessable(detail));
    }
    let limit = usize::try_from(limit).map_err(Error::internal)?;
    let mut all = app.newest(limit).await?;
    for run in &mut all {
        run.steps.clear();
    }
    Ok(Json(json!({ "runs": all })))
}

impl App {
    /// The newest runs, of this process and of others, newest first.
    pub async fn newest(&self, limit: usize) -> Result<Vec<Shown>, Error> {
        let ours = self.book.all();
        let root = self.root.clone();
        let all = spawn_blocking(move || {
            let ours = ours.into_iter().map(|run| shelf::renewed(&root, run));
            let mut all: Vec<Shown> = ours.collect();
            for old in shelf::newest(&root, limit)? {
                if !all.iter().any(|run| run.run == old.run) {
                    all.push(old);
                }
            }
            anyhow::Ok(all)
        });
        let all = all.await.map_err(Error::internal)?;
        let mut all = all.map_err(Error::internal)?;
        all.sort_by(|a, b| (b.created_at, &b.run).cmp(&(a.created_at, &a.run)));
        all.truncate(limit);
        Ok(all)
    }
}

/// One run, with what is broken for it now.
#[derive(Debug, Serialize)]
struct Looked {
    #[serde(flatten)]
    run: Shown,
    /// None: that is not known.
    faults: Option<Vec<Value>>,
}

impl Looked {
    fn at(run: Shown, app: &App) -> Self {
        // of the stage of this process: what another one breaks is not known here
        let faults = match (app.book.injector(), run.state) {
            (Some(injector), state) if state.is_ours() => injector.active().ok(),
            (_, shown::State::Unfinished) => None,
            _ => Some(Vec::new()),
        };
        let shown = |fault: crate::faults::Active| {
            json!({
                "fault": fault.order.fault, "struck": fault.struck, "since": fault.at, "seen": fault.seen,
            })
        };
        Self {
            run,
            faults: faults.map(|all| all.into_iter().map(shown).collect()),
        }
    }
}

async fn one(State(app): State<App>, Path(name): Path<String>) -> Result<Json<Looked>, Error> {
    let run = app.run(&id(&name)?).await?;
    Ok(Json(Looked::at(run, &app)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    /// Seconds.
    wait_s: Option<u64>,
}

/// What a run came to.
#[derive(Debug, Serialize)]
struct Ended {
    run: RunId,
    experiment: String,
    twin: bool,
    state: shown::State,
    verdict: Option<Verdict>,
    outcome: Option<Outcome>,
    reasons: Vec<String>,
    report: Option<String>,
}

/// 409 while there is none: the run is not in a state that has one. (425 means that a request may be a replay.)
async fn verdict(
    State(app): State<App>,
    Path(name): Path<String>,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Result<Json<Ended>, Error> {
    let (id, wait) = (id(&name)?, query(wait)?.wait_s.unwrap_or(0));
    if wait > PATIENCE.as_secs() {
        let detail = format!("wait_s is a number from 0 to {}.", PATIENCE.as_secs());
        return Err(Error::unprocessable(detail));
    }
    let run = app.run_at_its_end(&id, Duration::from_secs(wait)).await?;
    if !run.state.is_over() {
        let detail = match run.state {
            shown::State::Unfinished => {
                "It left no verdict: another command is at it, or was killed.".to_owned()
            }
            state => format!("There is no verdict yet: the run is {}.", state.word()),
        };
        return Err(conflict(detail).coded("not_finished").retry_in(RETRY_SECS));
    }
    Ok(Json(Ended {
        run: run.run,
        experiment: run.experiment,
        twin: run.twin,
        state: run.state,
        verdict: run.verdict,
        outcome: run.outcome,
        reasons: run.reasons,
        report: run.report,
    }))
}

/// Stops it, and answers when everything is healed. What is over stays as it is.
async fn stop(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Error> {
    let id = id(&name)?;
    app.book.stop(&id);
    let run = app.run_at_its_end(&id, PATIENCE).await?;
    if run.state == shown::State::Unfinished {
        let detail = "It is not this service's: another command is at it, or was killed.";
        return Err(conflict(detail).coded("not_ours"));
    }
    let status = if run.state.is_over() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, Json(Looked::at(run, &app))).into_response())
}

async fn page(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Error> {
    let id = id(&name)?;
    let run = RunDir::open(&app.root, &id).map_err(|_| no_run())?;
    let page = tokio::fs::read(run.path(report::PAGE)).await;
    let page = page.map_err(|_| {
        let detail = "This run has no report (yet).";
        Error::new(StatusCode::NOT_FOUND, detail)
    })?;
    let head = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, REPORT_POLICY),
    ];
    Ok((head, page).into_response())
}
