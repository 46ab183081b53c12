//! Signing in and out: `GET` and `POST /lab/sign-in`, `POST /lab/sign-out`.

use askama::Template;
use axum::extract::State;
use axum::http::header::{RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use web::chrome::{Chrome, Tab};
use web::form::FormBody;
use web::{Error, Site};

use super::access::{Door, Shown, Visitor};
use super::actions::Why;
use super::guard::address;

/// What is posted here.
pub const DEEDS: &[&str] = &["/lab/sign-out"];

/// The pages.
pub fn pages(door: Door) -> Router {
    Router::new()
        .route("/lab/sign-in", get(ask).post(sign_in))
        .route("/lab/sign-out", post(sign_out))
        .with_state(door)
}

#[derive(Template)]
#[template(path = "console/sign_in.html")]
struct Page {
    chrome: Chrome,
    visitor: Visitor,
    can_open: bool,
    wrong: Option<&'static str>,
}

fn page(
    site: &Site,
    visitor: Visitor,
    door: &Door,
    wrong: Option<&'static str>,
) -> Result<Html<String>, Error> {
    web::page(&Page {
        chrome: Chrome::new(site, Tab::Lab, "Sign in"),
        visitor,
        can_open: door.can_open(),
        wrong,
    })
}

async fn ask(
    State(door): State<Door>,
    site: Site,
    visitor: Visitor,
) -> Result<Html<String>, Error> {
    page(&site, visitor, &door, None)
}

async fn sign_in(
    State(door): State<Door>,
    site: Site,
    headers: HeaderMap,
    Extension(visitor): Extension<Visitor>,
    form: FormBody,
) -> Result<Response, Error> {
    let form = form.fields(&["token"])?;
    let shown = door.sign_in(address(&headers), form.need("token")?.trim());
    match shown {
        Shown::Right(cookie) => Ok(([(SET_COOKIE, cookie)], Redirect::to("/lab")).into_response()),
        Shown::Wrong => {
            let page = page(
                &site,
                visitor,
                &door,
                Some("This is not the token of this stack."),
            )?;
            let why = Extension(Why("wrong token".into()));
            Ok((StatusCode::FORBIDDEN, why, page).into_response())
        }
        Shown::TooMany(seconds) => {
            let said = "Too many tokens were wrong. Wait a minute and try again.";
            let page = page(&site, visitor, &door, Some(said))?;
            let head = [(RETRY_AFTER, seconds.to_string())];
            let why = Extension(Why("too many wrong tokens".into()));
            Ok((StatusCode::TOO_MANY_REQUESTS, head, why, page).into_response())
        }
        Shown::NoToken => Err(Error::forbidden(
            "This console was started without a token: it only shows. Give it one with UNACKED_CONSOLE_TOKEN.",
        )),
    }
}

async fn sign_out(State(door): State<Door>, headers: HeaderMap) -> Response {
    let cookie = door.sign_out(&headers);
    ([(SET_COOKIE, cookie)], Redirect::to("/lab")).into_response()
}
