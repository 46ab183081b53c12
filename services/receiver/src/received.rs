//! The page of results: what was processed, by whom, how long it took and at which attempt.
//!
//! The same as JSON for those who prefer it, and at an address of its own.

use std::{collections::BTreeMap, sync::Arc};

use askama::Template;
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use sqlx::PgPool;
use web::{
    Error, Site,
    chrome::{Chrome, Tab},
    head::Head,
    live::{Drawn, banners},
    session::Visit,
    show::{NodeName, When, Written, number},
    wants_json,
};

use crate::{
    app::App,
    dead_letters,
    processed::{self, ProcessedRow},
};

pub const MEANINGS: &[(&str, &str)] = &[
    (
        "postgres",
        "Receivers hold what they have in hand and take nothing new until it is back. Nothing is lost.",
    ),
    (
        "rabbitmq",
        "Nothing arrives until it is back. What waits there is kept.",
    ),
    (
        "redis",
        "This page works without a session meanwhile. Messages are still processed.",
    ),
];

/// How many results the page shows.
const SHOWN: i64 = 20;

pub fn pages() -> Router<Arc<App>> {
    Router::new().route("/received", get(show))
}

pub fn api() -> Router<Arc<App>> {
    Router::new()
        .route("/received/api/messages", get(list))
        .route("/received/live", get(follow))
}

async fn follow(State(app): State<Arc<App>>) -> Response {
    app.live.read()
}

/// What changes on the page, as it is now.
pub(crate) async fn drawn(app: &App, site: &Site) -> Drawn {
    let results = results(app, site).await.ok();
    let mut chrome = chrome(site);
    say_held(&mut chrome, app.held.borrow().count);
    let mut parts = BTreeMap::new();
    let rows = results.and_then(|results| {
        let dead_letters = &results.dead_letters;
        if let Ok(dead) = (Dead { dead_letters }).render() {
            parts.insert("dead", dead);
        }
        let rows = results.messages.iter().map(|row| Row::new(row, &chrome));
        let rows: Vec<Row> = rows.collect();
        Rows { rows: &rows }.render().ok()
    });
    Drawn {
        rows,
        parts,
        banners: banners(&chrome).unwrap_or_default(),
    }
}

fn chrome(site: &Site) -> Chrome {
    Chrome::new(site, Tab::Results, "Results")
}

/// What was processed last, and how many that were given up on wait for somebody to decide.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Results {
    messages: Arc<[ProcessedRow]>,
    dead_letters: DeadLetters,
}

/// Counted up to a limit only, so that the page costs the same with any number of them.
#[derive(Debug, Clone, Copy, Serialize)]
struct DeadLetters {
    count: i64,
    /// Whether there are more than that.
    more: bool,
}

#[derive(Template)]
#[template(path = "received.html")]
struct Page {
    chrome: Chrome,
    head: Head,
    /// None while the database is away.
    results: Option<Shown>,
}

#[derive(Template)]
#[template(path = "result_rows.html")]
struct Rows<'a> {
    rows: &'a [Row],
}

#[derive(Template)]
#[template(path = "dead.html")]
struct Dead<'a> {
    dead_letters: &'a DeadLetters,
}

struct Shown {
    rows: Vec<Row>,
    dead_letters: DeadLetters,
}

struct Row {
    id: uuid::Uuid,
    number: String,
    node: NodeName,
    at: When,
    took: String,
    attempt: i32,
    text: Written,
}

async fn list(State(app): State<Arc<App>>, site: Site) -> Result<Json<Results>, Error> {
    results(&app, &site).await.map(Json)
}

async fn show(
    State(app): State<Arc<App>>,
    site: Site,
    uri: Uri,
    headers: HeaderMap,
    mut visit: Visit,
) -> Result<Response, Error> {
    let results = results(&app, &site).await;
    let mut response = if wants_json(&uri, &headers) {
        Json(results?).into_response()
    } else {
        // A page that fails is not a visit: its session would not be stored.
        if results.is_ok() {
            visit.start().await;
        }
        draw(&app, &site, &visit, results).await?
    };
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

async fn results(app: &App, site: &Site) -> Result<Results, Error> {
    site.need_database()?;
    app.results.read().await
}

/// As they are now.
pub(crate) async fn read(pool: &PgPool) -> Result<Results, sqlx::Error> {
    let (messages, count) =
        futures::try_join!(processed::newest(pool, SHOWN), dead_letters::count(pool))?;
    let dead_letters = DeadLetters {
        count: count.min(dead_letters::COUNT_MAX),
        more: count > dead_letters::COUNT_MAX,
    };
    Ok(Results {
        messages: messages.into(),
        dead_letters,
    })
}

async fn draw(
    app: &App,
    site: &Site,
    visit: &Visit,
    results: Result<Results, Error>,
) -> Result<Response, Error> {
    let mut chrome = chrome(site);
    say_held(&mut chrome, app.held.borrow().count);
    let (results, error) = Error::or_away(results)?;
    let figures = visit.figures().await;
    let shown = results.map(|results| Shown {
        rows: results
            .messages
            .iter()
            .map(|row| Row::new(row, &chrome))
            .collect(),
        dead_letters: results.dead_letters,
    });
    let page = Page {
        head: Head::new(site, &chrome, "Processed", app.processed(), figures),
        results: shown,
        chrome,
    };
    let response = web::page(&page)?.into_response();
    Ok(match error {
        Some(error) => error.on(response),
        None => response,
    })
}

fn say_held(chrome: &mut Chrome, held: usize) {
    if held > 0 {
        let (count, goes) = if held == 1 {
            ("1 delivery is held here".to_owned(), "It goes")
        } else {
            (format!("{held} deliveries are held here"), "They go")
        };
        chrome.warn(
            count,
            format!("{goes} on when the database does what it should again."),
        );
    }
}

impl Row {
    fn new(row: &ProcessedRow, chrome: &Chrome) -> Self {
        Self {
            id: row.message_id,
            number: number(row.number),
            node: NodeName::new(&row.node),
            at: chrome.when(row.received_at),
            took: number(row.took_ms),
            attempt: row.attempt,
            text: Written::new(row.text.clone()),
        }
    }
}
