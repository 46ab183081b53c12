//! Whether the client of a request is still there; that programs are told errors in their own language; and that a page of
//! somebody else cannot have its reader's browser say anything here.
//!
//! [`web::wrap`] finishes a request whose client has left, so that no query is dropped half way. For one that waits for a
//! message that is wrong: it would take messages for nobody. So this layer, around all the others, lives exactly as long as
//! anybody waits for the answer, and its end is seen inside.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderValue, header::ACCEPT, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio_util::sync::CancellationToken;
use web::{
    Error, Under,
    origin::{Origin, origin},
};

use crate::PREFIX;

/// Cancelled when nobody waits for the answer any more. An extractor in every handler under [`watch`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Left(CancellationToken);

impl Left {
    pub(crate) fn is_true(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it is.
    pub(crate) async fn wait(&self) {
        self.0.cancelled().await;
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Left {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// The layer.
pub(crate) async fn watch(mut request: Request, next: Next) -> Response {
    let left = Left::default();
    // Dropped with this future, which the server drops when the connection ends.
    let _here = left.0.clone().drop_guard();
    request.extensions_mut().insert(left);
    if !is_page(request.uri().path()) {
        // Errors too: a client that says nothing would be taken for a person.
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(ACCEPT, json);
    }
    next.run(request).await
}

/// The layer around what programs say: whatever page is open in a browser on this machine can have it push, and lease what
/// others wait for, by a form or an image. What is no browser says nothing of where it comes from, and may.
pub(crate) async fn refuse_foreign(request: Request, next: Next) -> Response {
    if origin(request.headers()) == Origin::Foreign {
        return Error::forbidden("A page of another site asked for this.").into_response();
    }
    next.run(request).await
}

/// The one address that people look at.
fn is_page(path: &str) -> bool {
    Under::of(path, PREFIX).rest(path) == "/queues"
}
