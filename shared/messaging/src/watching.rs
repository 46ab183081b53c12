//! Who wants to see what happens to messages, as it happens.
//!
//! Whoever watches is told after the fact: after the commit, after the broker's word. It must not take
//! time, and what it does with it changes nothing here. No verdict rests on it.

use std::{fmt, sync::Arc};

use uuid::Uuid;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It is stored, and whoever sent it hears so.
    Accepted,
    /// The broker has confirmed it, and that is marked.
    Published,
    /// No queue took it.
    Unroutable,
    /// The queue said no.
    Refused,
    /// It came in.
    Delivered,
    /// Its work failed, and it goes back to the queue, perhaps by way of the ladder.
    Failed,
    /// It has its effect already.
    Duplicate,
    /// Its effect is committed.
    Processed,
    /// It was given up on, and is parked.
    Dead,
    /// It is on its way back from the dead letters.
    Redriven,
}

/// Something that happened to one message, as far as is known where it happened.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// What.
    pub what: What,
    /// To which.
    pub message_id: Uuid,
    /// At which attempt.
    pub attempt: Option<u32>,
    /// How many milliseconds it took.
    pub ms: Option<u64>,
    /// The message's run.
    pub run: Option<&'a str>,
    /// Whether it had been delivered before.
    pub redelivered: Option<bool>,
}

impl<'a> Sight<'a> {
    /// What happened to which, and nothing more.
    pub fn new(what: What, message_id: Uuid) -> Self {
        Self {
            what,
            message_id,
            attempt: None,
            ms: None,
            run: None,
            redelivered: None,
        }
    }

    pub(crate) fn run(self, run: Option<&'a str>) -> Self {
        Self { run, ..self }
    }

    pub(crate) fn attempt(self, attempt: u32) -> Self {
        let attempt = Some(attempt);
        Self { attempt, ..self }
    }

    pub(crate) fn ms(self, ms: u128) -> Self {
        let ms = u64::try_from(ms).ok();
        Self { ms, ..self }
    }

    pub(crate) fn redelivered(self, redelivered: bool) -> Self {
        let redelivered = Some(redelivered);
        Self {
            redelivered,
            ..self
        }
    }
}

/// Sees what happens. Called on the road itself: it must neither wait nor take long.
pub trait Watcher: Send + Sync + 'static {
    /// Something has happened.
    fn see(&self, sight: &Sight<'_>);
}

/// Who watches, if anybody does. Clones share it.
#[derive(Clone, Default)]
pub struct Watching(Option<Arc<dyn Watcher>>);

impl Watching {
    /// This one watches.
    pub fn by(watcher: impl Watcher) -> Self {
        Self(Some(Arc::new(watcher)))
    }

    /// Nobody does.
    pub fn nobody() -> Self {
        Self::default()
    }

    pub(crate) fn tell(&self, sight: &Sight<'_>) {
        if let Some(watcher) = &self.0 {
            watcher.see(sight);
        }
    }
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watching").field(&self.0.is_some()).finish()
    }
}
