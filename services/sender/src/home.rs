//! The page: a form to write a message with, and the newest messages.
//!
//! What the form sends is [`crate::form`]'s business; where it is refused, the page is drawn again
//! with what was typed.

use std::{collections::BTreeMap, sync::Arc};

use askama::Template;
use axum::{
    Router,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
    routing::get,
};
use messaging::text::TEXT_MAX;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;
use web::{
    Error, Site,
    chrome::{Chrome, Tab},
    head::Head,
    live::{Drawn, banners},
    session::Visit,
    show::{NodeName, When, Written, number},
};

use crate::{
    app::App,
    form,
    message::{self, MessageRow},
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

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/", get(show).post(form::send))
}

/// Events, for pages that are open; they know no session.
pub fn live_routes() -> Router<Arc<App>> {
    Router::new().route("/live", get(follow))
}

async fn follow(State(app): State<Arc<App>>) -> Response {
    app.live.read()
}

/// What changes on the page, as it is now.
pub(crate) async fn drawn(app: &App, site: &Site) -> Drawn {
    let rows = rows(app, site).await;
    let (mut chrome, depth) = (chrome(site), app.depth.borrow().clone());
    say_depth(&mut chrome, &depth);
    let rows = rows.ok().and_then(|rows| {
        let rows: Vec<Row> = rows.iter().map(|row| Row::new(row, &chrome)).collect();
        Rows { rows: &rows }.render().ok()
    });
    let waiting = match depth.waiting {
        0 => String::new(),
        waiting => format!("{} in the outbox", number(waiting)),
    };
    Drawn {
        rows,
        parts: BTreeMap::from([("waiting", waiting)]),
        banners: banners(&chrome).unwrap_or_default(),
    }
}

fn chrome(site: &Site) -> Chrome {
    Chrome::new(site, Tab::Send, "Send")
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
    head: Head,
    csrf: Option<String>,
    form: Form,
    text_max: usize,
    waiting: i64,
    /// None while the database is away.
    rows: Option<Vec<Row>>,
}

#[derive(Template)]
#[template(path = "rows.html")]
struct Rows<'a> {
    rows: &'a [Row],
}

/// The form, with what was typed where that was not accepted.
pub(crate) struct Form {
    pub(crate) key: Uuid,
    pub(crate) text: String,
    pub(crate) error: Option<String>,
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
    State(app): State<Arc<App>>,
    site: Site,
    RawQuery(query): RawQuery,
    mut visit: Visit,
) -> Result<Response, Error> {
    let rows = rows(&app, &site).await;
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

/// The rows of the page, as they are now.
pub(crate) async fn rows(app: &App, site: &Site) -> Result<Arc<[MessageRow]>, Error> {
    site.need_database()?;
    app.newest.read().await
}

pub(crate) async fn newest(pool: &PgPool) -> Result<Arc<[MessageRow]>, sqlx::Error> {
    message::newest(pool, SHOWN).await.map(Arc::from)
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

pub(crate) async fn draw(
    app: &App,
    site: &Site,
    visit: &Visit,
    rows: Result<Arc<[MessageRow]>, Error>,
    form: Form,
    flash: Option<Flash>,
) -> Result<Response, Error> {
    let mut chrome = chrome(site);
    let depth = app.depth.borrow().clone();
    say_depth(&mut chrome, &depth);
    let (rows, error) = Error::or_away(rows)?;
    let figures = visit.figures().await;
    let page = Page {
        flash: flash.map(Said::from),
        head: Head::new(site, &chrome, "Accepted", app.accepted(), figures),
        csrf: visit.csrf().map(str::to_owned),
        form,
        text_max: TEXT_MAX,
        waiting: depth.waiting,
        rows: rows.map(|rows| rows.iter().map(|row| Row::new(row, &chrome)).collect()),
        chrome,
    };
    let response = web::page(&page)?.into_response();
    Ok(match error {
        Some(error) => error.on(response),
        None => response,
    })
}

fn say_depth(chrome: &mut Chrome, depth: &messaging::send::outbox::Depth) {
    if depth.waiting > 0 {
        chrome.explain("rabbitmq", outbox(depth.waiting));
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

/// While RabbitMQ is away, with so many in the outbox.
fn outbox(waiting: i64) -> String {
    let count = messages(waiting, "waits", "wait");
    let goes = if waiting == 1 {
        "goes out by itself"
    } else {
        "go out by themselves"
    };
    format!("Messages are still accepted: {count} in the outbox and {goes} when it is back.")
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
    fn new(row: &MessageRow, chrome: &Chrome) -> Self {
        Self {
            id: row.message_id,
            number: number(row.number),
            node: NodeName::new(&row.node),
            at: chrome.when(row.accepted_at),
            state: Shown::new(row.state),
            text: Written::new(row.text.clone()),
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
        let one = outbox(1);
        assert!(one.contains("1 message waits in the outbox and goes out by itself"));
        let many = outbox(2);
        assert!(many.contains("2 messages wait in the outbox and go out by themselves"));
    }
}
