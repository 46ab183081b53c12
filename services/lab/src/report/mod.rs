//! Report: what a run leaves to be read. `report.html` is for people, `junit.xml` for a CI, `journal.json` for scripts.
//!
//! All of it is written from the run's own folder; no server is asked. A run without a journal, a plain load, is told
//! as far as its files go: `run.json`, `load.json`, `audit.json`, `requests.log`.

pub mod charts;
pub mod cli;
pub mod course;
pub mod html;
mod junit;
mod percentiles;
mod recorded;
pub mod story;
mod timeline;

#[cfg(test)]
mod known_tests;
#[cfg(test)]
pub(crate) mod made;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use crate::audit::facts::Requests;
use crate::audit::{self, Verdict};
use crate::experiment::journal::{self, Journal};
use crate::load::{self, Summary};
use crate::run::requests;
use crate::run::{Meta, RunDir};
use course::Course;
use recorded::Recorded;

/// The page's name in the folder of a run.
pub const PAGE: &str = "report.html";
/// The name of what a CI reads.
pub const JUNIT: &str = "junit.xml";

/// All that is on file of a run.
#[derive(Debug)]
pub struct Known {
    pub meta: Meta,
    pub load: Option<Summary>,
    pub audit: Option<audit::Report>,
    /// None: it was a plain load, or an experiment that did not come to its end.
    pub journal: Option<Journal>,
    pub course: Course,
    /// The folder of the stack, so that commands can be told.
    pub root: PathBuf,
}

impl Known {
    /// Of an experiment its own, which knows its limits too; of a load that of the audit. None: not judged.
    pub fn verdict(&self) -> Option<Verdict> {
        let journal = self.journal.as_ref();
        let own = journal.and_then(|journal| journal::verdict(&journal.expectations));
        own.or_else(|| self.audit.as_ref().map(|audit| audit.verdict))
    }

    /// Reads the folder of a run.
    pub fn read(run: &RunDir) -> Result<Self> {
        match read_json(&run.path(journal::FILE))? {
            Some(journal) => Self::of(newest(journal, run)?, run),
            None => Self::gather(
                run,
                read_json(&run.path(load::SUMMARY))?,
                read_json(&run.path(audit::report::FILE))?,
                None,
            ),
        }
    }

    /// With the journal of an experiment.
    pub fn of(journal: Journal, run: &RunDir) -> Result<Self> {
        let (load, audit) = (journal.load.clone(), journal.audit.clone());
        Self::gather(run, Some(load), Some(audit), Some(journal))
    }

    fn gather(
        run: &RunDir,
        load: Option<Summary>,
        audit: Option<audit::Report>,
        journal: Option<Journal>,
    ) -> Result<Self> {
        let mut meta = run.meta()?;
        if let Some(journal) = &journal {
            meta.stack = journal.stack.clone();
            meta.seed = journal.seed;
        }
        let recorded =
            Recorded::read(&run.path(requests::FILE)).context("cannot read the load's record")?;
        let course = Course::of(
            &meta,
            load.as_ref(),
            audit.as_ref(),
            journal.as_ref(),
            recorded.as_ref(),
        );
        let folder = run.path("");
        Ok(Self {
            meta,
            load,
            audit,
            journal,
            course,
            root: folder.ancestors().nth(2).unwrap_or(&folder).to_owned(),
        })
    }
}

/// Writes what is to be read of an experiment; returns the place of the page.
pub fn write(journal: &Journal, run: &RunDir) -> Result<PathBuf> {
    write_known(&Known::of(journal.clone(), run)?, run)
}

/// The same of any run.
pub fn write_known(known: &Known, run: &RunDir) -> Result<PathBuf> {
    let page = run.path(PAGE);
    put(&page, &html::page(known)?)?;
    put(&run.path(JUNIT), &junit::file(known)?)?;
    Ok(page)
}

/// Replaces a file of a report.
pub fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The journal with the audit that came since, if one did and could read the run.
fn newest(mut journal: Journal, run: &RunDir) -> Result<Journal> {
    let audit: Option<audit::Report> = read_json(&run.path(audit::report::FILE))?;
    let counts = |audit: &audit::Report| {
        audit.audited_at > journal.audit.audited_at && audit.requests != Requests::default()
    };
    if let Some(audit) = audit.filter(counts) {
        journal.judge_again(audit);
    }
    Ok(journal)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged, or of another version", path.display()))
            .map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
