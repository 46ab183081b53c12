//! The form of the page, sent: a note that a person wrote.
//!
//! Answered with a redirect, so that a reload sends nothing. The page carries a key in a hidden field, so that the same form
//! sent twice is one note; edited after "back" it is another one, because the text is part of the key.
//!
//! Between two lines: die after the note is stored and before the redirect: the browser shows an error, and sending the form
//! again learns that it was accepted.

use std::sync::Arc;

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Redirect, Response},
};
use uuid::Uuid;
use web::{
    Error, Site,
    form::FormBody,
    headers,
    origin::{Origin, origin},
};

use super::{
    App,
    home::{Form, draw},
    save::content_of,
};
use crate::note::{Asked, PAGE};

pub(super) async fn send(
    State(app): State<Arc<App>>,
    site: Site,
    said: HeaderMap,
    body: FormBody,
) -> Result<Response, Error> {
    if origin(&said) == Origin::Foreign {
        return Err(Error::forbidden(
            "Notes are only accepted from this site's own page.",
        ));
    }
    let fields = body.fields(&["content", "key"])?;
    // Browsers end the lines of a form as mail does.
    let typed = fields.need("content")?.replace("\r\n", "\n");
    let key = fields.get("key").map(Uuid::try_parse).transpose();
    let key = key.map_err(|_| Error::bad_request("The field \"key\" is not a UUID."))?;
    let accepted = match content_of(&typed) {
        Ok(content) => {
            let key = match key {
                Some(key) => Uuid::new_v5(&key, content.as_str().as_bytes()).to_string(),
                None => headers::key(&said)?,
            };
            app.accept(key, content, None).await
        }
        Err(error) => Err(error),
    };
    match accepted {
        Ok(accepted) => {
            let id = accepted.message_id;
            let there = format!("{}?accepted={id}", site.under().home());
            Ok(Redirect::to(&there).into_response())
        }
        Err(error) => again(&app, &site, &error, key, typed).await,
    }
}

/// The page once more, with what was typed: under the same key, so that sending it again is safe.
async fn again(
    app: &App,
    site: &Site,
    error: &Error,
    key: Option<Uuid>,
    text: String,
) -> Result<Response, Error> {
    let form = Form {
        key: key.unwrap_or_else(Uuid::new_v4),
        text,
        error: Some(error.detail().to_owned()),
    };
    let asked = Asked {
        before: None,
        limit: PAGE,
    };
    let answer = app.lists.read(asked).await;
    Ok(error.on(draw(app, site, asked, answer, form, None)?))
}
