//! `actions.log`: every deed that was asked of the console, also those that were refused; a JSON document a line.
//!
//! What was refused to somebody who had not signed in is in `refused.log`: who may do nothing can fill that one, and erase
//! nothing of what was done. Secrets are no part of either: neither tokens nor what protects forms. When a log has grown
//! large it is put aside, and one older one is kept. A disk that is full keeps nobody from healing a fault: that a line is missing is told in the log of
//! the process.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use daemon::clock;
use serde::Serialize;
use serde_json::Value;

const SIZE_MAX: u64 = 10_000_000;

/// One line.
#[derive(Debug, Serialize)]
pub struct Action<'a> {
    pub at: DateTime<Utc>,
    /// Of the client, as the gateway saw it.
    pub address: &'a str,
    /// Method and path.
    pub deed: &'a str,
    pub parameters: &'a Value,
    /// `done`, `refused` or `failed`.
    pub outcome: &'static str,
    pub status: u16,
    /// Why it was not done.
    pub why: Option<&'a str>,
}

/// In an answer that is a page of its own and no error: why it was not done.
#[derive(Debug, Clone)]
pub struct Why(pub Cow<'static, str>);

/// The log. Clones share it.
#[derive(Debug, Clone)]
pub struct Actions {
    path: PathBuf,
    /// What was refused to strangers.
    refused: PathBuf,
    one_at_a_time: Arc<Mutex<()>>,
}

impl Actions {
    /// In this folder.
    pub fn in_folder(root: &Path) -> Self {
        Self {
            path: root.join("actions.log"),
            refused: root.join("refused.log"),
            one_at_a_time: Arc::default(),
        }
    }

    /// Adds a line; `stranger`: who asked has not signed in.
    pub fn write(
        &self,
        (address, stranger): (&str, bool),
        deed: &str,
        parameters: &Value,
        (status, why): (u16, Option<&str>),
    ) {
        let outcome = match status {
            ..400 => "done",
            400..500 => "refused",
            _ => "failed",
        };
        let action = Action {
            at: clock::now(),
            address,
            deed,
            parameters,
            outcome,
            status,
            why,
        };
        let log = if stranger && outcome == "refused" {
            &self.refused
        } else {
            &self.path
        };
        if let Err(error) = self.append(log, &action) {
            tracing::error!(%error, deed, outcome, address, "a deed is missing in actions.log");
        }
    }

    fn append(&self, path: &Path, action: &Action<'_>) -> std::io::Result<()> {
        let mut line = serde_json::to_string(action)?;
        line.push('\n');
        let _alone = self
            .one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if fs::metadata(path).is_ok_and(|log| log.len() > SIZE_MAX) {
            fs::rename(path, path.with_extension("log.1"))?;
        }
        let mut log = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        // in one write: a line is there as a whole, also after a crash
        log.write_all(line.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    #[test]
    fn each_deed_is_a_line_that_only_the_owner_reads() {
        let root = std::env::temp_dir().join(format!("lab-actions-{:016x}", rand::random::<u64>()));
        fs::create_dir(&root).unwrap();
        let actions = Actions::in_folder(&root);
        let parameters = json!({"rate": "5"});
        actions.write(("a", false), "POST /lab/load", &parameters, (303, None));
        actions.write(
            ("b", false),
            "POST /lab/load",
            &parameters,
            (403, Some("no")),
        );
        actions.write(
            ("b", false),
            "POST /lab/load",
            &parameters,
            (502, Some("away")),
        );
        let path = root.join("actions.log");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let outcomes: Vec<&Value> = lines.iter().map(|line| &line["outcome"]).collect();
        assert_eq!(outcomes, ["done", "refused", "failed"]);
        assert_eq!(lines[1]["why"], "no");
        assert_eq!(lines[0]["parameters"]["rate"], "5");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn who_may_do_nothing_erases_nothing_of_what_was_done() {
        let root = std::env::temp_dir().join(format!("lab-actions-{:016x}", rand::random::<u64>()));
        fs::create_dir(&root).unwrap();
        let actions = Actions::in_folder(&root);
        actions.write(("a", false), "POST /lab/load", &json!({}), (303, None));
        let large = json!({ "x": "x".repeat(100_000) });
        let refused = (403, Some("not signed in"));
        for _ in 0..300 {
            actions.write(("b", true), "POST /lab/load", &large, refused);
        }
        let text = fs::read_to_string(root.join("actions.log")).unwrap();
        assert!(text.lines().count() == 1 && text.contains("done"), "{text}");
        let sizes = ["refused.log", "refused.log.1"]
            .map(|name| fs::metadata(root.join(name)).unwrap().len());
        assert!(
            sizes.iter().all(|size| *size < SIZE_MAX + 200_000),
            "{sizes:?}"
        );
        assert!(!root.join("actions.log.1").exists());
        fs::remove_dir_all(root).unwrap();
    }
}
