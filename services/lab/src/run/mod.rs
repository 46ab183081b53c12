//! A run: a load or an experiment with a name, which its messages carry, and a folder of its own.
//!
//! The folder (`<lab root>/runs/ID/`) holds what the run's own side knows, never what a server knows: the run may break
//! every server. `run.json` says what was asked for, `requests.log` what each client was told, `leases.log` what lessees were.

pub mod elsewhere;
pub mod job;
pub mod leased;
pub mod record;
pub mod requests;
pub mod sight;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use daemon::clock;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::job::Job;
use crate::load::Plan;
use crate::say::Usage;
use crate::stack::dir::{make_folder, write_secret};

const META: &str = "run.json";

/// The name of a run: `r`, the time, four random letters, such as `r1121-0915-k3fz`; or one that a person chose.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    const MAX: usize = 40;

    /// A new one, by the clock and by chance.
    pub fn new() -> Self {
        Self::at(clock::now())
    }

    fn at(now: DateTime<Utc>) -> Self {
        // without letters that are mistaken for others
        const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
        let mut name = now.format("r%m%d-%H%M-").to_string();
        for _ in 0..4 {
            name.push(char::from(LETTERS[rand::random_range(0..LETTERS.len())]));
        }
        Self(name)
    }

    /// The idempotency key of a request. Keys of a run, sorted as text, are sorted by number.
    pub fn key(&self, number: u64) -> String {
        format!("{}-{number:010}", self.0)
    }

    /// The number in a key; none: it is not a key of this run.
    pub fn number_of(&self, key: &str) -> Option<u64> {
        let digits = key.strip_prefix(&*self.0)?.strip_prefix('-')?;
        let right = digits.len() == 10 && digits.bytes().all(|digit| digit.is_ascii_digit());
        right.then(|| digits.parse().ok()).flatten()
    }

    /// What the vhost and the database of a run of its own are called: no run can be named as one that is there already.
    pub fn scene(&self) -> String {
        format!("run-{}", self.0)
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RunId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for RunId {
    type Err = Usage;

    fn from_str(text: &str) -> Result<Self, Usage> {
        let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if (1..=Self::MAX).contains(&text.len()) && text.bytes().all(letter) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Usage(format!(
                "{text:?} cannot name a run: 1 to {} of a-z, 0-9 and -",
                Self::MAX
            )))
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = Usage;

    fn try_from(text: String) -> Result<Self, Usage> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}

/// What a run was: `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    pub run: RunId,
    /// `load`, or the name of an experiment.
    pub kind: String,
    pub seed: u64,
    pub created_at: DateTime<Utc>,
    /// The zero of the times in `requests.log`; none: the load did not begin.
    pub started_at: Option<DateTime<Utc>>,
    /// None: it still runs, or its process was killed.
    pub ended_at: Option<DateTime<Utc>>,
    /// The load as it was asked for.
    pub load: Option<Plan>,
    pub gateway: String,
    /// Where its messages are stored; none: that could not be found out.
    #[serde(default)]
    pub ledger: Option<String>,
    /// The flags by which a command reaches its stack; empty: it is that of this folder.
    #[serde(default)]
    pub elsewhere: String,
    /// Where the mails of its stack are put down; none: nobody knows.
    #[serde(default)]
    pub mails: Option<PathBuf>,
    #[serde(default)]
    pub stack: Facts,
}

impl Meta {
    /// What it is about.
    pub fn job(&self) -> Job {
        self.load.as_ref().map(|load| load.to).unwrap_or_default()
    }

    /// Of a run that is about to begin.
    pub fn new(run: RunId, kind: &str, seed: u64, gateway: &str) -> Self {
        Self {
            run,
            kind: kind.to_owned(),
            seed,
            created_at: clock::now(),
            started_at: None,
            ended_at: None,
            load: None,
            gateway: gateway.to_owned(),
            ledger: None,
            elsewhere: String::new(),
            mails: None,
            stack: Facts::default(),
        }
    }
}

/// What the stack of a run was, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// How many nodes of each service.
    pub counts: BTreeMap<String, usize>,
    /// The settings of the receivers' work, where the stack shows them.
    pub settings: BTreeMap<String, String>,
    /// Guarantees that are switched off.
    pub without: Vec<String>,
    /// `quorum` or `classic`.
    pub queue_type: Option<String>,
    pub broker_version: Option<String>,
}

/// The folder of a run.
#[derive(Debug, Clone)]
pub struct RunDir {
    id: RunId,
    folder: PathBuf,
}

