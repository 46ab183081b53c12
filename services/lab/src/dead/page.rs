//! The pages of dead letters: `/lab/dead`, and one for each order.
//!
//! What is to be sent back is planned first, and the plan has a page with a button to start it. All of it works without
//! JavaScript; a page that shows something going on asks for itself again.

use askama::Template;
use axum::extract::{Path, RawForm, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use messaging::receive::redrive::{Redrive, Selection, State as Is};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;
use web::chrome::{Chrome, Tab};
use web::json::JsonBody;
use web::show::{NodeName, When, Written, number};
use web::{Error, Site};

use super::receivers::Refused;
use super::{Dead, read};
use crate::console::access::Visitor;

/// Every address that does something: none may work without signing in.
pub const DEEDS: &[&str] = &[
    "/lab/dead/redrives",
    "/lab/dead/redrives/{id}/start",
    "/lab/dead/redrives/{id}/cancel",
    "/lab/dead/discard",
    "/lab/api/dead/redrives",
    "/lab/api/dead/redrives/{id}/start",
    "/lab/api/dead/redrives/{id}/cancel",
    "/lab/api/dead/discard",
];

/// Dead letters on one page.
const SHOWN: i64 = 100;
/// Messages a second, where nobody says.
const PER_SECOND: u32 = 100;

/// For people.
pub fn pages(dead: Dead) -> Router {
    Router::new()
        .route("/lab/dead", get(list))
        .route("/lab/dead/redrives", post(plan))
        .route("/lab/dead/redrives/{id}", get(order))
        .route("/lab/dead/redrives/{id}/start", post(start))
        .route("/lab/dead/redrives/{id}/cancel", post(cancel))
        .route("/lab/dead/discard", post(discard))
        .with_state(dead)
}

/// The same for programs.
pub fn api(dead: Dead) -> Router {
    Router::new()
        .route("/lab/api/dead", get(list_json))
        .route("/lab/api/dead/redrives", post(plan_json))
        .route("/lab/api/dead/redrives/{id}", get(order_json))
        .route("/lab/api/dead/redrives/{id}/start", post(start_json))
        .route("/lab/api/dead/redrives/{id}/cancel", post(cancel_json))
        .route("/lab/api/dead/discard", post(discard_json))
        .with_state(dead)
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let said = format!("{refused}");
        match refused {
            Refused::NoToken => Self::forbidden(said),
            Refused::Said { status, .. } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                Self::new(status, said)
            }
            Refused::Away(cause) => Self::away("The receivers do not answer.").because(cause),
        }
    }
}

/// Fields of a form or a query; some may be there more than once.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn read(encoded: &[u8]) -> Result<Self, Error> {
        let wrong = |_| Error::bad_request("The form is not valid UTF-8.");
        let text = str::from_utf8(encoded).map_err(wrong)?;
        let mut url = reqwest::Url::parse("form:x").map_err(Error::internal)?;
        url.set_query(Some(text));
        let pairs = url.query_pairs().into_owned().collect();
        Ok(Self(pairs))
    }

    /// A field that is filled in.
    fn get(&self, name: &str) -> Option<String> {
        let mut values = self.0.iter().filter(|(field, _)| field == name);
        values
            .next()
            .map(|(_, value)| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    /// What is filtered by; of a form, whether it is that or what is ticked.
    fn selection(&self) -> Result<Selection, Error> {
        let filter = Selection {
            reason: self.get("reason"),
            run: self.get("run"),
            node: self.get("node"),
            text: self.get("text"),
            from: self.time("from")?,
            to: self.time("to")?,
            ..Selection::default()
        };
        match self.get("which").as_deref() {
            Some("matching") => Ok(Selection {
                all: filter.is_empty(),
                ..filter
            }),
            Some(_) => {
                let ids = self.0.iter().filter(|(name, _)| name == "id");
                let ids: Result<Vec<i64>, _> = ids.map(|(_, id)| id.parse()).collect();
                let ids = ids.map_err(|_| Error::bad_request("A number is none."))?;
                if ids.is_empty() {
                    return Err(Error::unprocessable("Nothing is ticked."));
                }
                Ok(Selection {
                    ids: Some(ids),
                    ..Selection::default()
                })
            }
            None => Ok(filter),
        }
    }

    fn time(&self, name: &str) -> Result<Option<chrono::DateTime<chrono::Utc>>, Error> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        // as a browser's own field has it, or in full
        let full = if text.ends_with('Z') || text.contains('+') {
            text.clone()
        } else {
            format!("{text}{}Z", if text.len() == 16 { ":00" } else { "" })
        };
        let time = chrono::DateTime::parse_from_rfc3339(&full);
        let time = time.map_err(|_| Error::bad_request(format!("{name} is not a time.")))?;
        Ok(Some(time.to_utc()))
    }
}

