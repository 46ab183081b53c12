//! The parts a service leans on (Postgres, RabbitMQ, Redis) and how each is now.
//!
//! Who talks to a part writes its state here; pages and `/health/ready` read it. A state is a
//! hint for people and load balancers: no promise about messages rests on it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::{clock, metrics::PART_UP};

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Nothing is known yet.
    Starting,
    /// It answers.
    Up,
    /// It answers, but refuses or delays some of what it is for.
    Blocked,
    /// It does not answer.
    Away,
}

impl Kind {
    /// The word that pages and JSON use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Blocked => "blocked",
            Self::Away => "away",
        }
    }

    /// Whether the part can be used, be it slowly.
    pub fn usable(self) -> bool {
        matches!(self, Self::Up | Self::Blocked)
    }
}

/// How a part is, since when, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct State {
    /// How it is.
    #[serde(rename = "state")]
    pub kind: Kind,
    /// Since when it is so.
    pub since: DateTime<Utc>,
    /// The reason, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// All parts of this process. Clones share everything.
#[derive(Clone, Default)]
pub struct Parts {
    parts: Arc<Mutex<BTreeMap<&'static str, Part>>>,
}

impl Parts {
    /// No parts yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The part of this name; the first to ask makes it, in the state "starting".
    pub fn part(&self, name: &'static str) -> Part {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.entry(name).or_insert_with(|| Part::new(name)).clone()
    }

    /// The state of each part, by name.
    pub fn states(&self) -> BTreeMap<&'static str, State> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .map(|(name, part)| (*name, part.state()))
            .collect()
    }

    /// Whether all the named parts can be used. One that nobody has registered cannot.
    pub fn usable(&self, names: &[&'static str]) -> bool {
        let states = self.states();
        names
            .iter()
            .all(|name| states.get(name).is_some_and(|state| state.kind.usable()))
    }
}

/// One part. Clones share its state.
#[derive(Clone)]
pub struct Part {
    name: &'static str,
    state: watch::Sender<State>,
}

impl Part {
    fn new(name: &'static str) -> Self {
        let state = State {
            kind: Kind::Starting,
            since: clock::now(),
            why: None,
        };
        gauge(name, Kind::Starting);
        Self {
            name,
            state: watch::Sender::new(state),
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// It answers.
    pub fn up(&self) {
        self.set(Kind::Up, None);
    }

    /// It does not answer, because of this.
    pub fn away(&self, why: impl Into<String>) {
        self.set(Kind::Away, Some(why.into()));
    }

    /// It answers, but this is the matter; for example "blocked: low on memory".
    pub fn note(&self, why: impl Into<String>) {
        self.set(Kind::Blocked, Some(why.into()));
    }

    /// It is being waited for, because of this.
    pub fn starting(&self, why: impl Into<String>) {
        self.set(Kind::Starting, Some(why.into()));
    }

    /// How it is.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// To be told of changes.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Keeps `since` while only the reason changes, and logs only when the kind does.
    fn set(&self, kind: Kind, why: Option<String>) {
        self.state.send_if_modified(|state| {
            if state.kind == kind && state.why == why {
                return false;
            }
            if state.kind != kind {
                self.say(kind, why.as_deref());
                gauge(self.name, kind);
                state.kind = kind;
                state.since = clock::now();
            }
            state.why = why;
            true
        });
    }

    fn say(&self, kind: Kind, why: Option<&str>) {
        let part = self.name;
        match kind {
            Kind::Up | Kind::Starting => tracing::info!(part, why, "{part} is {}", kind.word()),
            Kind::Away | Kind::Blocked => tracing::warn!(part, why, "{part} is {}", kind.word()),
        }
    }
}

fn gauge(name: &'static str, kind: Kind) {
    metrics::gauge!(PART_UP, "part" => name).set(if kind == Kind::Up { 1.0 } else { 0.0 });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_tells_when_the_kind_changed_not_the_reason() {
        let part = Parts::new().part("postgres");
        part.away("connection refused");
        let first = part.state();
        part.away("the system is starting up");
        let second = part.state();
        assert_eq!(first.since, second.since);
        assert_eq!(second.why.as_deref(), Some("the system is starting up"));
        part.up();
        assert_eq!((part.state().kind, part.state().why), (Kind::Up, None));
    }

    #[test]
    fn only_a_part_that_answers_is_usable() {
        let parts = Parts::new();
        assert!(!parts.usable(&["rabbitmq"]));
        let part = parts.part("rabbitmq");
        assert!(!parts.usable(&["rabbitmq"]), "usable while starting");
        part.note("blocked: low on memory");
        assert!(parts.usable(&["rabbitmq"]));
        part.away("gone");
        assert!(!parts.usable(&["rabbitmq"]));
        assert!(parts.usable(&[]));
    }

    #[tokio::test]
    async fn who_subscribes_is_told_once_per_change() {
        let part = Parts::new().part("redis");
        let mut changes = part.subscribe();
        part.up();
        changes.changed().await.unwrap();
        part.up();
        assert!(!changes.has_changed().unwrap());
    }
}
