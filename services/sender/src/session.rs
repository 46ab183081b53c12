//! Resetting a session: a new id, and nothing sent yet.
//!
//! Only from our own page: the browser must not name a foreign one, and the form must bring along
//! the session's token, which no foreign page can read.

use std::sync::Arc;

use axum::{Router, http::HeaderMap, response::Redirect, routing::post};
use web::{
    Error, Site,
    form::FormBody,
    origin::{Origin, origin},
    session::Visit,
};

use crate::{app::App, home::Flash};

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/reset-session", post(reset))
}

async fn reset(
    site: Site,
    headers: HeaderMap,
    mut visit: Visit,
    // A body that cannot be read proves nothing.
    body: Result<FormBody, Error>,
) -> Result<Redirect, Error> {
    let foreign = || {
        Error::forbidden(
            "A session is only reset from this site's own page. Open it and use its button.",
        )
    };
    let from = origin(&headers);
    if from == Origin::Foreign {
        return Err(foreign());
    }
    if !visit.is_known() {
        if !site.sessions.reachable() {
            return visit.reset().await.map(|()| Redirect::to("/"));
        }
        // Nothing to reset: the first of a double click has done it, or it had ended. That is what
        // was wanted, but only a page of ours may want it.
        return if from == Origin::Own {
            Ok(Redirect::to("/"))
        } else {
            Err(foreign())
        };
    }
    let form = body
        .and_then(|body| body.fields(&["csrf"]))
        .map_err(|_| foreign())?;
    if !visit.proves(form.get("csrf").unwrap_or_default()) {
        return Err(foreign());
    }
    visit.reset().await?;
    visit.flash(&Flash::SessionReset).await;
    Ok(Redirect::to("/"))
}