impl RunDir {
    /// Makes the folder. A run that exists is wrong usage.
    pub fn create(root: &Path, id: RunId, meta: &Meta) -> Result<Self> {
        let runs = root.join("runs");
        // as LabDir makes it: others may pass through, but not look around
        make_folder(root, 0o711)?;
        make_folder(&runs, 0o700)?;
        let folder = runs.join(id.as_str());
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Usage(format!("the run {id} exists; choose another name")).into());
            }
            made => made.with_context(|| format!("cannot make {}", folder.display()))?,
        }
        let dir = Self { id, folder };
        dir.write_meta(meta)?;
        Ok(dir)
    }

    /// A run that exists; any other is wrong usage.
    pub fn open(root: &Path, id: &RunId) -> Result<Self> {
        Self::find(root, id)
            .ok_or_else(|| Usage(format!("there is no run {id} in {}", absent(root))).into())
    }

    fn find(root: &Path, id: &RunId) -> Option<Self> {
        let folder = root.join("runs").join(id.as_str());
        folder.join(META).is_file().then(|| Self {
            id: id.clone(),
            folder,
        })
    }

    /// All runs, oldest first.
    pub fn all(root: &Path) -> Result<Vec<Self>> {
        let entries = match fs::read_dir(root.join("runs")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context("cannot read the folder of runs")?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let Some(Ok(id)) = name.to_str().map(str::parse) else {
                continue;
            };
            if let Some(dir) = Self::find(root, &id) {
                // one that cannot be read counts as the oldest
                let created = dir.meta().ok().map(|meta| meta.created_at);
                found.push((created, id, dir));
            }
        }
        found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        Ok(found.into_iter().map(|(_, _, dir)| dir).collect())
    }

    /// The newest run, if there is one.
    pub fn newest(root: &Path) -> Result<Option<Self>> {
        Ok(Self::all(root)?.pop())
    }

    /// Its name.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// The place of one of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Reads `run.json`.
    pub fn meta(&self) -> Result<Meta> {
        let path = self.path(META);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// One of its files; none: it is not there.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged, or of another version", path.display()))
                .map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Replaces `run.json` as a whole.
    pub fn write_meta(&self, meta: &Meta) -> Result<()> {
        write_secret(&self.path(META), &serde_json::to_string_pretty(meta)?)
    }
}

/// What is there instead of a run that is not.
fn absent(root: &Path) -> String {
    const NAMED: usize = 5;
    let all = RunDir::all(root).unwrap_or_default();
    let names = all.iter().rev().take(NAMED).map(|run| run.id().as_str());
    let names: Vec<&str> = names.collect();
    let there = match (all.len(), names.join(", ")) {
        (0, _) => "there is none at all".to_owned(),
        (1..=NAMED, names) => format!("there are: {names}"),
        (_, names) => format!("the newest are: {names}"),
    };
    format!("{}; {there}", root.display())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder that goes with the test.
    pub(crate) struct Root(pub(crate) PathBuf);

    impl Root {
        pub(crate) fn new() -> Self {
            let name = format!("lab-run-{:016x}", rand::random::<u64>());
            Self(std::env::temp_dir().join(name))
        }

        pub(crate) fn run(&self, id: &str) -> RunDir {
            let id: RunId = id.parse().unwrap();
            let meta = Meta::new(id.clone(), "load", 1, "http://127.0.0.1:1");
            RunDir::create(&self.0, id, &meta).unwrap()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn id(text: &str) -> RunId {
        text.parse().unwrap()
    }

    #[test]
    fn a_new_name_says_when_and_can_be_read_again() {
        let at = "2026-11-21T09:15:59Z".parse().unwrap();
        let first = RunId::at(at);
        assert!(first.as_str().starts_with("r1121-0915-"), "{first}");
        assert_eq!(first.as_str().len(), 15);
        assert_eq!(id(first.as_str()), first);
        assert!((0..20).any(|_| RunId::at(at) != first));
    }

    #[test]
    fn a_name_is_short_and_plain() {
        let long = "a".repeat(41);
        for wrong in ["", "A", "a b", "../x", "a/b", "a_b", "é", &long] {
            let error = wrong.parse::<RunId>().unwrap_err().to_string();
            assert!(
                !error.contains('\n') && error.contains("cannot name"),
                "{error}"
            );
        }
        assert!(serde_json::from_str::<RunId>(r#""../x""#).is_err());
        assert_eq!(id(&long[1..]).as_str().len(), 40);
    }

    #[test]
    fn keys_sort_by_number_and_give_it_back() {
        let run = id("r1");
        let numbers = [0, 1, 9, 10, 99, 100, 123_456, 9_999_999_999];
        let keys: Vec<String> = numbers.iter().map(|n| run.key(*n)).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        let back: Vec<u64> = keys.iter().filter_map(|key| run.number_of(key)).collect();
        assert_eq!(back, numbers);
    }

    #[test]
    fn a_key_of_another_run_is_not_ours() {
        let run = id("r1");
        for key in [
            "r2-0000000001",
            "r1-1",
            "r1-00000000001",
            "r1-+000000001",
            "r1-2-0000000001",
            "r10000000001",
            "r1",
            "",
        ] {
            assert_eq!(run.number_of(key), None, "{key}");
        }
        // also not of a run whose name begins with ours
        assert_eq!(run.number_of(&id("r1-2").key(1)), None);
    }

    #[test]
    fn a_run_is_made_once_and_found_again() {
        let root = Root::new();
        assert!(RunDir::newest(&root.0).unwrap().is_none());
        let first = root.run("z-first");
        let second = root.run("a-second");
        let meta = first.meta().unwrap();
        let again = RunDir::create(&root.0, id("z-first"), &meta).unwrap_err();
        assert!(again.is::<Usage>(), "{again}");
        let unknown = RunDir::open(&root.0, &id("nobody")).unwrap_err();
        assert!(unknown.is::<Usage>(), "{unknown}");
        let all = RunDir::all(&root.0).unwrap();
        let names: Vec<&str> = all.iter().map(|run| run.id().as_str()).collect();
        assert_eq!(names, ["z-first", "a-second"]);
        assert_eq!(RunDir::newest(&root.0).unwrap().unwrap().id(), second.id());
    }

    #[test]
    fn what_is_written_of_a_run_is_read_again() {
        let root = Root::new();
        let run = root.run("r1");
        let mut meta = run.meta().unwrap();
        meta.load = Some(Plan::default());
        meta.started_at = Some(clock::now());
        meta.stack.without = vec!["inbox".to_owned()];
        run.write_meta(&meta).unwrap();
        assert_eq!(run.meta().unwrap(), meta);
    }
}
