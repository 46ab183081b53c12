//! The page: a form to write a message with, and the newest messages.
//!
//! A form is answered with a redirect, so that a reload sends nothing. The page carries a key in a
//! hidden field, so that the same form sent twice, by a double click or after an error, is one
//! message; edited after "back" it is another one, because the text is part of the key.
//!
//! Between two lines: die after the message is stored and before the redirect: the browser shows an
//! error; sending the form again learns that it was accepted, and counts it for the session.

use std::time::Duration;

use askama::Template;
use axum::{
    Router,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use daemon::database::within;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use web::{
    Error, Site,
    chrome::{Chrome, Tab},
    form::FormBody,
    origin::{Origin, origin},
    session::{Figures, Visit},
    show::{NodeName, When, Written, number},
};

use crate::{
    api::header_key,
    app::App,
    message::{self, MessageRow},
    submit::{Submission, SubmitError, TEXT_MAX, Text},
};

pub const MEANINGS: &[(&str, &str)] = &[
    (
        "postgres",
        "No message can be accepted until it is back. What was accepted is kept.",
    ),
    (
        "rabbitmq",
        "Messages are still accepted; they wait in the outbox until it is back.",
    ),
    (
        "redis",
        "This page works without a session meanwhile. Messages are still accepted.",
    ),
];

/// How many messages the page shows.
const SHOWN: i64 = 20;
/// How long the page waits for them.
const LIMIT: Duration = Duration::from_secs(3);

pub fn routes() -> Router<App> {
    Router::new().route("/", get(show).post(send))
}

/// Something to say once, on the next page.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Flash {
    /// `node` is who accepted it; unknown where it was accepted earlier.
    Accepted {
        number: i64,
        node: Option<String>,
        repeated: bool,
    },
    SessionReset,
}

#[derive(Template)]
#[template(path = "home.html")]
struct Page {
    chrome: Chrome,
    flash: Option<Said>,
    accepted: String,
    last: Option<When>,
    figures: Option<Figures>,
    csrf: Option<String>,
    form: Form,
    text_max: usize,
    waiting: i64,
    /// None while the database is away.
    rows: Option<Vec<Row>>,
}

/// The form, with what was typed where that was not accepted.
struct Form {
    key: Uuid,
    text: String,
    error: Option<String>,
}

enum Said {
    Accepted {
        number: String,
        node: Option<NodeName>,
        repeated: bool,
    },
    SessionReset,
}

struct Row {
    id: Uuid,
    number: String,
    node: NodeName,
    at: When,
    state: Shown,
    text: Written,
}

/// A state in words and colour.
struct Shown {
    word: &'static str,
    colour: &'static str,
    meaning: &'static str,
}

async fn show(
    State(app): State<App>,
    site: Site,
    RawQuery(query): RawQuery,
    mut visit: Visit,
) -> Result<Response, Error> {
    let rows = newest(&app, &site).await;
    // A page that fails is not a visit: its session would not be stored.
    let flash = match &rows {
        Ok(rows) => {
            visit.start().await;
            let flash = visit.take_flash().await;
            flash.or_else(|| accepted_in(query.as_deref()?, rows))
        }
        Err(_) => None,
    };
    let form = Form {
        key: Uuid::new_v4(),
        text: String::new(),
        error: None,
    };
    draw(&app, &site, &visit, rows, form, flash).await
}

