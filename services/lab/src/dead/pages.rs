//! The pages of dead letters: `/lab/dead`, and one for each order.
//!
//! What is to be sent back is planned first, and the plan has a page with a button to start it. All of it works without
//! JavaScript; a page that shows something going on is asked for again.

use askama::Template;
use axum::Router;
use axum::extract::{Path, RawForm, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use messaging::receive::redrive::{Redrive, Selection};
use uuid::Uuid;
use web::chrome::{Chrome, Tab};
use web::show::{NodeName, When, Written, number};
use web::{Error, Site};

use super::audits::OfRun;
use super::fields::{Fields, address, who};
use super::read;
use super::room::{Listed, Ordered, PER_SECOND, Room, SHOWN};
use crate::console::access::Visitor;

/// All that is posted here.
pub(super) const DEEDS: &[&str] = &[
    "/lab/dead/redrives",
    "/lab/dead/redrives/{id}/start",
    "/lab/dead/redrives/{id}/cancel",
    "/lab/dead/redrives/{id}/audit",
    "/lab/dead/discard",
];

/// The routes.
pub(super) fn routes(room: Room) -> Router {
    Router::new()
        .route("/lab/dead", get(list))
        .route("/lab/dead/redrives", post(plan))
        .route("/lab/dead/redrives/{id}", get(order))
        .route("/lab/dead/redrives/{id}/start", post(start))
        .route("/lab/dead/redrives/{id}/cancel", post(cancel))
        .route("/lab/dead/redrives/{id}/audit", post(audit))
        .route("/lab/dead/discard", post(discard))
        .with_state(room)
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

fn disabled(room: &Room, visitor: &Visitor) -> Option<&'static str> {
    if !visitor.signed_in {
        return Some("Sign in to send dead letters back or to discard them.");
    }
    (!room.dead.receivers.can_be_asked())
        .then_some("The receivers of this stack take no orders: REDRIVE_TOKEN is not set.")
}

async fn list(
    State(room): State<Room>,
    site: Site,
    visitor: Visitor,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    let Listed {
        filter,
        groups,
        letters,
        orders,
    } = room.list(query.as_deref()).await?;
    let chrome = Chrome::new(&site, Tab::Dead, "Dead letters");
    let last = letters.last().map(|letter| letter.dead_letter_id);
    let full = i64::try_from(letters.len()).is_ok_and(|count| count == SHOWN);
    let older = last
        .filter(|_| full)
        .map(|last| address(&filter, Some(last)));
    let page = ListPage {
        disabled: disabled(&room, &visitor),
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
    /// When it was over.
    ended: Option<When>,
    runs: Vec<OfRun>,
    more_runs: usize,
    /// It will look different in a moment.
    moves: bool,
    /// There is a run to audit, by somebody who may.
    can_audit: bool,
    /// Of what was selected, in percent.
    done: i64,
}

async fn order(
    State(room): State<Room>,
    site: Site,
    visitor: Visitor,
    Path(id): Path<Uuid>,
) -> Result<Response, Error> {
    let seen = room.order(id).await?;
    let chrome = Chrome::new(&site, Tab::Dead, "A redrive");
    let moves = seen.moves();
    let Ordered {
        order,
        outcome,
        runs,
        more_runs,
    } = seen;
    let idle = |run: &OfRun| run.on_record && run.going.is_none();
    let ended = order.ended_at.map(|at| chrome.when(at));
    let page = OrderPage {
        disabled: disabled(&room, &visitor),
        at: chrome.when(order.created_at),
        cut_off: chrome.when(order.cut_off),
        done: (order.selected - order.left()) * 100 / order.selected.max(1),
        ended,
        can_audit: visitor.signed_in && runs.iter().any(idle),
        outcome,
        runs,
        more_runs,
        moves,
        order,
        visitor,
        chrome,
    };
    Ok(web::page(&page)?.into_response())
}

async fn plan(
    State(room): State<Room>,
    headers: HeaderMap,
    RawForm(form): RawForm,
) -> Result<Redirect, Error> {
    let form = Fields::read(&form)?;
    let rate = form.get("per_second").map(|rate| rate.parse::<u32>());
    let rate = rate.transpose();
    let rate = rate.map_err(|_| Error::unprocessable("The rate is not a number."))?;
    let (id, selection) = (Uuid::now_v7(), form.selection()?);
    let rate = rate.unwrap_or(PER_SECOND);
    room.dead
        .receivers
        .plan(id, &selection, rate, &who(&headers), false)
        .await?;
    Ok(to(id))
}

fn to(id: Uuid) -> Redirect {
    Redirect::to(&format!("/lab/dead/redrives/{id}"))
}

async fn start(State(room): State<Room>, Path(id): Path<Uuid>) -> Result<Redirect, Error> {
    room.dead.receivers.start(id).await?;
    Ok(to(id))
}

async fn cancel(State(room): State<Room>, Path(id): Path<Uuid>) -> Result<Redirect, Error> {
    room.dead.receivers.cancel(id).await?;
    Ok(to(id))
}

async fn audit(State(room): State<Room>, Path(id): Path<Uuid>) -> Result<Redirect, Error> {
    room.audit(id).await?;
    Ok(to(id))
}

async fn discard(
    State(room): State<Room>,
    headers: HeaderMap,
    RawForm(form): RawForm,
) -> Result<Redirect, Error> {
    let form = Fields::read(&form)?;
    let confirm = form.get("confirm").unwrap_or_default();
    room.dead
        .receivers
        .discard(&form.selection()?, &confirm, &who(&headers))
        .await?;
    Ok(Redirect::to("/lab/dead"))
}
