//! The queues: a page that shows how full they are, or one of them (`?name=`), the same as JSON, and how one is made or changed.

use std::sync::Arc;

use askama::Template;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{FromRequestParts, RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header::VARY, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use daemon::database::within;
use serde::{Deserialize, Serialize};
use web::{
    Error, Site,
    chrome::{Chrome, Tab},
    head::Head,
    session::Visit,
    show::number,
    wants_json,
};

use crate::{
    api::LEASE_MS_MAX,
    app::App,
    queue::{self, COUNT_MAX, QueueRow},
    request::{in_path, no_queue, parameters},
};

pub(crate) const MEANINGS: &[(&str, &str)] = &[
    (
        "postgres",
        "Nothing can be pushed, leased or confirmed until it is back. What was pushed is kept, and leases end by its clock.",
    ),
    (
        "redis",
        "This page works without a session meanwhile. The queues do not need it.",
    ),
];

const RECEIVES_MAX: i32 = 1_000_000;
const LIMIT: std::time::Duration = std::time::Duration::from_secs(3);

/// The page under this prefix.
pub(crate) fn pages(prefix: &str) -> Router<Arc<App>> {
    Router::new().route(&format!("{prefix}/queues"), get(show))
}

/// What makes a queue, under this prefix.
pub(crate) fn api(prefix: &str) -> Router<Arc<App>> {
    Router::new().route(&format!("{prefix}/queues/{{name}}"), put(change))
}

/// What can be said of a queue; what is not said stays.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    lease_ms: Option<i32>,
    max_receives: Option<i32>,
}

impl Wanted {
    fn read(body: &[u8]) -> Result<Self, Error> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let wanted: Self = web::json::read(body)?;
        let within = |value: Option<i32>, from: i32, to: i32| {
            value.is_none_or(|value| (from..=to).contains(&value))
        };
        if !within(wanted.lease_ms, 1, LEASE_MS_MAX) {
            return Err(Error::unprocessable(
                "lease_ms is from 1 to 43,200,000: twelve hours.",
            ));
        }
        if !within(wanted.max_receives, 0, RECEIVES_MAX) {
            return Err(Error::unprocessable(
                "max_receives is from 0 to 1,000,000; 0 means without end.",
            ));
        }
        Ok(wanted)
    }
}

/// A name that a queue may have.
struct NewName(String);

impl<S: Send + Sync> FromRequestParts<S> for NewName {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let name = in_path(parts, "name").await.unwrap_or_default();
        if queue::is_name(&name) {
            Ok(Self(name))
        } else {
            Err(Error::bad_request(
                "The name of a queue is 1 to 80 of a-z, 0-9, \".\", \"_\" and \"-\".",
            ))
        }
    }
}

async fn change(
    State(app): State<Arc<App>>,
    NewName(name): NewName,
    body: Bytes,
) -> Result<Response, Error> {
    app.need_database()?;
    let wanted = Wanted::read(&body)?;
    let put = queue::put(&app.pool, &name, wanted.lease_ms, wanted.max_receives);
    let (made, settings) = within(LIMIT, put).await?;
    tracing::info!(
        queue.name = name,
        made,
        lease_ms = settings.lease_ms,
        max_receives = settings.max_receives,
        "queue set"
    );
    let status = if made {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(settings)).into_response())
}

#[derive(Serialize)]
struct List<'a> {
    queues: &'a [QueueRow],
    /// A count above this one means more than this.
    counted_to: i64,
}

#[derive(Template)]
#[template(path = "queues.html")]
struct Page {
    chrome: Chrome,
    head: Head,
    /// Where the same page is.
    here: String,
    /// None while the database is away.
    rows: Option<Vec<Row>>,
    is_cut: bool,
}

struct Row {
    name: String,
    ready: String,
    leased: String,
    dead: String,
    has_dead: bool,
    rates: [String; 3],
    lease: String,
    receives: String,
}

