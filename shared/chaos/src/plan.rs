//! What is to happen at a fail point, and the short way to write it.
//!
//! `name=action`, several separated by commas. The action is `crash`, `error`, `park` or
//! `delay:MILLISECONDS`; then, if not at every passage, `@3` (the third passage only) or `%10`
//! (every tenth). Passages are counted from the moment of arming.

use std::{fmt, time::Duration};

use crate::FAIL_POINTS;

/// What happens to whoever passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The process aborts: no destructors, no goodbye to the broker or the database.
    Crash,
    /// The passage takes this much longer.
    Delay(Duration),
    /// The passage fails with [`crate::Injected`].
    Error,
    /// The passage waits until the point is disarmed or armed anew.
    Park,
}

/// An action and the passages it applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// What happens.
    pub action: Action,
    when: When,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// Only the nth passage, counted from 1.
    Only(u64),
    /// Every nth passage.
    Every(u64),
}

/// A fail point that cannot be armed as written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WrongFailPoint {
    /// The name is not in [`FAIL_POINTS`].
    #[error("there is no fail point {0:?}; there are: {names}", names = names())]
    UnknownName(String),
    /// The rest cannot be read.
    #[error(
        "{0:?} cannot be read; right is name=crash|error|park|delay:MS, \
         then perhaps @N (the Nth passage only) or %N (every Nth)"
    )]
    Unreadable(String),
}

fn names() -> String {
    FAIL_POINTS
        .iter()
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The place of a name in [`FAIL_POINTS`].
pub(crate) fn index_of(name: &str) -> Result<usize, WrongFailPoint> {
    FAIL_POINTS
        .iter()
        .position(|(known, _)| *known == name)
        .ok_or_else(|| WrongFailPoint::UnknownName(name.to_owned()))
}

/// Reads a list of fail points. Blank entries are skipped, so the empty string is an empty list.
pub(crate) fn parse_list(spec: &str) -> Result<Vec<(usize, Plan)>, WrongFailPoint> {
    let entries = spec
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty());
    entries.map(parse_one).collect()
}

fn parse_one(entry: &str) -> Result<(usize, Plan), WrongFailPoint> {
    let unreadable = || WrongFailPoint::Unreadable(entry.to_owned());
    let (name, rest) = entry.split_once('=').ok_or_else(unreadable)?;
    let index = index_of(name.trim())?;
    let plan = Plan::parse(rest.trim()).ok_or_else(unreadable)?;
    Ok((index, plan))
}

impl Plan {
    fn parse(text: &str) -> Option<Self> {
        let (action, when) = if let Some((action, n)) = text.split_once('@') {
            (action, When::Only(at_least_one(n)?))
        } else if let Some((action, n)) = text.split_once('%') {
            (action, When::Every(at_least_one(n)?))
        } else {
            (text, When::Always)
        };
        let action = match action {
            "crash" => Action::Crash,
            "error" => Action::Error,
            "park" => Action::Park,
            other => {
                let millis = other.strip_prefix("delay:")?.parse().ok()?;
                Action::Delay(Duration::from_millis(millis))
            }
        };
        Some(Self { action, when })
    }

    /// Whether the nth passage since arming (counted from 1) is one that the plan means.
    pub(crate) fn applies_to(&self, nth: u64) -> bool {
        match self.when {
            When::Always => true,
            When::Only(n) => nth == n,
            When::Every(n) => nth.is_multiple_of(n),
        }
    }
}

fn at_least_one(text: &str) -> Option<u64> {
    text.parse().ok().filter(|n| *n > 0)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Crash => f.write_str("crash")?,
            Action::Error => f.write_str("error")?,
            Action::Park => f.write_str("park")?,
            Action::Delay(time) => write!(f, "delay:{}", time.as_millis())?,
        }
        match self.when {
            When::Always => Ok(()),
            When::Only(n) => write!(f, "@{n}"),
            When::Every(n) => write!(f, "%{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for text in ["crash", "crash@3", "delay:500@1", "error%10", "park"] {
            assert_eq!(Plan::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_way_to_write_it() {
        for text in [
            "",
            "boom",
            "delay",
            "delay:x",
            "crash@0",
            "error%",
            "error%-1",
            "crash@3%4",
        ] {
            let entry = format!("submit.after_commit={text}");
            assert_eq!(
                parse_list(&entry),
                Err(WrongFailPoint::Unreadable(entry.clone()))
            );
        }
    }

    #[test]
    fn an_unknown_name_is_refused_and_the_known_ones_are_named() {
        let error = parse_list("submit.after_comit=crash").unwrap_err();
        assert!(error.to_string().contains("submit.after_commit"), "{error}");
    }

    #[test]
    fn the_counted_forms_mean_the_passages_they_name() {
        let meant = |text: &str| -> Vec<u64> {
            let plan = Plan::parse(text).unwrap();
            (1..=6).filter(|nth| plan.applies_to(*nth)).collect()
        };
        assert_eq!(meant("error"), [1, 2, 3, 4, 5, 6]);
        assert_eq!(meant("error@3"), [3]);
        assert_eq!(meant("error%3"), [3, 6]);
    }
}
