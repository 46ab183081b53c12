//! The pages of dead letters: `/lab/dead`, and one for each order.
//!
//! What is to be sent back is planned first, and the plan has a page with a button to start it. A form that is refused comes
//! back with why, on the list that it was on. All of it works without JavaScript; a page that shows something going on is asked
//! for again.

use std::collections::HashSet;

use askama::Template;
use axum::extract::{Path, RawForm, RawQuery, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use messaging::receive::redrive::{Redrive, Selection};
use uuid::Uuid;
use web::chrome::{Chrome, Tab};
use web::show::{NodeName, When, Written, number};
use web::{Error, Site, wants_json};

use super::audits::OfRun;
use super::fields::{Fields, address, who};
use super::read;
use super::room::{Listed, Ordered, PER_SECOND, Room, SHOWN};
use crate::console::access::Visitor;
use crate::console::actions::Why;

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
    notice: Option<Notice>,
    typed: Typed,
    groups: Vec<Group>,
    letters: Vec<Row>,
    orders: Vec<(When, Redrive)>,
    filter: Selection,
    below: Option<i64>,
    total: String,
    older: Option<String>,
}

/// What was done, or why nothing was.
struct Notice {
    bad: bool,
    text: String,
}

/// What the form has in it, beside what is ticked.
struct Typed {
    /// All that match the filter.
    matching: bool,
    per_second: String,
    confirm: String,
}

impl Typed {
    fn new(asked: &Fields) -> Self {
        let rate = asked.get("per_second");
        Self {
            matching: asked.get("which").as_deref() == Some("matching"),
            per_second: rate.unwrap_or_else(|| PER_SECOND.to_string()),
            confirm: asked.get("confirm").unwrap_or_default(),
        }
    }
}

/// The address of its list, its reason, how many they are, and when the newest was parked.
type Group = (String, String, String, When);

fn shown(group: read::Group, filter: &Selection, chrome: &Chrome) -> Group {
    let only = Selection {
        reason: Some(group.reason.clone()),
        ..filter.clone()
    };
    let (count, newest) = (number(group.count), chrome.when(group.newest));
    (address(&only, None), group.reason, count, newest)
}

struct Row {
    id: i64,
    ticked: bool,
    message: Option<Uuid>,
    at: When,
    node: NodeName,
    reason: String,
    attempts: String,
    times: i32,
    run: String,
    text: Written,
}

impl Row {
    fn new(letter: read::Letter, ticked: bool, chrome: &Chrome) -> Self {
        Self {
            id: letter.dead_letter_id,
            ticked,
            message: letter.message_id,
            at: chrome.when(letter.dead_at),
            node: NodeName::new(&letter.node),
            text: Written::new(letter.text()),
            reason: letter.reason,
            attempts: letter.attempts.map_or_else(String::new, |n| n.to_string()),
            times: letter.redrive,
            run: letter.run.unwrap_or_default(),
        }
    }
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
) -> Result<Html<String>, Error> {
    let asked = Fields::read(query.unwrap_or_default().as_bytes())?;
    let done = room.noted(&visitor).map(|count| Notice {
        bad: false,
        text: match count {
            1 => "1 dead letter was discarded.".to_owned(),
            some => format!("{} dead letters were discarded.", number(some)),
        },
    });
    show(&room, &site, visitor, &asked, done).await
}

