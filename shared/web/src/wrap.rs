//! The layers around every service's routes, in their order.

use std::any::Any;

use axum::{
    Extension, Router,
    extract::Request,
    http::{HeaderValue, Uri, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};
use tracing::Instrument;

use crate::{
    accept::wants_json,
    body,
    chrome::{Chrome, Tab},
    error::Error,
    numbers, session,
    site::Site,
    static_files,
};

/// Everything ours and from here; images also inside a style sheet, as Bootstrap has them.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; \
    object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Puts around a service's routes what all services have: static files, sessions, limits, errors.
pub fn wrap(routes: Router, site: Site) -> Router {
    let sessions = site.sessions.layer();
    let routes = routes
        .route("/static/{file}", get(static_files::serve))
        .fallback(async || Error::not_found())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(sessions)
        .layer(from_fn(session::watch_outage))
        // Its notes on an outage are of one task: outside of them.
        .layer(from_fn(finish))
        // Before the session, which a request that is too large does not cost.
        .layer(from_fn(body::read_whole))
        .layer(from_fn(answer_errors))
        .layer(Extension(site));
    with_headers(routes)
}

/// The same for a service without pages of its own, as far as that needs no session.
pub fn wrap_api(routes: Router) -> Router {
    let routes = routes
        .fallback(async || Error::not_found())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(body::read_whole))
        .layer(from_fn(answer_errors));
    with_headers(routes)
}

fn with_headers(routes: Router) -> Router {
    routes
        // A report that carries its own style says what else it may do: nothing.
        .layer(SetResponseHeaderLayer::if_not_present(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(CONTENT_SECURITY_POLICY),
        ))
        .layer(always(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(always(header::X_FRAME_OPTIONS, "DENY"))
        // With "no-referrer" a browser would name no origin for our own forms either.
        .layer(always(header::REFERRER_POLICY, "same-origin"))
        .layer(
            // A page is one reader's, and of this moment.
            SetResponseHeaderLayer::if_not_present(
                header::CACHE_CONTROL,
                HeaderValue::from_static("private, no-cache"),
            ),
        )
}

fn always(name: header::HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}

#[expect(clippy::needless_pass_by_value, reason = "as the layer wants it")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let what = panic.downcast_ref::<&str>().map(|what| (*what).to_owned());
    let what = what
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    Error::internal(anyhow::anyhow!("panic: {what}")).into_response()
}

/// Goes on with the request also when its client leaves. A query dropped half way takes its connection along, and under
/// load the next one takes seconds to open.
#[expect(
    clippy::disallowed_methods,
    reason = "its connection waits for it; when the client has left, nobody need"
)]
async fn finish(request: Request, next: Next) -> Response {
    let answer = tokio::spawn(next.run(request).in_current_span()).await;
    answer.unwrap_or_else(|error| Error::internal(error).into_response())
}

/// Turns errors into what the client reads. The head of the answer is kept: `Allow` with a 405.
async fn answer_errors(request: Request, next: Next) -> Response {
    let (uri, method) = (request.uri().clone(), request.method().clone());
    let json = wants_json(&uri, request.headers());
    let site = request.extensions().get::<Site>().cloned();
    let mut response = next.run(request).await;
    let status = response.status();
    let error = match response.extensions_mut().remove::<Error>() {
        Some(error) => error,
        None if is_bare(&response) => Error::of_status(status),
        None => return response,
    };
    error.log(&method, uri.path());
    numbers::http_error(status);
    let mut answer = match site {
        Some(site) if !json => error.into_page(chrome(&site, &uri)),
        _ => error.into_problem(),
    };
    let kept = [header::ALLOW, header::SET_COOKIE, header::CONNECTION];
    for name in kept {
        for value in response.headers().get_all(&name) {
            answer.headers_mut().append(name.clone(), value.clone());
        }
    }
    answer
        .headers_mut()
        .append(header::VARY, HeaderValue::from_static("accept"));
    answer
}

/// An error that no handler of ours has put into words.
fn is_bare(response: &Response) -> bool {
    let status = response.status();
    let ours = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|media| {
            let media = media.as_bytes();
            media.starts_with(b"text/html") || media.starts_with(b"application/")
        });
    (status.is_client_error() || status.is_server_error()) && !ours
}

fn chrome(site: &Site, uri: &Uri) -> Chrome {
    Chrome::new(site, Tab::of(uri.path()), "")
}