#[derive(Template)]
#[template(path = "console/dead.html")]
struct ListPage {
    chrome: Chrome,
    visitor: Visitor,
    /// Why nothing can be done, if so.
    disabled: Option<&'static str>,
    groups: Vec<(String, String, String, When)>,
    letters: Vec<Row>,
    orders: Vec<(Redrive, When)>,
    filter: Selection,
    total: String,
    older: Option<String>,
}

struct Row {
    id: i64,
    message: Option<Uuid>,
    at: When,
    node: NodeName,
    reason: String,
    attempts: String,
    times: i32,
    run: String,
    text: Written,
}

fn disabled(dead: &Dead, visitor: &Visitor) -> Option<&'static str> {
    if !visitor.signed_in {
        return Some("Sign in to send dead letters back or to discard them.");
    }
    (!dead.receivers.can_be_asked())
        .then_some("The receivers of this stack take no orders: REDRIVE_TOKEN is not set.")
}

async fn list(
    State(dead): State<Dead>,
    site: Site,
    visitor: Visitor,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    let query = Fields::read(query.unwrap_or_default().as_bytes())?;
    let filter = query.selection()?;
    let below = query.get("below").and_then(|below| below.parse().ok());
    let (groups, letters, orders) = futures::try_join!(
        read::groups(&dead.ledger, &filter),
        read::letters(&dead.ledger, &filter, below.unwrap_or(i64::MAX), SHOWN),
        read::orders(&dead.ledger),
    )?;
    let chrome = Chrome::new(&site, Tab::Dead, "Dead letters");
    let last = letters.last().map(|letter| letter.dead_letter_id);
    let full = i64::try_from(letters.len()).is_ok_and(|count| count == SHOWN);
    let older = last
        .filter(|_| full)
        .map(|last| address(&filter, Some(last)));
    let page = ListPage {
        disabled: disabled(&dead, &visitor),
        total: number(groups.iter().map(|group| group.count).sum()),
        groups: groups
            .into_iter()
            .map(|group| {
                let only = Selection {
                    reason: Some(group.reason.clone()),
                    ..filter.clone()
                };
                let newest = chrome.when(group.newest);
                (
                    address(&only, None),
                    group.reason,
                    number(group.count),
                    newest,
                )
            })
            .collect(),
        letters: letters
            .into_iter()
            .map(|letter| Row {
                id: letter.dead_letter_id,
                message: letter.message_id,
                at: chrome.when(letter.dead_at),
                node: NodeName::new(&letter.node),
                text: Written::new(letter.text()),
                reason: letter.reason,
                attempts: letter.attempts.map_or_else(String::new, |n| n.to_string()),
                times: letter.redrive,
                run: letter.run.unwrap_or_default(),
            })
            .collect(),
        orders: orders
            .into_iter()
            .map(|order| {
                let at = chrome.when(order.created_at);
                (order, at)
            })
            .collect(),
        filter,
        older,
        visitor,
        chrome,
    };
    Ok(web::page(&page)?.into_response())
}

