//! The form of the page, sent: a message that a person wrote.
//!
//! A form is answered with a redirect, so that a reload sends nothing. The page carries a key in a
//! hidden field, so that the same form sent twice, by a double click or after an error, is one
//! message; edited after "back" it is another one, because the text is part of the key.
//!
//! Between two lines: die after the message is stored and before the redirect: the browser shows an
//! error; sending the form again learns that it was accepted, and counts it for the session.

use std::sync::Arc;

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Redirect, Response},
};
use messaging::{
    send::accept::{Submission, SubmitError},
    text::Text,
};
use uuid::Uuid;
use web::{
    Error, Site,
    form::FormBody,
    origin::{Origin, origin},
    session::Visit,
    show::number,
};

use crate::{
    api::told,
    app::App,
    home::{Flash, Form, draw, rows},
};

pub(crate) async fn send(
    State(app): State<Arc<App>>,
    site: Site,
    headers: HeaderMap,
    mut visit: Visit,
    body: FormBody,
) -> Result<Response, Error> {
    // Without this, a foreign page could start a session here, in place of the reader's own.
    if origin(&headers) == Origin::Foreign {
        return Err(Error::forbidden(
            "Messages are only accepted from this site's own page.",
        ));
    }
    let fields = body.fields(&["message", "key"])?;
    // Browsers end the lines of a form as mail does.
    let typed = fields.need("message")?.replace("\r\n", "\n");
    let again = |key: Option<Uuid>, error: String| Form {
        key: key.unwrap_or_else(Uuid::new_v4),
        text: typed.clone(),
        error: Some(error),
    };
    let Ok(key) = fields.get("key").map(Uuid::try_parse).transpose() else {
        let error = Error::bad_request(
            "The field \"key\" is not a UUID, so nothing was accepted. This form has a right one: \
             please send it again.",
        );
        let form = again(None, error.detail().to_owned());
        return refuse(&app, &site, &visit, &error, form).await;
    };
    let text = match Text::parse(&typed) {
        Ok(text) => text,
        Err(error) => {
            let error = Error::unprocessable(error.to_string());
            let form = again(key, error.detail().to_owned());
            return refuse(&app, &site, &visit, &error, form).await;
        }
    };
    let submission_key = match key {
        Some(key) => Uuid::new_v5(&key, text.as_str().as_bytes()).to_string(),
        None => web::headers::key(&headers)?,
    };
    visit.start().await;
    let submission = Submission {
        key: submission_key,
        texts: vec![text],
        session: visit.reference(),
        run: None,
    };
    let accepted = match app
        .submit(submission)
        .await
        .map(|accepted| accepted.into_iter().next())
    {
        Ok(Some(accepted)) => accepted,
        Ok(None) => return Err(Error::internal(anyhow::anyhow!("nothing was answered"))),
        Err(error) => {
            let form = again(key, spoken(&error));
            return refuse(&app, &site, &visit, &told(error), form).await;
        }
    };
    visit.count_sent(accepted.number).await;
    let node = (!accepted.repeated).then(|| app.node.name.clone());
    let flash = Flash::Accepted {
        number: accepted.number,
        node,
        repeated: accepted.repeated,
    };
    Ok(if visit.flash(&flash).await {
        Redirect::to("/").into_response()
    } else {
        Redirect::to(&format!("/?accepted={}", accepted.number)).into_response()
    })
}

/// The page again, with what was typed: under the same key, so that sending it once more is safe.
async fn refuse(
    app: &App,
    site: &Site,
    visit: &Visit,
    error: &Error,
    form: Form,
) -> Result<Response, Error> {
    let rows = rows(app, site).await;
    Ok(error.on(draw(app, site, visit, rows, form, None).await?))
}

/// What a person reads, who knows nothing of keys.
fn spoken(error: &SubmitError) -> String {
    match error {
        SubmitError::KeyReused => "This form was already sent, with another text.".to_owned(),
        SubmitError::Full { max } => {
            let max = number(i64::try_from(*max).unwrap_or(i64::MAX));
            format!("{max} messages wait already; please try again in a while.")
        }
        SubmitError::Away => {
            "The database is away, so the message was not accepted. Please send it again in a \
             moment."
                .to_owned()
        }
        SubmitError::Unknown => {
            "Whether the message was accepted is not known. Please send it again: it will not be \
             there twice."
                .to_owned()
        }
    }
}
