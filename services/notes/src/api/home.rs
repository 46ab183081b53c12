//! What is saved, the newest first: JSON for programs, a page with a form for people.
//!
//! `?limit=` says how many, and `?before=` where to go on: it is the `next` of the list before. `X-Cache` and `Age` tell where
//! the list came from and how old it is.

use std::sync::Arc;

use askama::Template;
use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderName, HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};
use uuid::Uuid;
use web::{
    Error, Site,
    chrome::{Chrome, Tab},
    show::{NodeName, When, Written, number},
    wants_json,
};

use super::{App, one};
use crate::{
    list::{Answer, Source},
    note::{Asked, PAGE, PAGE_MAX, Saved},
    whereabouts::{State as Far, Whereabouts},
};

pub const MEANINGS: &[(&str, &str)] = &[
    (
        "postgres",
        "No note can be accepted until it is back. What was accepted is kept.",
    ),
    (
        "rabbitmq",
        "Notes are still accepted; they wait in the outbox until it is back.",
    ),
    (
        "redis",
        "This page comes from the database meanwhile. Notes are still accepted and saved.",
    ),
];

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// What an address asks for.
#[derive(Debug, PartialEq, Eq)]
struct Query {
    asked: Asked,
    /// A note that the reader has just written.
    accepted: Option<Uuid>,
}

impl Query {
    fn parse(query: &str) -> Result<Self, Error> {
        let (mut before, mut limit, mut accepted) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let twice = match name {
                "before" => before.replace(place(value)?).is_some(),
                "limit" => limit.replace(count(value)?).is_some(),
                "accepted" => accepted.replace(id(value)?).is_some(),
                _ => {
                    let name: String = name.chars().take(40).collect();
                    let detail = format!("There is no parameter {name:?}, only before and limit.");
                    return Err(Error::bad_request(detail));
                }
            };
            if twice {
                let detail = format!("The parameter {name} is there more than once.");
                return Err(Error::bad_request(detail));
            }
        }
        let limit = limit.unwrap_or(PAGE);
        let asked = Asked { before, limit };
        Ok(Self { asked, accepted })
    }
}

fn place(value: &str) -> Result<i64, Error> {
    let place = value.parse().ok().filter(|place| *place > 0);
    place.ok_or_else(|| Error::bad_request("The parameter before is the `next` of another list."))
}

fn count(value: &str) -> Result<u16, Error> {
    let count = value.parse().ok();
    let count = count.filter(|count| (1..=PAGE_MAX).contains(count));
    let detail = || format!("The parameter limit is a number from 1 to {PAGE_MAX}.");
    count.ok_or_else(|| Error::bad_request(detail()))
}

fn id(value: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(value).map_err(|_| Error::bad_request("The parameter accepted is no id."))
}

/// The form, with what was typed where that was not accepted.
pub(super) struct Form {
    pub(super) key: Uuid,
    pub(super) text: String,
    pub(super) error: Option<String>,
}

