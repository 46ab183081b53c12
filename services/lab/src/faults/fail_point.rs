//! A fail point of a node is armed: at a named moment of the road it crashes, waits, errs or stands still.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use async_trait::async_trait;
use chaos::{ACTS, FailPoints};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::http::unless_it_died_of_it;
use super::site::Identity;
use super::targets::{choose, names};
use super::work::{Died, unarmed};
use super::{Acted, Active, Aim, Evidence, Fault, Ground, Look, Order, Site, last_words};
use crate::say::Usage;
use crate::stack::node::Service;
use crate::stack::strike::Target;

const POINTS: &str = "/ops/fail-points";
/// What the log calls the action of which a process dies.
const CRASH: &str = "Crash";

/// An armed fail point.
#[derive(Debug)]
pub struct FailPoint;

/// A point of a node, as that tells it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Point {
    name: String,
    armed: Option<String>,
    passages: u64,
    acted: u64,
    parked: u64,
    log: Option<String>,
}

/// What was there before.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    #[serde(flatten)]
    identity: Identity,
    /// What the process had counted at the point.
    #[serde(default)]
    passages: u64,
    #[serde(default)]
    acted: u64,
    /// What its log takes.
    log: Option<String>,
}

async fn points(look: &dyn Look, node: &str) -> Result<Vec<Point>> {
    let points = look.ops(node, POINTS).await?;
    serde_json::from_value(points).context("the node gave no list of fail points")
}

async fn point(look: &dyn Look, node: &str, name: &str) -> Result<Point> {
    let mut all = points(look, node).await?.into_iter();
    let found = all.find(|point| point.name == name);
    found.with_context(|| format!("{node} has no fail point {name}"))
}

/// What a node's log takes of deliberate harm, see [`last_words::mute`].
pub async fn log(look: &dyn Look, node: &str) -> Result<Option<String>> {
    let mut all = points(look, node).await?.into_iter();
    Ok(all.next().and_then(|point| point.log))
}

/// What each point of a node is armed with.
async fn armed(look: &dyn Look, node: &str) -> Result<BTreeMap<String, String>> {
    let points = points(look, node).await?.into_iter();
    Ok(points
        .filter_map(|point| Some((point.name, point.armed?)))
        .collect())
}

/// As a node reads it.
fn list(armed: &BTreeMap<String, String>) -> String {
    let each = armed
        .iter()
        .map(|(name, action)| format!("{name}={action}"));
    each.collect::<Vec<_>>().join(",")
}

/// What a process that still runs has counted since then.
fn counted(node: &str, before: &Before, now: &Point) -> Acted {
    let since = |now: u64, before: u64| now.saturating_sub(before);
    let passages = since(now.passages, before.passages);
    let (acted, parked) = (since(now.acted, before.acted), now.parked);
    let name = &now.name;
    if acted == 0 {
        Acted::No(format!(
            "{node}: {name} was passed {passages} times and did nothing"
        ))
    } else {
        Acted::Yes(format!(
            "{node}: {name} was passed {passages} times and acted {acted} times, {parked} stand there"
        ))
    }
}

/// Who passes it.
fn services(point: &str) -> &'static [Service] {
    use Service::{Leases, Notes, NotesWorker, Receiver, Sender, Signup, SignupWelcome};
    let (room, _) = point.split_once('.').unwrap_or((point, ""));
    match room {
        "submit" => &[Sender, Notes],
        "relay" => &[Sender, Notes, Signup],
        "leases" => &[Leases],
        "signup" => &[Signup],
        "welcome" => &[SignupWelcome],
        _ => &[Receiver, NotesWorker, SignupWelcome],
    }
}