/// The list, with this above it.
async fn show(
    room: &Room,
    site: &Site,
    visitor: Visitor,
    asked: &Fields,
    notice: Option<Notice>,
) -> Result<Html<String>, Error> {
    let Listed {
        filter,
        below,
        groups,
        letters,
        orders,
    } = room.list(asked).await?;
    let chrome = Chrome::new(site, Tab::Dead, "Dead letters");
    let last = letters.last().map(|letter| letter.dead_letter_id);
    let full = i64::try_from(letters.len()).is_ok_and(|count| count == SHOWN);
    let older = last
        .filter(|_| full)
        .map(|last| address(&filter, Some(("below", last))));
    let total: i64 = groups.iter().map(|group| group.count).sum();
    let groups = groups.into_iter();
    let groups = groups.map(|group| shown(group, &filter, &chrome));
    let ticked: HashSet<&str> = asked.ids().collect();
    let letters = letters.into_iter().map(|letter| {
        let ticked = ticked.contains(&*letter.dead_letter_id.to_string());
        Row::new(letter, ticked, &chrome)
    });
    let orders = orders.into_iter();
    let orders = orders.map(|order| (chrome.when(order.created_at), order));
    let (groups, letters, orders) = (groups.collect(), letters.collect(), orders.collect());
    web::page(&ListPage {
        disabled: disabled(room, &visitor),
        notice,
        typed: Typed::new(asked),
        groups,
        letters,
        orders,
        filter,
        below,
        total: number(total),
        older,
        visitor,
        chrome,
    })
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
    /// When it was over; none: it is not, or had never begun.
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
    let ended = order.started_at.and(order.ended_at);
    let ended = ended.map(|at| chrome.when(at));
    let page = OrderPage {
        disabled: disabled(&room, &visitor),
        at: chrome.when(order.created_at),
        cut_off: chrome.when(order.cut_off),
        done: percent(&order),
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

/// Of what was selected.
fn percent(order: &Redrive) -> i64 {
    let decided = (order.selected - order.left()) * 100;
    decided.checked_div(order.selected).unwrap_or(100)
}

/// Who sent a form, and what the answer depends on.
type Sent = (Site, Visitor, Uri, HeaderMap);

/// The list that a form was on, as it was filled in, with why nothing was done. What a person cannot mend there, and what a
/// program asked for, is the error itself.
async fn refused(room: &Room, sent: Sent, form: &Fields, error: Error) -> Result<Response, Error> {
    let (site, visitor, uri, headers) = sent;
    let status = error.status();
    if !status.is_client_error() || wants_json(&uri, &headers) {
        return Err(error);
    }
    let text = error.detail().to_owned();
    let why = Extension(Why(text.clone().into()));
    let notice = Notice { bad: true, text };
    let page = show(room, &site, visitor, form, Some(notice)).await?;
    Ok((status, why, page).into_response())
}

async fn plan(
    State(room): State<Room>,
    sent: Sent,
    RawForm(form): RawForm,
) -> Result<Response, Error> {
    let form = Fields::read(&form)?;
    match planned(&room, &form, &sent.3).await {
        Ok(id) => Ok(to(id).into_response()),
        Err(error) => refused(&room, sent, &form, error).await,
    }
}

async fn planned(room: &Room, form: &Fields, headers: &HeaderMap) -> Result<Uuid, Error> {
    let rate = form.get("per_second").map(|rate| rate.parse::<u32>());
    let rate = rate.transpose();
    let rate = rate.map_err(|_| Error::unprocessable("The rate is not a number."))?;
    let (id, selection) = (Uuid::now_v7(), form.selection()?);
    let rate = rate.unwrap_or(PER_SECOND);
    room.dead
        .receivers
        .plan(id, &selection, rate, &who(headers), false)
        .await?;
    Ok(id)
}

fn to(id: Uuid) -> Redirect {
    Redirect::to(&format!("/lab/dead/redrives/{id}"))
}

async fn start(State(room): State<Room>, Path(id): Path<Uuid>) -> Result<Redirect, Error> {
    room.start(id).await?;
    Ok(to(id))
}

async fn cancel(State(room): State<Room>, Path(id): Path<Uuid>) -> Result<Redirect, Error> {
    room.cancel(id).await?;
    Ok(to(id))
}

async fn audit(State(room): State<Room>, Path(id): Path<Uuid>) -> Result<Redirect, Error> {
    room.audit(id).await?;
    Ok(to(id))
}

async fn discard(
    State(room): State<Room>,
    sent: Sent,
    RawForm(form): RawForm,
) -> Result<Response, Error> {
    let form = Fields::read(&form)?;
    match discarded(&room, &form, &sent.3).await {
        Ok((list, count)) => {
            room.note(&sent.1, count);
            Ok(Redirect::to(&list).into_response())
        }
        Err(error) => refused(&room, sent, &form, error).await,
    }
}

/// The list to go back to, and how many were discarded.
async fn discarded(
    room: &Room,
    form: &Fields,
    headers: &HeaderMap,
) -> Result<(String, i64), Error> {
    let confirm = form.get("confirm").unwrap_or_default();
    // before anything is done
    let list = address(&form.filter()?, None);
    let discarded = room
        .dead
        .receivers
        .discard(&form.selection()?, &confirm, &who(headers))
        .await?;
    Ok((list, discarded))
}