/// The address of the list with this filter.
fn address(filter: &Selection, below: Option<i64>) -> String {
    let time = |time: Option<chrono::DateTime<chrono::Utc>>| time.map(|time| time.to_rfc3339());
    let below = below.map(|below| below.to_string());
    let all = [
        ("reason", filter.reason.clone()),
        ("run", filter.run.clone()),
        ("node", filter.node.clone()),
        ("text", filter.text.clone()),
        ("from", time(filter.from)),
        ("to", time(filter.to)),
        ("below", below),
    ];
    let pairs = all
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let url = reqwest::Url::parse_with_params("form:x", pairs);
    let query = url.ok().and_then(|url| url.query().map(str::to_owned));
    format!("/lab/dead?{}", query.unwrap_or_default())
}

#[derive(Template)]
#[template(path = "console/redrive.html")]
struct OrderPage {
    chrome: Chrome,
    visitor: Visitor,
    disabled: Option<&'static str>,
    order: Redrive,
    at: When,
    cut_off: When,
    outcome: read::Outcome,
    runs: Vec<String>,
    /// Of what was selected, in percent.
    done: i64,
}

async fn order(
    State(dead): State<Dead>,
    site: Site,
    visitor: Visitor,
    Path(id): Path<Uuid>,
) -> Result<Response, Error> {
    let (order, outcome, runs) = futures::try_join!(
        read::order(&dead.ledger, id),
        read::outcome(&dead.ledger, id),
        read::runs(&dead.ledger, id),
    )?;
    let order = order.ok_or_else(Error::not_found)?;
    let chrome = Chrome::new(&site, Tab::Dead, "A redrive");
    // what it sent back is on its way for a while
    let moves = order.state == Is::Running || outcome.on_their_way > 0;
    let page = OrderPage {
        disabled: disabled(&dead, &visitor),
        at: chrome.when(order.created_at),
        cut_off: chrome.when(order.cut_off),
        done: (order.selected - order.left()) * 100 / order.selected.max(1),
        outcome,
        runs,
        order,
        visitor,
        chrome,
    };
    let mut response = web::page(&page)?.into_response();
    if moves {
        let again = header::HeaderValue::from_static("2");
        response.headers_mut().insert("refresh", again);
    }
    Ok(response)
}

/// The address of who asks, as the gateway says it.
fn who(headers: &HeaderMap) -> String {
    let address = headers.get("x-real-ip").and_then(|ip| ip.to_str().ok());
    address.unwrap_or("unknown").to_owned()
}

async fn plan(
    State(dead): State<Dead>,
    headers: HeaderMap,
    RawForm(form): RawForm,
) -> Result<Redirect, Error> {
    let form = Fields::read(&form)?;
    let rate = form.get("per_second").map(|rate| rate.parse::<u32>());
    let rate = rate.transpose();
    let rate = rate.map_err(|_| Error::unprocessable("The rate is not a number."))?;
    let (id, selection) = (Uuid::now_v7(), form.selection()?);
    let rate = rate.unwrap_or(PER_SECOND);
    dead.receivers
        .plan(id, &selection, rate, &who(&headers), false)
        .await?;
    Ok(to(id))
}

fn to(id: Uuid) -> Redirect {
    Redirect::to(&format!("/lab/dead/redrives/{id}"))
}

async fn start(State(dead): State<Dead>, Path(id): Path<Uuid>) -> Result<Redirect, Error> {
    dead.receivers.start(id).await?;
    Ok(to(id))
}

async fn cancel(State(dead): State<Dead>, Path(id): Path<Uuid>) -> Result<Redirect, Error> {
    dead.receivers.cancel(id).await?;
    Ok(to(id))
}

async fn discard(
    State(dead): State<Dead>,
    headers: HeaderMap,
    RawForm(form): RawForm,
) -> Result<Redirect, Error> {
    let form = Fields::read(&form)?;
    let confirm = form.get("confirm").unwrap_or_default();
    dead.receivers
        .discard(&form.selection()?, &confirm, &who(&headers))
        .await?;
    Ok(Redirect::to("/lab/dead"))
}