#[async_trait]
impl Fault for FailPoint {
    fn check(&self, order: &Order) -> Result<(), Usage> {
        let spec = format!("{}={}", order.text("point"), order.text("action"));
        let read = FailPoints::parse(&spec).map_err(|error| Usage(error.to_string()))?;
        let armed = read
            .status()
            .iter()
            .filter(|point| point.armed.is_some())
            .count();
        if armed == 1 {
            Ok(())
        } else {
            Err(Usage("a fail point is armed one at a time".to_owned()))
        }
    }

    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        let point = order.text("point");
        let struck = names(&choose(order, look, services(point)).await?);
        let mut before = Map::new();
        for name in &struck {
            let now = self::point(look, name, point).await?;
            if now.armed.is_some() {
                return Err(Usage(format!("{point} of {name} is armed already")).into());
            }
            let identity = look.identity(&Target::Node(name.clone())).await?;
            let identity = identity.ok_or_else(|| Usage(format!("{name} does not run")))?;
            let noted = Before {
                identity,
                passages: now.passages,
                acted: now.acted,
                log: now.log,
            };
            before.insert(name.clone(), serde_json::to_value(noted)?);
        }
        Ok(Aim {
            struck,
            before: Value::Object(before),
        })
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        let (point, action) = (active.order.text("point"), active.order.text("action"));
        for name in &active.struck {
            let mut all = armed(&*site.look, name).await?;
            all.insert(point.to_owned(), action.to_owned());
            let told = site.harm.put_ops(name, POINTS, list(&all)).await;
            if crashes(&active.order) {
                unless_it_died_of_it(told)?;
            } else {
                told?;
            }
        }
        Ok(())
    }

    async fn heal(&self, active: &Active, site: &Site) -> Result<()> {
        for name in &active.struck {
            let mut all = armed(&*site.look, name).await?;
            all.remove(active.order.text("point"));
            site.harm.put_ops(name, POINTS, list(&all)).await?;
        }
        Ok(())
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let point = active.order.text("point");
        let mut each = Vec::new();
        for name in &active.struck {
            let before: Before = active.noted(name)?;
            if let Some(action) = armed(look, name).await?.get(point) {
                let text = format!("{name}: {point} is armed with {action}");
                each.push(Evidence::Seen(text));
                continue;
            }
            let (how, words) = (format!("{point} is not armed"), [ACTS, point, CRASH]);
            let died = crashes(&active.order).then_some(Died {
                words: &words,
                log: before.log.as_deref(),
            });
            each.push(unarmed(name, &before.identity, active, look, &how, died).await?);
        }
        Ok(Evidence::of_all(&each))
    }

    async fn acted(&self, active: &Active, look: &dyn Look) -> Result<Option<Acted>> {
        let point = active.order.text("point");
        let mut each = Vec::new();
        for name in &active.struck {
            let before: Before = active.noted(name)?;
            let now = self::point(look, name, point).await?;
            let identity = look.identity(&Target::Node(name.clone())).await?;
            let was = &before.identity;
            if identity.as_ref() == Some(was) {
                each.push(counted(name, &before, &now));
                continue;
            }
            let crash = crashes(&active.order);
            let words = [ACTS, point, if crash { CRASH } else { "" }];
            let said = last_words::said(look, name, was, active.at, &words).await?;
            each.push(told(name, point, &before, crash, said));
        }
        Ok(Some(Acted::of_all(&each)))
    }
}

fn crashes(order: &Order) -> bool {
    order.text("action").starts_with("crash")
}

/// Why nobody there could tell whether it acted: a crash takes its counts with it, and from inside no log can be read.
pub fn untold(order: &Order, ground: Ground) -> Option<&'static str> {
    (order.fault == "fail-point" && crashes(order) && ground == Ground::Inside).then_some(
        "whether a node died of it cannot be told from inside the network; play it from the host with --compose, or by the \
         service lab-docker",
    )
}

