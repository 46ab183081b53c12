//! `GET /lab`: the stack as it is, and everything that can be done to it; complete without a script.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use chrono::DateTime;
use serde_json::Value;
use web::chrome::{Chrome, Tab};
use web::show::NodeName;
use web::{Error, Site};

use super::access::Visitor;
use super::app::App;
use super::knobs::{NUMBERS, Turned};
use super::picture::Picture;
use crate::faults::Entry;
use crate::faults::catalogue::Strikes;

/// What is said where no knob is turned.
const NOTHING: &str = "none";

/// The page.
pub fn pages(app: App) -> Router {
    Router::new().route("/lab", get(page)).with_state(app)
}

#[derive(Template)]
#[template(path = "console/lab.html")]
struct Page {
    chrome: Chrome,
    visitor: Visitor,
    now: Picture,
    groups: Vec<Group>,
    numbers: [(&'static str, u64, u64, &'static str); 4],
}

/// Faults on the same kind of target.
struct Group {
    title: &'static str,
    faults: Vec<(&'static Entry, Option<&'static str>)>,
}

fn title(entry: &Entry) -> &'static str {
    match entry.strikes {
        _ if entry.name.starts_with("work-") => "The work of receivers",
        Strikes::Nodes(_) | Strikes::AnyNode => "Nodes",
        Strikes::Server(_) => "Servers",
        Strikes::Links(_) => "Links",
        Strikes::Queue | Strikes::Connections => "The queue and connections",
    }
}

async fn page(State(app): State<App>, site: Site, visitor: Visitor) -> Result<Html<String>, Error> {
    let mut groups: Vec<Group> = Vec::new();
    for (entry, why) in app.ground.faults().await {
        let title = title(entry);
        match groups.iter_mut().find(|group| group.title == title) {
            Some(group) => group.faults.push((entry, why)),
            None => groups.push(Group {
                title,
                faults: vec![(entry, why)],
            }),
        }
    }
    let mut chrome = Chrome::new(&site, Tab::Lab, "Lab");
    let now = app.picture_now().await;
    if now.knobs.lost {
        let meaning =
            "Every node has its settings again. Turn the knobs once more, if you want them.";
        chrome.warn("Redis has lost the knobs", meaning);
    }
    for off in &now.guarantees_off {
        chrome.warn(
            format!("Guarantee off: {off}"),
            "Messages may be lost or doubled: that is what it is off for.",
        );
    }
    web::page(&Page {
        chrome,
        visitor,
        now,
        groups,
        numbers: NUMBERS,
    })
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "templates pass references"
)]
fn number(count: &i64) -> String {
    web::show::number(*count)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "templates pass references"
)]
fn count(count: &u64) -> String {
    web::show::number(i64::try_from(*count).unwrap_or(i64::MAX))
}

#[expect(clippy::ref_option, reason = "templates pass references")]
fn figure(figure: &Option<u64>) -> String {
    figure.as_ref().map_or_else(|| "?".to_owned(), count)
}

fn node(name: &str) -> NodeName {
    NodeName::new(name)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "templates pass references"
)]
fn utc(at: &i64) -> String {
    let at = DateTime::from_timestamp_millis(*at).unwrap_or_default();
    at.format("%H:%M:%S UTC").to_string()
}

/// What is turned for all nodes, in words, and of how many single nodes something is.
fn turned_anywhere(knobs: &Turned) -> String {
    let single = knobs.nodes.values().map(turned);
    let single = single.filter(|words| words != NOTHING).count();
    let of = match single {
        0 => return turned(&knobs.all),
        1 => "some of 1 node".to_owned(),
        _ => format!("some of {single} nodes"),
    };
    match turned(&knobs.all) {
        all if all == NOTHING => of,
        all => format!("{all}; {of}"),
    }
}

/// What is turned, in words.
fn turned(change: &Value) -> String {
    let knobs = change.as_object().into_iter().flatten();
    let each = knobs
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| format!("{} {}", name.replace('_', " "), plain(value)));
    let all: Vec<String> = each.collect();
    if all.is_empty() {
        NOTHING.to_owned()
    } else {
        all.join(", ")
    }
}

/// What a knob stands at, of all nodes.
fn knob(change: &Value, name: &str) -> String {
    let value = change.get(name).filter(|value| !value.is_null());
    value.map_or_else(|| "as set".to_owned(), plain)
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_turned_is_said_in_words() {
        let change = json!({"prefetch": 12, "failure_action": "park", "fail_one_in": null});
        assert_eq!(turned(&change), "failure action park, prefetch 12");
        assert_eq!(knob(&change, "prefetch"), "12");
        assert_eq!(knob(&change, "fail_one_in"), "as set");
        assert_eq!(turned(&Value::Null), "none");
    }

    #[test]
    fn knobs_of_single_nodes_are_turned_too() {
        let said = |all: Value, nodes: &[(&str, Value)]| {
            let nodes = nodes.iter().cloned();
            turned_anywhere(&Turned {
                all,
                nodes: nodes.map(|(name, told)| (name.to_owned(), told)).collect(),
                ..Turned::default()
            })
        };
        let one = ("receiver-1", json!({"fail_one_in": 3}));
        let back = ("receiver-2", json!({"fail_one_in": null}));
        let other = ("receiver-3", json!({"prefetch": 4}));
        assert_eq!(said(json!({}), &[]), "none");
        assert_eq!(said(json!({}), std::slice::from_ref(&back)), "none");
        assert_eq!(said(json!({}), &[one.clone(), back]), "some of 1 node");
        assert_eq!(
            said(json!({"prefetch": 12}), &[one, other]),
            "prefetch 12; some of 2 nodes"
        );
    }
}
