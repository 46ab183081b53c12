//! Which faults are active, on disk: `faults/ID.json` in the stack's folder.
//!
//! Written before the harm is done and removed after the heal was seen, so that whoever dies in between leaves a note of
//! what to undo.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use daemon::clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Aim, Order};
use crate::stack::dir::{make_folder, write_secret};

/// A fault that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    pub id: String,
    pub order: Order,
    /// Names of what is struck.
    pub struck: Vec<String>,
    /// Behind which hosts nodes were found, where they were asked for by their hosts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub places: BTreeMap<String, String>,
    /// When it was begun.
    pub at: DateTime<Utc>,
    /// What was there before.
    pub before: Value,
    /// The evidence, once it was seen.
    pub seen: Option<String>,
}

impl Active {
    /// One that is about to begin; `order` with all its arguments.
    pub fn new(order: Order, aim: Aim) -> Self {
        Self {
            id: format!("{}-{:04x}", order.fault, rand::random::<u16>()),
            order,
            struck: aim.struck,
            places: BTreeMap::new(),
            at: clock::now(),
            before: aim.before,
            seen: None,
        }
    }

    /// What was noted of one of those that are struck.
    pub fn noted<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let noted = self.before.get(name).cloned().unwrap_or(Value::Null);
        serde_json::from_value(noted).with_context(|| format!("{}: no note of {name}", self.id))
    }

    /// In a line.
    pub fn describe(&self) -> String {
        let (fault, struck) = (&self.order.fault, self.struck.join(", "));
        format!("{fault} on {struck}")
    }
}

/// The notes of one stack.
#[derive(Debug, Clone)]
pub struct Notes(PathBuf);

impl Notes {
    /// Those in the folder of a stack.
    pub fn of(root: &Path) -> Self {
        Self(root.join("faults"))
    }

    /// Writes one, or replaces it.
    pub fn write(&self, active: &Active) -> Result<()> {
        make_folder(&self.0, 0o700)?;
        write_secret(
            &self.path(&active.id),
            &serde_json::to_string_pretty(active)?,
        )
    }

    /// Removes one.
    pub fn remove(&self, id: &str) -> Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove the note of {id}"))
            }
            _ => Ok(()),
        }
    }

    /// All of them, oldest first. One that cannot be read is an error: nobody knows what it did.
    pub fn all(&self) -> Result<Vec<Active>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context("cannot read the folder of active faults")?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match fs::read(&path) {
                // healed meanwhile
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                text => {
                    let active: Active = serde_json::from_slice(&text?)
                        .with_context(|| format!("{} is damaged", path.display()))?;
                    all.push(active);
                }
            }
        }
        all.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        Ok(all)
    }

    fn path(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn active(fault: &str) -> Active {
        let before = json!({"receiver-1": 7});
        let aim = Aim {
            struck: vec!["receiver-1".to_owned()],
            before,
        };
        Active::new(Order::new(fault), aim)
    }

    #[test]
    fn what_is_noted_is_found_again_until_it_is_removed() {
        let root = std::env::temp_dir().join(format!("lab-faults-{:016x}", rand::random::<u64>()));
        let notes = Notes::of(&root);
        assert!(notes.all().unwrap().is_empty());
        let (mut first, second) = (active("receiver-kill"), active("queue-limit"));
        notes.write(&first).unwrap();
        notes.write(&second).unwrap();
        first.seen = Some("gone".to_owned());
        notes.write(&first).unwrap();
        assert_eq!(notes.all().unwrap(), [first.clone(), second.clone()]);
        assert_eq!(first.noted::<u8>("receiver-1").unwrap(), 7);
        first.noted::<u8>("receiver-2").unwrap_err();
        notes.remove(&first.id).unwrap();
        notes.remove(&first.id).unwrap();
        assert_eq!(notes.all().unwrap(), [second]);
        fs::write(root.join("faults/x.json"), "{").unwrap();
        assert!(notes.all().unwrap_err().to_string().contains("is damaged"));
        fs::remove_dir_all(root).unwrap();
    }
}
