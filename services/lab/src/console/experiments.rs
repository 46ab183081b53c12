//! `/lab/experiments`: what there is to play and what each teaches; one run, followed; past runs.
//!
//! The director and the book of `lab serve` do it, in this process: one run at a time, on a stage of its own. The page of
//! a run that goes on is asked for again.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use web::chrome::{Chrome, Tab};
use web::{Error, Site};

use super::access::Visitor;
use super::app::App;
use crate::audit::Verdict;
use crate::say::grouped;
use crate::service::api;
use crate::service::offers::Offer;
use crate::service::shown::Shown;
use crate::service::start::{Wanted, begin};

/// All that is posted here.
pub const DEEDS: &[&str] = &[
    "/lab/experiments/{name}/runs",
    "/lab/api/experiments/{name}/runs",
    "/lab/runs/{id}/stop",
    "/lab/api/runs/{id}/stop",
    "DELETE /lab/api/runs/{id}",
];
/// Past runs on the page.
const RUNS: usize = 30;

/// The pages and their forms.
pub fn pages(app: App) -> Router {
    Router::new()
        .route("/lab/experiments", get(all))
        .route("/lab/experiments/{name}/runs", post(start))
        .route("/lab/runs/{id}", get(one))
        .route("/lab/runs/{id}/stop", post(stop))
        .with_state(app)
}

/// The API of `lab serve`, and a way to stop without `DELETE`.
pub fn api(app: &App) -> Router {
    let stop = Router::new().route("/lab/api/runs/{id}/stop", post(api::stop));
    api::routes(app.experiments.clone()).merge(stop.with_state(app.experiments.clone()))
}

#[derive(Template)]
#[template(path = "console/experiments.html")]
struct Catalogue<'a> {
    chrome: Chrome,
    visitor: Visitor,
    offers: Vec<Offered<'a>>,
    runs: Vec<Shown>,
    no_experiments: Option<&'a str>,
}

/// One that can be played, or why not.
struct Offered<'a> {
    offer: &'a Offer,
    twin: Option<String>,
    why_not: Option<&'a str>,
}

async fn all(State(app): State<App>, site: Site, visitor: Visitor) -> Result<Html<String>, Error> {
    let no_experiments = app.no_experiments.as_deref();
    let offered = |offer| Offered {
        offer,
        twin: Offer::twin(offer),
        why_not: no_experiments.or(offer.why_not.as_deref()),
    };
    web::page(&Catalogue {
        chrome: Chrome::new(&site, Tab::Experiments, "Experiments"),
        visitor,
        offers: app.experiments.offers().iter().map(offered).collect(),
        runs: app.experiments.newest(RUNS).await?,
        no_experiments,
    })
}

#[derive(Template)]
#[template(path = "console/run.html")]
struct Followed {
    chrome: Chrome,
    visitor: Visitor,
    /// What was done, and how long that took, where it took time.
    steps: Vec<(String, Option<String>)>,
    run: Shown,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "templates pass references"
)]
fn count(count: &u64) -> String {
    grouped(*count)
}

/// A step as it was told, which may begin with how long it took: `27.6 s  servers started`.
fn timed(step: &str) -> (String, Option<String>) {
    match step.split_once(" s  ") {
        Some((seconds, what)) if seconds.parse::<f64>().is_ok() => {
            (what.to_owned(), Some(format!("{seconds} s")))
        }
        _ => (step.to_owned(), None),
    }
}

async fn one(
    State(app): State<App>,
    site: Site,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Html<String>, Error> {
    let run = app.experiments.run(&api::id(&id)?).await?;
    web::page(&Followed {
        chrome: Chrome::new(&site, Tab::Experiments, format!("Run {id}")),
        visitor,
        steps: run.steps.iter().map(|step| timed(step)).collect(),
        run,
    })
}

async fn start(
    State(app): State<App>,
    Path(name): Path<String>,
    Form(fields): Form<BTreeMap<String, String>>,
) -> Result<Response, Error> {
    if let Some(why) = &app.no_experiments {
        return Err(Error::unprocessable(why.clone()));
    }
    let seed = fields.get("seed").filter(|seed| !seed.is_empty());
    let seed = seed.map(|seed| seed.parse()).transpose();
    let wanted = Wanted {
        run: None,
        twin: fields.get("twin").is_some_and(|twin| twin == "1"),
        seed: seed.map_err(|_| Error::unprocessable("The seed is a whole number."))?,
    };
    let run = begin(&app.experiments, &name, wanted)?;
    Ok(Redirect::to(&format!("/lab/runs/{}", run.run)).into_response())
}

async fn stop(State(app): State<App>, Path(id): Path<String>) -> Result<Redirect, Error> {
    let id = api::id(&id)?;
    app.experiments.tell_to_stop(&id).await?;
    Ok(Redirect::to(&format!("/lab/runs/{id}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_took_is_told_apart_from_what_it_was() {
        let (what, took) = timed("27.6 s  servers and gateway started");
        assert_eq!(
            (&*what, took.as_deref()),
            ("servers and gateway started", Some("27.6 s"))
        );
        for note in ["seen: it is gone", "after 3 s  it came back"] {
            assert_eq!(timed(note), (note.to_owned(), None));
        }
    }
}
