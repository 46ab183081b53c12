//! The simulated work's settings, changeable while the process runs.
//!
//! A change is a JSON object that names what it changes; all else stays. Who waits because of a knob
//! (for a delay, or hanging) can watch it, and goes on when it is turned back.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::watch;

use crate::TARGET;

/// What the log says before [`FailureAction::Crash`] ends the process: nothing else tells of it. The field
/// `pid` says whose.
pub const CRASHES: &str = "the work crashes its process";
/// Longest delay.
pub const DELAY_MAX_MS: u64 = 600_000;
/// Most deliveries in hand: what a quorum queue gives at most.
pub const PREFETCH_MAX: u16 = 2_000;

/// What a failure of the work does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// The message goes back as the settings for retries say: by basic.nack, or onto the ladder.
    #[default]
    Nack,
    /// It goes back by basic.reject.
    Reject,
    /// The connection is dropped with everything in hand.
    Drop,
    /// The process dies at once, and counts nothing.
    Crash,
    /// The message is acked though there is no effect.
    Ack,
    /// It is given up on at once.
    Park,
    /// The work never ends, until this is turned to something else; then it has failed.
    Hang,
}

impl FailureAction {
    const ALL: [Self; 7] = [
        Self::Nack,
        Self::Reject,
        Self::Drop,
        Self::Crash,
        Self::Ack,
        Self::Park,
        Self::Hang,
    ];

    /// As in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nack => "nack",
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::Crash => "crash",
            Self::Ack => "ack",
            Self::Park => "park",
            Self::Hang => "hang",
        }
    }
}

impl fmt::Display for FailureAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FailureAction {
    type Err = WrongKnob;

    fn from_str(name: &str) -> Result<Self, WrongKnob> {
        let found = Self::ALL.into_iter().find(|action| action.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            WrongKnob(format!("right is one of {names}"))
        })
    }
}

/// Ends the process, as [`FailureAction::Crash`] does.
pub fn crash(reason: &str) -> ! {
    let pid = std::process::id();
    tracing::error!(target: TARGET, reason, pid, "{CRASHES}");
    std::process::abort()
}

/// Settings that do not fit together, or are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongKnob(
    /// Why, in a sentence.
    pub String,
);

/// All knobs as they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Shortest time that the work takes, in milliseconds.
    pub delay_min_ms: u64,
    /// Longest time that it takes.
    pub delay_max_ms: u64,
    /// It fails one time in so many (1: always, 0: never).
    pub fail_one_in: u32,
    /// What its failure does.
    pub failure_action: FailureAction,
    /// Deliveries in hand at most.
    pub prefetch: u16,
}

impl Settings {
    /// What they are after a change.
    ///
    /// # Errors
    /// See [`Settings::check`].
    pub fn after(&self, change: &Change) -> Result<Self, WrongKnob> {
        let wanted = Self {
            delay_min_ms: change.delay_min_ms.unwrap_or(self.delay_min_ms),
            delay_max_ms: change.delay_max_ms.unwrap_or(self.delay_max_ms),
            fail_one_in: change.fail_one_in.unwrap_or(self.fail_one_in),
            failure_action: change.failure_action.unwrap_or(self.failure_action),
            prefetch: change.prefetch.unwrap_or(self.prefetch),
        };
        wanted.check().map(|()| wanted)
    }

    /// Whether they fit together.
    ///
    /// # Errors
    /// A sentence that says what does not.
    pub fn check(&self) -> Result<(), WrongKnob> {
        let (min, max) = (self.delay_min_ms, self.delay_max_ms);
        if max > DELAY_MAX_MS {
            let why = format!("delay_max_ms is {max}, and {DELAY_MAX_MS} at most is allowed");
            return Err(WrongKnob(why));
        }
        if min > max {
            let why = format!("delay_min_ms is {min}, more than delay_max_ms, which is {max}");
            return Err(WrongKnob(why));
        }
        if !(1..=PREFETCH_MAX).contains(&self.prefetch) {
            let why = format!(
                "prefetch is {}, and right is 1 to {PREFETCH_MAX}",
                self.prefetch
            );
            return Err(WrongKnob(why));
        }
        Ok(())
    }
}