impl Form {
    fn empty() -> Self {
        Self {
            key: Uuid::new_v4(),
            text: String::new(),
            error: None,
        }
    }
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    site: Site,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let Query { asked, accepted } = Query::parse(query.as_deref().unwrap_or_default())?;
    let answer = app.lists.read(asked).await;
    let mut response = if wants_json(&uri, &headers) {
        let answer = answer?;
        (told(&answer), Json(&*answer.listed)).into_response()
    } else {
        let accepted = match accepted {
            // A page can do without.
            Some(id) => one::find(&app, &site, id).await.ok().flatten(),
            None => None,
        };
        let drawn = draw(&app, &site, asked, answer, Form::empty(), accepted);
        drawn?
    };
    response
        .headers_mut()
        .append(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Where a list came from, and how old it is.
fn told(answer: &Answer) -> [(HeaderName, HeaderValue); 2] {
    [
        (X_CACHE, HeaderValue::from_static(answer.source.word())),
        (header::AGE, answer.age.as_secs().into()),
    ]
}

#[derive(Template)]
#[template(path = "notes.html")]
struct Page {
    chrome: Chrome,
    home: &'static str,
    accepted: Option<Whereabouts>,
    deeds: Deeds,
    form: Form,
    text_max: usize,
    waiting: i64,
    /// Not those of the newest.
    older: bool,
    /// None while there is nothing to show them from.
    list: Option<Shown>,
}

/// What this node has done.
struct Deeds {
    count: String,
    started: When,
    last: Option<When>,
}

struct Shown {
    rows: Vec<Row>,
    /// Where those go on, if there are more.
    next: Option<String>,
    source: String,
}

struct Row {
    id: Uuid,
    number: String,
    node: NodeName,
    at: When,
    content: Written,
}

/// The page. It is there without the list too: with 503, and what that means above it.
pub(super) fn draw(
    app: &App,
    site: &Site,
    asked: Asked,
    answer: Result<Answer, Error>,
    form: Form,
    accepted: Option<Whereabouts>,
) -> Result<Response, Error> {
    let chrome = Chrome::new(site, Tab::Other, "Notes");
    let (answer, error) = Error::or_away(answer)?;
    let home = site.under().home();
    let headers = answer.as_ref().map(told);
    let list = answer.map(|answer| Shown::new(&answer, asked, home, &chrome));
    let (count, last) = app.accepted();
    let page = Page {
        home,
        accepted,
        deeds: Deeds {
            count: number(i64::try_from(count).unwrap_or(i64::MAX)),
            started: chrome.when(site.node.started_at),
            last: last.map(|last| chrome.when(last)),
        },
        form,
        text_max: messaging::text::TEXT_MAX,
        waiting: app.depth.borrow().waiting,
        older: asked.before.is_some(),
        list,
        chrome,
    };
    let response = (headers, web::page(&page)?).into_response();
    Ok(match error {
        Some(error) => error.on(response),
        None => response,
    })
}

impl Shown {
    fn new(answer: &Answer, asked: Asked, home: &str, chrome: &Chrome) -> Self {
        let Answer {
            listed,
            source,
            age,
        } = answer;
        let next = listed.next.map(|next| {
            let limit = asked.limit;
            let limit = if limit == PAGE {
                String::new()
            } else {
                format!("&limit={limit}")
            };
            format!("{home}?before={next}{limit}")
        });
        Self {
            rows: listed
                .notes
                .iter()
                .map(|note| Row::new(note, chrome))
                .collect(),
            next,
            source: match source {
                Source::Hit => format!("cached {:.1} s ago", age.as_secs_f64()),
                Source::Miss => "read just now".to_owned(),
                Source::Off => "read without cache".to_owned(),
            },
        }
    }
}

impl Row {
    fn new(note: &Saved, chrome: &Chrome) -> Self {
        Self {
            id: note.id,
            number: number(note.number),
            node: NodeName::new(&note.saved_by),
            at: chrome.when(note.saved_at),
            content: Written::new(note.content.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_which_notes() {
        let asked = |before, limit| Asked { before, limit };
        let read = |query| Query::parse(query).unwrap().asked;
        assert_eq!(read(""), asked(None, PAGE));
        assert_eq!(read("limit=100"), asked(None, 100));
        assert_eq!(read("before=7&limit=1"), asked(Some(7), 1));
        let id = Uuid::new_v4();
        let query = format!("accepted={id}");
        assert_eq!(Query::parse(&query).unwrap().accepted, Some(id));
    }

    #[test]
    fn an_address_that_is_not_understood_is_refused() {
        for query in [
            "limit=0",
            "limit=101",
            "limit=",
            "limit=ten",
            "before=0",
            "before=-1",
            "before=99999999999999999999",
            "accepted=1",
            "befor=1",
            "before=1&before=2",
        ] {
            let status = Query::parse(query).unwrap_err().status();
            assert_eq!(status, 400, "{query}");
        }
    }
}
