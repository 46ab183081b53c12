//! Who may do what: everybody may look, and whoever signed in may do something.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// Who asks. The guard puts one into each request; without it nobody is signed in.
#[derive(Debug, Clone, Default)]
pub struct Visitor {
    /// Whether this browser showed the token.
    pub signed_in: bool,
    /// What each form of this visitor must send along, in the hidden field `csrf` or the header `X-CSRF-Token`; empty
    /// for one who is not signed in.
    pub csrf: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}