/// What is to be changed. Anything unknown, and `null`, is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// See [`Settings`], as for all of them.
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    pub delay_min_ms: Option<u64>,
    /// Longest delay.
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    pub delay_max_ms: Option<u64>,
    /// How often the work fails.
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    pub fail_one_in: Option<u32>,
    /// What its failure does.
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    pub failure_action: Option<FailureAction>,
    /// Deliveries in hand at most.
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<u16>,
}

impl Change {
    /// This change, and after it that one: where both name the same, the later holds.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        Self {
            delay_min_ms: later.delay_min_ms.or(self.delay_min_ms),
            delay_max_ms: later.delay_max_ms.or(self.delay_max_ms),
            fail_one_in: later.fail_one_in.or(self.fail_one_in),
            failure_action: later.failure_action.or(self.failure_action),
            prefetch: later.prefetch.or(self.prefetch),
        }
    }
}

fn some<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// The knobs of this process. Clones share everything.
#[derive(Debug, Clone)]
pub struct Knobs(Arc<watch::Sender<Settings>>);

impl Knobs {
    /// Knobs that stand so.
    ///
    /// # Errors
    /// See [`Settings::check`].
    pub fn new(settings: Settings) -> Result<Self, WrongKnob> {
        settings.check()?;
        Ok(Self(Arc::new(watch::Sender::new(settings))))
    }

    /// How they stand now.
    pub fn now(&self) -> Settings {
        *self.0.borrow()
    }

    /// To wait for a change.
    pub fn watch(&self) -> watch::Receiver<Settings> {
        self.0.subscribe()
    }

    /// Turns what the change names, or nothing if it does not fit.
    ///
    /// # Errors
    /// See [`Settings::check`].
    pub fn change(&self, change: &Change) -> Result<Settings, WrongKnob> {
        let mut result = Ok(self.now());
        self.0.send_if_modified(|settings| {
            result = settings.after(change);
            if let Ok(wanted) = &result {
                *settings = *wanted;
            }
            result.is_ok()
        });
        result
    }

    /// Turns all of them.
    ///
    /// # Errors
    /// See [`Settings::check`].
    pub fn set(&self, settings: Settings) -> Result<(), WrongKnob> {
        settings.check()?;
        self.0.send_replace(settings);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knobs() -> Knobs {
        Knobs::new(Settings {
            delay_min_ms: 10,
            delay_max_ms: 20,
            fail_one_in: 5,
            failure_action: FailureAction::Nack,
            prefetch: 16,
        })
        .unwrap()
    }

    #[test]
    fn a_change_turns_only_what_it_names() {
        let knobs = knobs();
        let change = Change {
            failure_action: Some(FailureAction::Hang),
            fail_one_in: Some(1),
            ..Change::default()
        };
        let settings = knobs.change(&change).unwrap();
        assert_eq!(settings, knobs.now());
        let Settings {
            delay_min_ms,
            delay_max_ms,
            fail_one_in,
            failure_action,
            prefetch,
        } = settings;
        assert_eq!((delay_min_ms, delay_max_ms, fail_one_in), (10, 20, 1));
        assert_eq!((failure_action, prefetch), (FailureAction::Hang, 16));
    }

    #[test]
    fn a_change_that_does_not_fit_turns_nothing() {
        let knobs = knobs();
        let change = Change {
            delay_min_ms: Some(21),
            fail_one_in: Some(0),
            ..Change::default()
        };
        let said = knobs.change(&change).unwrap_err().to_string();
        assert_eq!(
            said,
            "delay_min_ms is 21, more than delay_max_ms, which is 20"
        );
        assert_eq!(knobs.now().fail_one_in, 5);
        let change = Change {
            delay_max_ms: Some(DELAY_MAX_MS + 1),
            ..Change::default()
        };
        knobs.change(&change).unwrap_err();
    }

    #[test]
    fn actions_are_read_by_their_names() {
        for action in FailureAction::ALL {
            assert_eq!(action.name().parse(), Ok(action));
        }
        let said = "nak".parse::<FailureAction>().unwrap_err().to_string();
        assert_eq!(
            said,
            "right is one of nack, reject, drop, crash, ack, park, hang"
        );
    }
}