async fn list_json(
    State(dead): State<Dead>,
    RawQuery(query): RawQuery,
) -> Result<Json<serde_json::Value>, Error> {
    let query = Fields::read(query.unwrap_or_default().as_bytes())?;
    let filter = query.selection()?;
    let below = query.get("below").and_then(|below| below.parse().ok());
    let (groups, letters, orders) = futures::try_join!(
        read::groups(&dead.ledger, &filter),
        read::letters(&dead.ledger, &filter, below.unwrap_or(i64::MAX), SHOWN),
        read::orders(&dead.ledger),
    )?;
    let letters: Vec<_> = letters
        .iter()
        .map(|letter| {
            let mut shown = json!(letter);
            shown["text"] = json!(letter.text());
            shown
        })
        .collect();
    Ok(Json(
        json!({"groups": groups, "dead_letters": letters, "redrives": orders}),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    id: Option<Uuid>,
    selection: Selection,
    per_second: Option<u32>,
    #[serde(default)]
    dry_run: bool,
}

async fn plan_json(
    State(dead): State<Dead>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Error> {
    let asked: Asked = body.read()?;
    let id = asked.id.unwrap_or_else(Uuid::now_v7);
    let rate = asked.per_second.unwrap_or(PER_SECOND);
    let told = dead
        .receivers
        .plan(id, &asked.selection, rate, &who(&headers), asked.dry_run)
        .await?;
    let status = if asked.dry_run {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Json(told)).into_response())
}

async fn order_json(
    State(dead): State<Dead>,
    Path(id): Path<Uuid>,
) -> Result<Json<serde_json::Value>, Error> {
    let (order, outcome, runs) = futures::try_join!(
        read::order(&dead.ledger, id),
        read::outcome(&dead.ledger, id),
        read::runs(&dead.ledger, id),
    )?;
    let order = order.ok_or_else(Error::not_found)?;
    Ok(Json(
        json!({"redrive": order, "plan": order.plan(), "left": order.left(), "outcome": outcome, "runs": runs}),
    ))
}

async fn start_json(State(dead): State<Dead>, Path(id): Path<Uuid>) -> Result<Response, Error> {
    Ok(Json(dead.receivers.start(id).await?).into_response())
}

async fn cancel_json(State(dead): State<Dead>, Path(id): Path<Uuid>) -> Result<Response, Error> {
    Ok(Json(dead.receivers.cancel(id).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Discard {
    selection: Selection,
    confirm: String,
}

async fn discard_json(
    State(dead): State<Dead>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Json<serde_json::Value>, Error> {
    let asked: Discard = body.read()?;
    let done = dead
        .receivers
        .discard(&asked.selection, &asked.confirm, &who(&headers))
        .await?;
    Ok(Json(json!({ "discarded": done })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(form: &str) -> Selection {
        Fields::read(form.as_bytes()).unwrap().selection().unwrap()
    }

    #[test]
    fn a_form_says_what_is_ticked_or_all_that_matches() {
        let ticked = selection("csrf=x&which=ticked&id=3&id=4&reason=r");
        assert_eq!(ticked.ids, Some(vec![3, 4]));
        assert_eq!(ticked.reason, None);
        let matching = selection("which=matching&id=3&reason=its+work%20failed&run=");
        assert_eq!(matching.reason.as_deref(), Some("its work failed"));
        assert!(matching.ids.is_none() && !matching.all);
        assert!(selection("which=matching").all);
        assert!(selection("text=").is_empty());
        let none = Fields::read(b"which=ticked").unwrap();
        assert!(none.selection().is_err());
    }

    #[test]
    fn a_filter_survives_its_own_address() {
        let filter = selection("reason=a%26b%23&text=%C3%A9+x&from=2026-11-22T05:06");
        let address = address(&filter, Some(7));
        let (_, query) = address.split_once('?').unwrap();
        assert_eq!(selection(query), filter);
        assert!(filter.from.is_some() && query.ends_with("below=7"));
    }

    #[test]
    fn every_deed_is_a_post() {
        let source = include_str!("page.rs");
        let posts = source.lines().filter(|line| line.contains(", post("));
        let posts: Vec<&str> = posts.filter_map(|line| line.split('"').nth(1)).collect();
        let posts: Vec<&str> = posts
            .into_iter()
            .filter(|path| path.starts_with("/lab"))
            .collect();
        assert_eq!(posts, DEEDS);
    }
}
