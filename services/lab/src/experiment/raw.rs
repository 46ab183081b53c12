//! An experiment's file as it is written: every value with its place, nothing understood yet.
//!
//! A field that is not here is an error of the reader, with its line and column.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Location, Spanned};

use crate::stack::node::Service;

/// A value and its place.
pub(super) type Text = Spanned<String>;

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) why: String,
}

impl Wrong {
    pub(super) fn at(place: Location, why: impl Into<String>) -> Self {
        Self {
            line: place.line(),
            column: place.column(),
            why: why.into(),
        }
    }
}

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub(super) title: Text,
    pub(super) learn: Text,
    pub(super) proves: Option<Text>,
    pub(super) fast: Option<bool>,
    pub(super) stack: Option<Spanned<RawStack>>,
    pub(super) load: Spanned<RawLoad>,
    pub(super) faults: Option<Spanned<Vec<RawFault>>>,
    pub(super) storm: Option<Spanned<RawStorm>>,
    pub(super) expect: Option<Spanned<RawExpect>>,
    pub(super) recovery: Option<Text>,
    pub(super) twin: Option<Spanned<RawTwin>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStack {
    pub(super) sender: Option<Text>,
    pub(super) receiver: Option<Text>,
    pub(super) notes: Option<Text>,
    #[serde(rename = "notes-worker")]
    pub(super) notes_worker: Option<Text>,
    pub(super) leases: Option<Text>,
    pub(super) signup: Option<Text>,
    #[serde(rename = "signup-welcome")]
    pub(super) signup_welcome: Option<Text>,
    pub(super) settings: Option<Pairs>,
    pub(super) without: Option<Vec<Text>>,
}

impl RawStack {
    /// How many nodes of a service are asked for, if that is said.
    pub(super) fn nodes(&self, service: Service) -> Option<&Text> {
        let text = match service {
            Service::Sender => &self.sender,
            Service::Receiver => &self.receiver,
            Service::Notes => &self.notes,
            Service::NotesWorker => &self.notes_worker,
            Service::Leases => &self.leases,
            Service::Signup => &self.signup,
            Service::SignupWelcome => &self.signup_welcome,
        };
        text.as_ref()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLoad {
    pub(super) to: Option<Text>,
    pub(super) rate: Option<Text>,
    #[serde(rename = "for")]
    pub(super) length: Option<Text>,
    pub(super) size: Option<Text>,
    pub(super) poison: Option<Text>,
    pub(super) batch: Option<Text>,
    pub(super) connections: Option<Text>,
    pub(super) patience: Option<Text>,
    pub(super) readers: Option<Text>,
    pub(super) lessees: Option<Text>,
    pub(super) late: Option<Text>,
    pub(super) confirm: Option<Text>,
    pub(super) lease: Option<Text>,
    pub(super) max_receives: Option<Text>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFault {
    pub(super) at: Text,
    pub(super) fault: Text,
    pub(super) on: Option<Text>,
    pub(super) set: Option<Pairs>,
    #[serde(rename = "for")]
    pub(super) time: Option<Text>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStorm {
    #[serde(rename = "for")]
    pub(super) length: Text,
    pub(super) pause: Option<Text>,
    pub(super) hold: Option<Text>,
    pub(super) faults: Spanned<Vec<Text>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExpect {
    pub(super) verdict: Option<Text>,
    pub(super) dead_max: Option<Text>,
    pub(super) class: Option<Text>,
    pub(super) figure: Option<Text>,
    pub(super) figures: Option<Pairs>,
}

/// What stands here replaces what stands above; settings and figures name by name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTwin {
    pub(super) without: Option<Vec<Text>>,
    pub(super) settings: Option<Pairs>,
    pub(super) load: Option<Spanned<RawLoad>>,
    pub(super) faults: Option<Spanned<Vec<RawFault>>>,
    pub(super) storm: Option<Spanned<RawStorm>>,
    pub(super) expect: Spanned<RawExpect>,
    pub(super) recovery: Option<Text>,
}

/// A mapping of names to values, both with their places.
#[derive(Debug, Clone, Default)]
pub(super) struct Pairs(pub(super) Vec<(Text, Text)>);

impl Pairs {
    /// These, and those of `over` in the place of those with the same name.
    pub(super) fn under(&self, over: &Self) -> Self {
        let named =
            |pair: &&(Text, Text)| over.0.iter().all(|(name, _)| name.value != pair.0.value);
        let kept = self.0.iter().filter(named);
        Self(kept.chain(&over.0).cloned().collect())
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of names to values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// Reads the text of a file.
pub(super) fn read(text: &str) -> Result<RawFile, Wrong> {
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let place = error.location();
        let (line, column) = place.map_or((1, 1), |place| (place.line(), place.column()));
        let mut why = error.to_string();
        // words for whoever calls the library, not for whoever writes the file
        for cut in [
            format!(" at line {line}, column {column}").as_str(),
            ", set DuplicateKeyPolicy",
            "; use ",
        ] {
            if let Some(at) = why.find(cut) {
                why.truncate(at);
            }
        }
        Wrong {
            line,
            column,
            why: why.replace('\n', " "),
        }
    })
}