async fn send(
    State(app): State<App>,
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
    let key = fields.get("key").and_then(|key| Uuid::try_parse(key).ok());
    let again = |error: String| Form {
        key: key.unwrap_or_else(Uuid::new_v4),
        text: typed.clone(),
        error: Some(error),
    };
    let text = match Text::parse(&typed) {
        Ok(text) => text,
        Err(error) => {
            let (form, rows) = (again(error.to_string()), newest(&app, &site).await);
            let page = draw(&app, &site, &visit, rows, form, None).await?;
            return Ok(with_status(page, StatusCode::UNPROCESSABLE_ENTITY));
        }
    };
    visit.start().await;
    let submission = Submission {
        key: match key {
            Some(key) => Uuid::new_v5(&key, text.as_str().as_bytes()).to_string(),
            None => header_key(&headers)?,
        },
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
        Err(error) => return refuse(&app, &site, &visit, &error, again(spoken(&error))).await,
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

/// The page again, with what was typed and under the same key: sending it once more is safe.
async fn refuse(
    app: &App,
    site: &Site,
    visit: &Visit,
    error: &SubmitError,
    form: Form,
) -> Result<Response, Error> {
    let rows = newest(app, site).await;
    let mut page = draw(app, site, visit, rows, form, None).await?;
    let error = Error::from(error.clone());
    if let Some(seconds) = error.retry_after() {
        page.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    Ok(with_status(page, error.status()))
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

fn with_status(mut page: Response, status: StatusCode) -> Response {
    *page.status_mut() = status;
    page
}

async fn newest(app: &App, site: &Site) -> Result<Vec<MessageRow>, Error> {
    site.need_database()?;
    Ok(within(LIMIT, message::newest(&app.database.pool, SHOWN)).await?)
}

/// The confirmation for a reader without a session, from the address. It names the node only where
/// the message is on the page; and any number can be written into an address, so it claims no more.
fn accepted_in(query: &str, rows: &[MessageRow]) -> Option<Flash> {
    let number = query
        .strip_prefix("accepted=")?
        .parse()
        .ok()
        .filter(|number| *number > 0)?;
    let node = rows
        .iter()
        .find(|row| row.number == number)
        .map(|row| row.node.clone());
    Some(Flash::Accepted {
        number,
        node,
        repeated: false,
    })
}

async fn draw(
    app: &App,
    site: &Site,
    visit: &Visit,
    rows: Result<Vec<MessageRow>, Error>,
    form: Form,
    flash: Option<Flash>,
) -> Result<Response, Error> {
    let mut chrome = Chrome::new(site, Tab::Send, "Send");
    let depth = app.depth.borrow().clone();
    say_depth(&mut chrome, &depth);
    let error = match &rows {
        // Anything but "away" is no state of the page, but a fault of ours.
        Err(error) if error.status() != StatusCode::SERVICE_UNAVAILABLE => {
            return Err(error.clone());
        }
        rows => rows.as_ref().err().cloned(),
    };
    let (accepted, last) = app.accepted();
    let page = Page {
        flash: flash.map(Said::from),
        accepted: number(i64::try_from(accepted).unwrap_or(i64::MAX)),
        last: last.map(|last| chrome.when(last)),
        figures: visit.figures().await,
        csrf: visit.csrf().map(str::to_owned),
        form,
        text_max: TEXT_MAX,
        waiting: depth.waiting,
        rows: rows
            .ok()
            .map(|rows| rows.into_iter().map(|row| Row::new(row, &chrome)).collect()),
        chrome,
    };
    let mut response = web::page(&page)?.into_response();
    if let Some(error) = error {
        *response.status_mut() = error.status();
        if let Some(seconds) = error.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
    }
    Ok(response)
}

fn say_depth(chrome: &mut Chrome, depth: &messaging::send::outbox::Depth) {
    if depth.waiting > 0 {
        let count = messages(depth.waiting, "waits", "wait");
        let meaning = format!(
            "Messages are still accepted: {count} in the outbox and will go out by \
             themselves when it is back."
        );
        chrome.explain("rabbitmq", meaning);
    }
    if depth.refused > 0 {
        let count = messages(depth.refused, "was", "were");
        let meaning = format!("{count} refused at the last try, and will be tried again.");
        chrome.warn("The queue refuses messages", meaning);
    }
    if depth.unroutable > 0 {
        let count = messages(depth.unroutable, "came", "came");
        let meaning = format!("{count} back at the last try, and will be tried again.");
        chrome.warn("No queue takes the messages", meaning);
    }
}

fn messages(count: i64, one: &str, many: &str) -> String {
    if count == 1 {
        format!("1 message {one}")
    } else {
        format!("{} messages {many}", number(count))
    }
}

impl From<Flash> for Said {
    fn from(flash: Flash) -> Self {
        match flash {
            Flash::Accepted {
                number: accepted,
                node,
                repeated,
            } => Self::Accepted {
                number: number(accepted),
                node: node.as_deref().map(NodeName::new),
                repeated,
            },
            Flash::SessionReset => Self::SessionReset,
        }
    }
}

impl Row {
    fn new(row: MessageRow, chrome: &Chrome) -> Self {
        Self {
            id: row.message_id,
            number: number(row.number),
            node: NodeName::new(&row.node),
            at: chrome.when(row.accepted_at),
            state: Shown::new(row.state),
            text: Written::new(row.text),
        }
    }
}

impl Shown {
    fn new(state: message::State) -> Self {
        let (word, colour, meaning) = match state {
            message::State::Waiting => ("waiting", "wait", "In the outbox, not yet confirmed"),
            message::State::Published => ("published", "ok", "The broker has confirmed it"),
            message::State::Unroutable => {
                ("unroutable", "bad", "No queue took it; it is tried again")
            }
            message::State::Refused => {
                ("refused", "bad", "The queue refused it; it is tried again")
            }
        };
        Self {
            word,
            colour,
            meaning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_in_the_address_must_be_a_number() {
        let accepted = |query| accepted_in(query, &[]);
        let expected = Flash::Accepted {
            number: 12,
            node: None,
            repeated: false,
        };
        assert_eq!(accepted("accepted=12"), Some(expected));
        for query in [
            "",
            "accepted=",
            "accepted=-1",
            "accepted=0",
            "accepted=1x",
            "x=1",
            "accepted=99999999999999999999",
            "accepted=%3Cb%3E",
        ] {
            assert_eq!(accepted(query), None, "{query}");
        }
    }

    #[test]
    fn one_message_is_not_several() {
        assert_eq!(messages(1, "waits", "wait"), "1 message waits");
        assert_eq!(messages(1_400, "waits", "wait"), "1,400 messages wait");
    }
}
