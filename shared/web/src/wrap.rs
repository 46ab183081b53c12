//! The layers around every service's routes, in their order.

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
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
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'",
);

/// Puts around a service's routes what all services have: static files, limits, errors. Only `pages` know sessions.
pub fn wrap(pages: Router, api: Router, site: Site) -> Router {
    pages
        .layer(site.sessions.layer())
        .layer(from_fn(session::watch_outage))
        .merge(api)
        .route("/static/{file}", get(static_files::serve))
        .route("/static/{folder}/{file}", get(static_files::serve_lab))
        .fallback(async || Error::not_found())
        .layer(from_fn_with_state(Some(site), around))
}

/// The same for a service without pages of its own, as far as that needs no session.
pub fn wrap_api(routes: Router) -> Router {
    routes
        .fallback(async || Error::not_found())
        .layer(from_fn_with_state(None, around))
}

/// One layer instead of one for each of these: a layer costs each request several allocations.
async fn around(State(site): State<Option<Site>>, request: Request, next: Next) -> Response {
    let site = site.map(|site| site.asked(request.uri().path()));
    let asked = Asked {
        uri: request.uri().clone(),
        method: request.method().clone(),
        json: wants_json(request.uri(), request.headers()),
    };
    // Before the session, which a request that is too large does not cost.
    let response = match body::read_whole(request).await {
        Ok(mut request) => {
            let mut when_left = WhenLeft::Abandon;
            if let Some(site) = &site {
                request.extensions_mut().insert(site.clone());
                when_left = WhenLeft::Finish;
            }
            answer(request, next, when_left).await
        }
        Err(error) => error.into_response(),
    };
    let mut response = in_words(response, &asked, site.as_ref());
    set_headers(response.headers_mut());
    response
}

fn set_headers(headers: &mut HeaderMap) {
    let missing = [
        // A report that carries its own style says what else it may do: nothing.
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        // A page is one reader's, and of this moment.
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-cache"),
        ),
    ];
    for (name, value) in missing {
        headers.entry(name).or_insert(value);
    }
    let always: [(HeaderName, &'static str); 3] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // With "no-referrer" a browser would name no origin for our own forms either.
        (header::REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in always {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// What to do with a request whose client leaves.
#[derive(Debug, Clone, Copy)]
enum WhenLeft {
    /// Go on. A query dropped half way takes its connection along, and under load the next one takes seconds to open.
    Finish,
    /// Drop it: it may be waiting for minutes.
    Abandon,
}

/// In a task of its own, so that one that panics is answered too.
#[expect(
    clippy::disallowed_methods,
    reason = "its connection waits for it; when the client has left, nobody need"
)]
async fn answer(request: Request, next: Next, when_left: WhenLeft) -> Response {
    let task = tokio::spawn(next.run(request).in_current_span());
    let answer = match when_left {
        WhenLeft::Finish => task.await,
        WhenLeft::Abandon => AbortOnDropHandle::new(task).await,
    };
    answer.unwrap_or_else(|error| Error::internal(broken_off(error)).into_response())
}

fn broken_off(error: JoinError) -> anyhow::Error {
    match error.try_into_panic() {
        Ok(panic) => {
            let what = panic.downcast_ref::<&str>().map(|what| (*what).to_owned());
            let what = what.or_else(|| panic.downcast_ref::<String>().cloned());
            anyhow::anyhow!("panic: {}", what.unwrap_or_default())
        }
        Err(error) => error.into(),
    }
}

/// What the answer depends on.
struct Asked {
    uri: Uri,
    method: Method,
    json: bool,
}

/// Turns errors into what the client reads. Of the head of the answer is kept what says more, such as `Allow` with a 405.
fn in_words(mut response: Response, asked: &Asked, site: Option<&Site>) -> Response {
    let status = response.status();
    let error = match response.extensions_mut().remove::<Error>() {
        Some(error) => error,
        None if is_bare(&response) => Error::of_status(status),
        None => return response,
    };
    error.log(&asked.method, asked.uri.path());
    numbers::http_error(status);
    let mut answer = match site {
        Some(site) if !asked.json => error.into_page(chrome(site, &asked.uri)),
        _ => error.into_problem(),
    };
    let kept = [
        header::ALLOW,
        header::SET_COOKIE,
        header::CONNECTION,
        header::VARY,
        header::WWW_AUTHENTICATE,
    ];
    for name in kept {
        for value in response.headers().get_all(&name) {
            answer.headers_mut().append(name.clone(), value.clone());
        }
    }
    let mut varies = answer.headers().get_all(header::VARY).iter();
    if !varies.any(|named| named.as_bytes().starts_with(b"accept")) {
        answer
            .headers_mut()
            .append(header::VARY, HeaderValue::from_static("accept"));
    }
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
