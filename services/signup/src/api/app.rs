//! What every deed of the API shares, and who asks.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts as RequestParts},
};
use chaos::FailPoints;
use daemon::{database::Database, node::Node};
use messaging::send::{outbox::Depth, relay::Handover};
use tokio::sync::watch;

use super::{
    limits::Limits,
    password::Hashes,
    token::{Claims, Tokens},
};

/// The cookie that holds a browser's token.
const COOKIE: &str = "unacked_account";

pub(crate) struct App {
    pub(crate) node: Arc<Node>,
    pub(crate) database: Database,
    pub(crate) fail_points: FailPoints,
    pub(crate) handover: Handover,
    /// What waits to be published, counted about once a second ..
    pub(crate) depth: watch::Receiver<Depth>,
    /// .. and how much may.
    pub(crate) outbox_max: u64,
    pub(crate) tokens: Tokens,
    pub(crate) hashes: Hashes,
    pub(crate) limits: Limits,
    /// Whether cookies travel over HTTPS only.
    pub(crate) secure: bool,
}

impl App {
    /// The cookie with this token; no script sees it, and no foreign page's form brings it along.
    pub(crate) fn cookie(&self, token: &str) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        let seconds = self.tokens.life.as_secs();
        format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
    }

    /// The one that removes it.
    pub(crate) fn no_cookie(&self) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax{secure}")
    }
}

/// What the token of a request says, if it has one that is ours. Whether it was given back is not known yet.
pub(crate) struct Caller(pub(crate) Option<Claims>);

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut RequestParts,
        app: &Arc<App>,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self(
            token(&parts.headers).and_then(|token| app.tokens.read(token)),
        ))
    }
}

/// Of the header where there is one, and else of the cookie.
fn token(headers: &HeaderMap) -> Option<&str> {
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim());
    }
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut pairs = cookies
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_in_the_header_or_in_the_cookie() {
        let of = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            token(&headers).map(str::to_owned)
        };
        let cookie = ("cookie", "a=1; unacked_account=t1; b=2");
        assert_eq!(of(&[cookie]).as_deref(), Some("t1"));
        assert_eq!(of(&[("cookie", "a=1"), cookie]).as_deref(), Some("t1"));
        assert_eq!(
            of(&[("authorization", "bearer t2"), cookie]).as_deref(),
            Some("t2")
        );
        assert_eq!(of(&[("authorization", "Basic t2"), cookie]), None);
        assert_eq!(of(&[("cookie", "unacked_account2=x")]), None);
        assert_eq!(of(&[]), None);
    }
}
