//! Logging in and out.
//!
//! A login does not tell whether there is an account: what is said is the same, and so is what is
//! done, a hash included. Tries are counted before anything is looked at, right ones too, or the count would tell.
//! A logout gives the token back: from its commit on no node takes it, wherever a copy of it is.

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    extract::{Request, State},
    http::{
        StatusCode,
        header::{SET_COOKIE, VARY},
    },
    response::{AppendHeaders, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use daemon::database::within;
use serde::Deserialize;
use uuid::Uuid;
use web::{
    Error, Site, Under,
    chrome::{Chrome, Tab},
    origin::{Origin, origin},
    wants_json,
};

use super::{
    account,
    answer::{Sent, known},
    app::{App, Caller},
    check::EMAIL_MAX,
    home::LIMIT,
    limits::Client,
    numbers,
    password::For,
};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/login", get(show).post(log_in))
        .route("/logout", post(log_out))
}

#[derive(Template)]
#[template(path = "login.html")]
struct Page {
    chrome: Chrome,
    under: Under,
    email: String,
    error: Option<String>,
}

async fn show(site: Site) -> Result<Response, Error> {
    draw(&site, String::new(), None)
}

fn draw(site: &Site, email: String, error: Option<String>) -> Result<Response, Error> {
    let page = Page {
        chrome: Chrome::new(site, Tab::Other, "Log in"),
        under: site.under(),
        email,
        error,
    };
    Ok(web::page(&page)?.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    email: String,
    password: String,
}

async fn log_in(
    State(app): State<Arc<App>>,
    site: Site,
    client: Client,
    sent: Sent,
) -> Result<Response, Error> {
    let by_form = matches!(sent, Sent::Form(_));
    let typed = read(&sent)?;
    let email = typed.email.clone();
    match check(&app, &site, &client, typed).await {
        Ok(user_id) => {
            tracing::info!(%user_id, "logged in");
            let issued = app.tokens.issue(user_id, daemon::clock::now());
            let issued = issued.map_err(Error::internal)?;
            Ok(known(&app, site.under(), by_form, user_id, issued, None))
        }
        Err(error) if by_form => {
            let detail = error.detail().to_owned();
            Ok(error.on(draw(&site, email, Some(detail))?))
        }
        Err(error) => Err(error),
    }
}

fn read(sent: &Sent) -> Result<Typed, Error> {
    match sent {
        Sent::Json(body) if body.is_array() => Err(Error::unprocessable(
            "The JSON is not as expected: an array, not an object.",
        )),
        Sent::Json(body) => body.read(),
        Sent::Form(body) => {
            let form = body.fields(&["email", "password"])?;
            let field = |name| form.get(name).unwrap_or_default().to_owned();
            Ok(Typed {
                email: field("email"),
                password: field("password"),
            })
        }
    }
}

/// Whose login it is. The same is done whether there is such an account or not.
async fn check(app: &App, site: &Site, client: &Client, typed: Typed) -> Result<Uuid, Error> {
    site.need_database()?;
    let pool = &app.database.pool;
    let email = typed.email.trim().to_ascii_lowercase();
    let place = app.hashes.place(For::Login)?;
    within(LIMIT, app.limits.count_login(pool, &email, client)).await??;
    // Postgres takes no NUL, and nobody has such an address.
    let email = if email.contains('\0') { "" } else { &email };
    let known = within(LIMIT, account::by_email(pool, email)).await?;
    let (user_id, hash) = known
        .map(|known| (known.user_id, known.password_hash))
        .unzip();
    let fits = app.hashes.fits(place, typed.password, hash).await?;
    let outcome = if fits { "right" } else { "wrong" };
    metrics::counter!(numbers::LOGINS, "outcome" => outcome).increment(1);
    user_id.filter(|_| fits).ok_or_else(|| {
        Error::new(
            StatusCode::UNAUTHORIZED,
            "The address or the password is not right.",
        )
        .coded("wrong_login")
    })
}

async fn log_out(
    State(app): State<Arc<App>>,
    site: Site,
    Caller(claims): Caller,
    request: Request,
) -> Result<Response, Error> {
    if origin(request.headers()) == Origin::Foreign {
        return Err(Error::forbidden(
            "A logout is only taken from this site's own pages, and from programs.",
        ));
    }
    // Without a token there is nothing to give back: that is what was wanted.
    if let Some(claims) = claims {
        site.need_database()?;
        within(LIMIT, account::revoke(&app.database.pool, &claims)).await?;
        tracing::info!(user_id = %claims.sub, "logged out");
        metrics::counter!(numbers::LOGOUTS).increment(1);
    }
    let headers = AppendHeaders([(SET_COOKIE, app.no_cookie()), (VARY, "accept".to_owned())]);
    if wants_json(request.uri(), request.headers()) {
        return Ok((StatusCode::NO_CONTENT, headers).into_response());
    }
    Ok((headers, Redirect::to(&site.under().page("/login"))).into_response())
}