async fn show(
    State(app): State<Arc<App>>,
    site: Site,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    mut visit: Visit,
) -> Result<Response, Error> {
    let [name] = parameters(query.as_deref(), ["name"])?;
    let rows = match (site.need_database(), name) {
        (Ok(()), None) => app.shown.read().await,
        (Ok(()), Some(name)) => named(&app, name).await,
        (Err(error), _) => Err(error),
    };
    let mut response = if wants_json(&uri, &headers) {
        let rows = rows?;
        let list = List {
            queues: &rows,
            counted_to: COUNT_MAX,
        };
        Json(list).into_response()
    } else {
        // A page that fails is not a visit: its session would not be stored.
        if rows.is_ok() {
            visit.start().await;
        }
        draw(&app, &site, &uri, &visit, rows).await?
    };
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// The one of this name, however many there are.
async fn named(app: &App, name: &str) -> Result<Arc<[QueueRow]>, Error> {
    if !queue::is_name(name) {
        return Err(no_queue(name));
    }
    queue::one(&app.pool, name)
        .await?
        .ok_or_else(|| no_queue(name))
}

async fn draw(
    app: &App,
    site: &Site,
    uri: &Uri,
    visit: &Visit,
    rows: Result<Arc<[QueueRow]>, Error>,
) -> Result<Response, Error> {
    let chrome = Chrome::new(site, Tab::Other, "Lease queues");
    let (rows, error) = Error::or_away(rows)?;
    let figures = visit.figures().await;
    let page = Page {
        head: Head::new(site, &chrome, "Leased", app.tally.read(), figures),
        here: uri.path().to_owned(),
        is_cut: rows.as_ref().is_some_and(|rows| rows.len() >= queue::SHOWN),
        rows: rows.map(|rows| rows.iter().map(Row::new).collect()),
        chrome,
    };
    let response = web::page(&page)?.into_response();
    Ok(match error {
        Some(error) => error.on(response),
        None => response,
    })
}

impl Row {
    fn new(row: &QueueRow) -> Self {
        let rates = [
            row.rates.pushed_per_second,
            row.rates.leased_per_second,
            row.rates.confirmed_per_second,
        ];
        Self {
            name: row.settings.name.clone(),
            ready: counted(row.ready),
            leased: counted(row.leased),
            dead: counted(row.dead),
            has_dead: row.dead > 0,
            rates: rates.map(rate),
            lease: duration(row.settings.lease_ms),
            receives: match row.settings.max_receives {
                0 => "never dead".to_owned(),
                1 => "dead after 1 lease".to_owned(),
                times => format!("dead after {} leases", number(times.into())),
            },
        }
    }
}

fn counted(count: i64) -> String {
    if count > COUNT_MAX {
        format!("over {}", number(COUNT_MAX))
    } else {
        number(count)
    }
}

/// Whole above ten, with a tenth below.
fn rate(rate: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rates are far below what an integer holds"
    )]
    let whole = rate.round() as i64;
    if rate == 0.0 || rate >= 10.0 {
        number(whole)
    } else {
        format!("{rate:.1}")
    }
}

/// In the largest unit that says it whole.
fn duration(milliseconds: i32) -> String {
    let units = [(3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    let fits = units.into_iter().find(|(unit, _)| milliseconds % unit == 0);
    let (unit, name) = fits.unwrap_or((1, "ms"));
    format!("{} {name}", number((milliseconds / unit).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_bounds() {
        let wanted = Wanted::read(br#"{"lease_ms":5,"max_receives":0}"#).unwrap();
        assert_eq!((wanted.lease_ms, wanted.max_receives), (Some(5), Some(0)));
        assert!(Wanted::read(b" ").is_ok());
        for (wrong, status) in [
            ("{", 400),
            ("[]", 422),
            (r#"{"lease_ms":0}"#, 422),
            (r#"{"lease_ms":43200001}"#, 422),
            (r#"{"max_receives":-1}"#, 422),
            (r#"{"lease":1}"#, 422),
        ] {
            let error = Wanted::read(wrong.as_bytes()).unwrap_err();
            assert_eq!(error.status(), status, "{wrong}");
        }
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            ["0", "0.3", "9.9", "1,204"],
            [0.0, 0.3, 9.9, 1_204.4].map(rate)
        );
        let spoken = [1, 1_000, 1_500, 90_000, 120_000, 43_200_000].map(duration);
        assert_eq!(spoken, ["1 ms", "1 s", "1,500 ms", "90 s", "2 min", "12 h"]);
        assert_eq!(counted(COUNT_MAX + 1), "over 100,000");
    }
}
