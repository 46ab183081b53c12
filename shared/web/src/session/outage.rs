//! What a request has learnt about Redis, so that it waits for it once at most.

use std::cell::Cell;

use axum::{extract::Request, http::header::SET_COOKIE, middleware::Next, response::Response};

use super::COOKIE;

#[derive(Debug, Clone, Copy, Default)]
struct Learnt {
    away: bool,
    unsaved: bool,
}

tokio::task_local! {
    static LEARNT: Cell<Learnt>;
}

/// Redis did not answer in this request.
pub(super) fn note_away() {
    note(|learnt| learnt.away = true);
}

/// What the session's cookie would point to was not stored.
pub(super) fn note_unsaved() {
    note(|learnt| learnt.unsaved = true);
}

/// Whether this request should leave Redis alone. Outside of a request: never.
pub(super) fn is_away() -> bool {
    LEARNT.try_with(|learnt| learnt.get().away).unwrap_or(false)
}

fn note(change: impl FnOnce(&mut Learnt)) {
    let _ = LEARNT.try_with(|cell| {
        let mut learnt = cell.get();
        change(&mut learnt);
        cell.set(learnt);
    });
}

/// Around the session layer: gives each request its own note, and takes back the cookie of a
/// session that could not be stored.
pub(crate) async fn watch_outage(request: Request, next: Next) -> Response {
    let answer = async {
        let mut response = next.run(request).await;
        if LEARNT.with(|learnt| learnt.get().unsaved) {
            take_back(&mut response);
        }
        response
    };
    LEARNT.scope(Cell::default(), answer).await
}

fn take_back(response: &mut Response) {
    let ours = |cookie: &[u8]| {
        cookie
            .strip_prefix(COOKIE.as_bytes())
            .is_some_and(|rest| rest.starts_with(b"="))
    };
    let cookies: Vec<_> = response
        .headers()
        .get_all(SET_COOKIE)
        .iter()
        .cloned()
        .collect();
    response.headers_mut().remove(SET_COOKIE);
    for cookie in cookies
        .into_iter()
        .filter(|cookie| !ours(cookie.as_bytes()))
    {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}
