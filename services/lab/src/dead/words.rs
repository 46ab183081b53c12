//! Dead letters and redrives in a terminal: a line for each.

use chrono::{DateTime, SecondsFormat, Utc};
use messaging::receive::redrive::{Redrive, State};
use uuid::Uuid;

use super::read::{Letter, Parked};
use crate::say::plain;

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn id(message: Option<Uuid>) -> String {
    message.map_or_else(
        || "not a message of ours".to_owned(),
        |message| message.to_string(),
    )
}

/// One of another service.
pub(super) fn of_other(letter: &Parked) -> String {
    let (at, id) = (time(letter.dead_at), id(letter.message_id));
    let (node, reason) = (plain(&letter.node), plain(&letter.reason));
    format!("{at}  {id}  by {node}: {reason}")
}

/// A dead letter.
pub(super) fn one(letter: &Letter) -> String {
    let id = id(letter.message_id);
    let text: String = letter.text().chars().take(60).collect();
    let (at, reason, text) = (time(letter.dead_at), plain(&letter.reason), plain(&text));
    format!("{at}  {id}  {reason}  \"{text}\"")
}

/// What was decided about it.
pub(super) fn decided(letter: &Letter) -> String {
    let times = match letter.redrive {
        1 => "once before".to_owned(),
        some => format!("{some} times before"),
    };
    let mut line = format!("  sent back {times}; now: {}", letter.state);
    if let Some(at) = letter.decided_at {
        line = format!("{line} {}", time(at));
    }
    let by = letter.redriven_by.map(|id| format!("redrive {id}"));
    if let Some(by) = by.or_else(|| letter.discarded_by.clone()) {
        line = format!("{line} by {}", plain(&by));
    }
    line
}

/// How an order stands.
pub(super) fn stands(order: &Redrive) -> String {
    let (word, all) = (order.word(), order.selected);
    if order.state == State::Cancelled && order.started_at.is_none() {
        return format!("{word}: nothing of {all} was sent back");
    }
    let mut parts = vec![
        format!("{} of {all} sent back", order.redriven),
        format!("{} had their effect", order.has_effect),
    ];
    if order.gone > 0 {
        let gone = order.gone;
        parts.push(format!(
            "{gone} settled by somebody else meanwhile, or unreadable"
        ));
    }
    parts.push(format!("{} left", order.left()));
    format!("{word}: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn order(state: &str, started: bool, gone: i64) -> Redrive {
        let at = "2026-11-22T05:06:07Z";
        let order = json!({
            "redrive_id": "00000000-0000-0000-0000-000000000000", "state": state, "cut_off": at, "per_second": 1,
            "who": "x", "created_at": at, "started_at": started.then_some(at), "ended_at": null, "selected": 9,
            "had_effect": 0, "not_ours": 0, "redriven": 3, "has_effect": 1, "gone": gone,
        });
        serde_json::from_value(order).unwrap()
    }

    #[test]
    fn an_order_stands_in_words_that_are_needed() {
        let said = stands(&order("running", true, 0));
        let right = "running: 3 of 9 sent back, 1 had their effect, 5 left";
        assert_eq!(said, right);
        let said = stands(&order("cancelled", true, 2));
        let right = "cancelled: 3 of 9 sent back, 1 had their effect, \
                     2 settled by somebody else meanwhile, or unreadable, 3 left";
        assert_eq!(said, right);
        let said = stands(&order("cancelled", false, 0));
        let right = "given up before it began: nothing of 9 was sent back";
        assert_eq!(said, right);
    }
}
