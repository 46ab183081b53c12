//! The search: messages by id, text, node, state, run, attempts and time, newest first, page by page.
//!
//! [`query`] understands what is asked, [`engine`] finds a [`page`] of it, [`index`] is the loop that copies texts behind the
//! road to where they are found. Nothing counts all that fits: that would cost more than it tells.

pub mod engine;
pub mod index;
pub mod page;
pub mod query;
mod range;
mod window;

use std::time::Duration;

use askama::Template;
use axum::extract::{Query as Parameters, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use daemon::database::within;
use web::chrome::{Chrome, Tab};
use web::show::{NodeName, When, Written, number};
use web::{Error, Site};

use crate::console::access::Visitor;
use crate::passport::{Ledgers, story};
pub use index::{Indexer, prepare};
use page::{Found, Page};
use query::{Asked, Cursor, Query};

/// Above what a page and a statement may take.
const LIMIT: Duration = Duration::from_secs(12);

/// Nothing is changed by looking.
pub const DEEDS: &[&str] = &[];

pub fn pages(ledgers: Ledgers) -> Router {
    Router::new()
        .route("/lab/messages", get(show))
        .with_state(ledgers)
}

pub fn api(ledgers: Ledgers) -> Router {
    Router::new()
        .route("/lab/api/messages", get(list))
        .with_state(ledgers)
}

async fn found(ledgers: &Ledgers, query: &Query, cursor: Cursor) -> Result<Page, Error> {
    // the server's own limit does not hold where it hangs, or the link is silent
    within(LIMIT, engine::find(&ledgers.lab, query, cursor))
        .await
        .map_err(|error| {
            let too_long = error
                .as_database_error()
                .and_then(sqlx::error::DatabaseError::code);
            if too_long.as_deref() == Some("57014") {
                Error::away("This search took too long. Please ask for less.").because(error)
            } else {
                Error::from(error)
            }
        })
}

async fn list(
    State(ledgers): State<Ledgers>,
    Parameters(asked): Parameters<Asked>,
) -> Result<Json<Page>, Error> {
    let (query, cursor) = asked.parse().map_err(Error::bad_request)?;
    found(&ledgers, &query, cursor).await.map(Json)
}

#[derive(Template)]
#[template(path = "console/search.html")]
struct Shown {
    chrome: Chrome,
    visitor: Visitor,
    asked: Asked,
    /// Why nothing was looked for.
    wrong: Option<String>,
    rows: Vec<Row>,
    older: Option<String>,
    newer: Option<String>,
    searched_to: Option<String>,
    behind: Option<String>,
}

struct Row {
    found: Found,
    number: String,
    at: When,
    node: NodeName,
    processed_by: Option<NodeName>,
    text: Written,
}

async fn show(
    State(ledgers): State<Ledgers>,
    Parameters(asked): Parameters<Asked>,
    site: Site,
    visitor: Visitor,
) -> Result<(StatusCode, Html<String>), Error> {
    // what was typed stays in the form
    let (wrong, page) = match asked.parse() {
        Err(why) => (Some(why), Page::default()),
        Ok((query, cursor)) => (None, found(&ledgers, &query, cursor).await?),
    };
    let status = wrong
        .as_ref()
        .map_or(StatusCode::OK, |_| StatusCode::BAD_REQUEST);
    let chrome = Chrome::new(&site, Tab::Messages, "Messages");
    let rows = page.messages.into_iter().map(|found| Row {
        number: number(found.number),
        at: chrome.when(found.accepted_at),
        node: NodeName::new(&found.node),
        processed_by: found.processed_by.as_deref().map(NodeName::new),
        text: Written::new(found.text.clone()),
        found,
    });
    let address = |cursor: Option<String>| cursor.map(|cursor| address(&asked, &cursor));
    let html = web::page(&Shown {
        visitor,
        wrong,
        rows: rows.collect(),
        older: address(page.older),
        newer: address(page.newer),
        searched_to: page.searched_to.map(number),
        behind: (page.behind > 0).then(|| number(page.behind)),
        asked: asked.clone(),
        chrome,
    })?;
    Ok((status, html))
}

/// The same search from there on.
fn address(asked: &Asked, cursor: &str) -> String {
    let fields = [
        ("id", &asked.id),
        ("text", &asked.text),
        ("node", &asked.node),
        ("state", &asked.state),
        ("run", &asked.run),
        ("attempts", &asked.attempts),
        ("from", &asked.from),
        ("to", &asked.to),
    ];
    let mut url = reqwest::Url::parse("http://lab/lab/messages").expect("a fixed address");
    let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
    url.query_pairs_mut()
        .extend_pairs(given)
        .append_pair("page", cursor);
    format!("/lab/messages?{}", url.query().unwrap_or_default())
}
