//! A message's passport: everything known of it in order, and what brought it back each time.
//!
//! [`records`] and [`deliveries`] read, [`story`] tells, [`cause`] says why; a page, JSON and a command show the same. No verdict rests on it:
//! deliveries are written behind the road and may be missing, and what is concluded says so.

pub mod cause;
pub mod cli;
pub mod deliveries;
pub mod id;
pub mod records;
pub mod story;

use std::path::PathBuf;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use sqlx::PgPool;
use uuid::Uuid;
use web::chrome::{Chrome, Tab};
use web::show::{NodeName, When, Written, number};
use web::{Error, Site};

use crate::console::access::Visitor;
use story::{Passport, Step};

/// Nothing is changed by looking.
pub const DEEDS: &[&str] = &[];

/// What passports and the search need.
#[derive(Clone)]
pub struct Ledgers {
    /// Of the role `auditor`, for both ledgers. It reads and writes nothing.
    pub auditor: PgPool,
    /// Of the role `lab`, which reads the same and owns the index of texts.
    pub lab: PgPool,
    /// The folder `runs` of the stack, to know which runs have a report; none where there is none.
    pub runs: Option<PathBuf>,
}

impl Ledgers {
    /// The address of a run's report, where it has one.
    fn report(&self, run: &str) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        // A run's name is anybody's: only what cannot lead elsewhere becomes a path.
        if run.is_empty() || run.starts_with('.') || !run.chars().all(plain) {
            return None;
        }
        let page = self.runs.as_ref()?.join(run).join(crate::report::PAGE);
        page.is_file()
            .then(|| format!("/lab/runs/{run}/report.html"))
    }
}

pub fn pages(ledgers: Ledgers) -> Router {
    Router::new()
        .route("/lab/messages/{id}", get(show))
        .with_state(ledgers)
}

pub fn api(ledgers: Ledgers) -> Router {
    Router::new()
        .route("/lab/api/messages/{id}", get(tell))
        .with_state(ledgers)
}

/// Reads what is known of a message.
///
/// # Errors
/// The database is away, or does not do what it should.
pub async fn passport(auditor: &PgPool, id: Uuid) -> Result<Option<Passport>, sqlx::Error> {
    let records = records::read(auditor, id).await?;
    Ok(story::tell(id, &records))
}

#[derive(Template)]
#[template(path = "console/passport.html")]
struct Page {
    chrome: Chrome,
    visitor: Visitor,
    id: Uuid,
    number: String,
    text: Option<Written>,
    run: Option<String>,
    report: Option<String>,
    state: story::State,
    steps: Vec<Shown>,
}

/// A step as the page has it.
struct Shown {
    at: When,
    node: Option<NodeName>,
    step: Step,
}

async fn found(ledgers: &Ledgers, id: &str) -> Result<Passport, Error> {
    let id: Uuid = id
        .parse()
        .map_err(|_| Error::bad_request("That is not the id of a message."))?;
    let passport = passport(&ledgers.auditor, id).await?;
    passport.ok_or_else(|| {
        let status = axum::http::StatusCode::NOT_FOUND;
        Error::new(status, "Nothing is on record of a message with this id.")
    })
}

async fn tell(
    State(ledgers): State<Ledgers>,
    Path(id): Path<String>,
) -> Result<Json<Passport>, Error> {
    found(&ledgers, &id).await.map(Json)
}

async fn show(
    State(ledgers): State<Ledgers>,
    Path(id): Path<String>,
    site: Site,
    visitor: Visitor,
) -> Result<Html<String>, Error> {
    let passport = found(&ledgers, &id).await?;
    let title = passport.number.map_or_else(
        || "Message".to_owned(),
        |number| format!("Message {number}"),
    );
    let chrome = Chrome::new(&site, Tab::Messages, title);
    let steps = passport.steps.into_iter().map(|step| Shown {
        at: chrome.when(step.at),
        node: step.node.as_deref().map(NodeName::new),
        step,
    });
    web::page(&Page {
        visitor,
        id: passport.message_id,
        number: passport.number.map(number).unwrap_or_default(),
        text: passport.text.map(Written::new),
        report: passport.run.as_deref().and_then(|run| ledgers.report(run)),
        run: passport.run,
        state: passport.state,
        steps: steps.collect(),
        chrome,
    })
}