/// What is known of a process that is gone, by its log: whether that said that the point acted.
fn told(node: &str, point: &str, before: &Before, crash: bool, said: Option<bool>) -> Acted {
    let was = &before.identity.name;
    let mute = last_words::mute(before.log.as_deref(), crash);
    match (said, mute) {
        (Some(true), _) => Acted::Yes(format!("{node}: the log of {was} says that {point} acted")),
        (Some(false), None) => Acted::No(format!(
            "{node}: {was} is gone, and its log does not say that {point} acted"
        )),
        (Some(false), Some(mute)) => Acted::CannotTell(format!(
            "{node}: {was} is gone that had {point} armed, and {mute}"
        )),
        (None, _) if crash => Acted::CannotTell(format!(
            "{node}: {was} is gone that had {point} armed; of what it died cannot be told from here"
        )),
        (None, _) => Acted::No(format!("{node}: {was} is gone, and its counts with it")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_one_point_that_there_is_can_be_armed() {
        let check = |point: &str, action: &str| {
            let order = Order::new("fail-point")
                .with("point", point)
                .with("action", action);
            FailPoint.check(&order).map_err(|error| error.to_string())
        };
        check("settle.before_ack", "crash@3").unwrap();
        assert!(
            check("nowhere", "crash")
                .unwrap_err()
                .contains("no fail point")
        );
        assert!(
            check("settle.before_ack", "boom")
                .unwrap_err()
                .contains("cannot be read")
        );
        check("settle.before_ack", "crash,submit.after_commit=error").unwrap_err();
        check("", "").unwrap_err();
    }

    #[test]
    fn a_point_belongs_to_those_who_pass_it() {
        assert_eq!(services("welcome.after_smtp"), [Service::SignupWelcome]);
        assert_eq!(services("leases.push.after_commit"), [Service::Leases]);
        assert!(services("settle.before_ack").contains(&Service::NotesWorker));
        assert_eq!(services("submit.after_commit")[0], Service::Sender);
        assert_eq!(services("redrive.after_commit")[0], Service::Receiver);
    }

    #[test]
    fn a_point_that_was_passed_before_it_was_armed_or_in_vain_has_not_acted() {
        let before: Before = serde_json::from_value(
            json!({"name": "pid 1", "started": "7", "passages": 4, "acted": 1}),
        )
        .unwrap();
        let now = |passages, acted| Point {
            name: "settle.before_ack".to_owned(),
            passages,
            acted,
            ..Point::default()
        };
        let not = counted("receiver-1", &before, &now(4, 1));
        assert!(matches!(not, Acted::No(_)), "{not:?}");
        let in_vain = counted("receiver-1", &before, &now(6, 1));
        let text = "receiver-1: settle.before_ack was passed 2 times and did nothing";
        assert_eq!(in_vain, Acted::No(text.to_owned()));
        let done = counted("receiver-1", &before, &now(6, 2));
        assert!(matches!(done, Acted::Yes(_)), "{done:?}");
    }

    #[test]
    fn what_a_log_cannot_carry_is_not_taken_for_what_did_not_happen() {
        let before = |log: Value| -> Before {
            serde_json::from_value(json!({"name": "pid 1", "started": "7", "log": log})).unwrap()
        };
        let crashed = |log, said| told("receiver-1", "settle.before_ack", &before(log), true, said);
        let no = crashed(json!("error"), Some(false));
        assert!(matches!(no, Acted::No(_)), "{no:?}");
        let Acted::CannotTell(why) = crashed(json!("off"), Some(false)) else {
            panic!("nobody can tell");
        };
        assert!(
            why.contains("pid 1 is gone") && why.contains("LOG"),
            "{why}"
        );
        let yes = crashed(json!("off"), Some(true));
        assert!(matches!(yes, Acted::Yes(_)), "{yes:?}");
        let unread = crashed(Value::Null, None);
        assert!(matches!(unread, Acted::CannotTell(_)), "{unread:?}");
    }

    #[test]
    fn a_note_of_an_older_version_is_understood() {
        let before: Before =
            serde_json::from_value(json!({"name": "pid 1", "started": "7"})).unwrap();
        assert_eq!((before.identity.name.as_str(), before.acted), ("pid 1", 0));
    }
}
