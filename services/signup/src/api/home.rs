//! The page of an account: who it is, and where the welcome mail is.

use std::{sync::Arc, time::Duration};

use askama::Template;
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header::VARY},
    response::{AppendHeaders, IntoResponse, Redirect, Response},
    routing::get,
};
use chrono::{DateTime, Utc};
use daemon::database::within;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;
use web::{
    Error, Site, Under,
    chrome::{Chrome, Tab},
    show::When,
    wants_json,
};

use super::{
    account::{self, Account, Mail},
    answer::unknown,
    app::{App, Caller},
};

/// How long one question to the database may take.
pub(super) const LIMIT: Duration = Duration::from_secs(3);

pub(super) const MEANINGS: &[(&str, &str)] = &[
    (
        "postgres",
        "Nobody can sign up or log in until it is back. Accounts are kept.",
    ),
    (
        "rabbitmq",
        "Accounts are still created; their welcome mails wait in the outbox until it is back.",
    ),
    ("redis", "Nothing on these pages needs it."),
];

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(show))
        .route("/health", get(health))
}

#[derive(Template)]
#[template(path = "account.html")]
struct Page {
    chrome: Chrome,
    under: Under,
    account: Account,
    created_at: When,
    sent_at: Option<When>,
}

/// An account for a program.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    user_id: Uuid,
    first_name: String,
    last_name: String,
    email: String,
    created_at: DateTime<Utc>,
    message_id: Uuid,
    mail: Mail,
    sent_at: Option<DateTime<Utc>>,
}

async fn show(
    State(app): State<Arc<App>>,
    site: Site,
    Caller(claims): Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let vary = AppendHeaders([(VARY, "accept, cookie, authorization")]);
    let json = wants_json(&uri, &headers);
    let account = match &claims {
        Some(claims) => {
            site.need_database()?;
            within(LIMIT, account::of(&app.database.pool, claims)).await?
        }
        None => None,
    };
    let Some(account) = account else {
        if json {
            return Ok((vary, unknown()).into_response());
        }
        // What the cookie holds is of no use any more.
        return Ok((vary, Redirect::to(&site.under().page("/createUser"))).into_response());
    };
    if json {
        return Ok((vary, Json(Told::from(account))).into_response());
    }
    let chrome = Chrome::new(&site, Tab::Other, "Your account");
    let page = Page {
        created_at: chrome.when(account.created_at),
        sent_at: account.sent_at.map(|sent_at| chrome.when(sent_at)),
        chrome,
        under: site.under(),
        account,
    };
    Ok((vary, web::page(&page)?).into_response())
}

/// Whether the server is up and running: with the database, without which it does nothing.
async fn health(State(app): State<Arc<App>>, site: Site) -> Response {
    let usable = site.parts.usable(&["postgres"]);
    let (status, word) = if usable {
        (StatusCode::OK, "up")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "away")
    };
    (
        status,
        Json(json!({ "status": word, "node": app.node.name })),
    )
        .into_response()
}

impl From<Account> for Told {
    fn from(account: Account) -> Self {
        let Account {
            user_id,
            first_name,
            last_name,
            email,
            created_at,
            message_id,
            mail,
            sent_at,
        } = account;
        Self {
            user_id,
            first_name,
            last_name,
            email,
            created_at,
            message_id,
            mail,
            sent_at,
        }
    }
}
