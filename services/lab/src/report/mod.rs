//! Report: what a run leaves to be read. `report.html` is for people, `junit.xml` for a CI, `journal.json` for scripts.
//!
//! All of it is written from the run's own folder; no server is asked. A run without a journal, a plain load, is told
//! as far as its files go: `run.json`, `load.json`, `audit.json`, `requests.log`.

pub mod again;
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

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::audit::{self, Verdict};
use crate::experiment::journal::{self, Journal};
use crate::load::{self, Summary};
use crate::run::requests;
use crate::run::{Meta, RunDir};
use crate::stack::dir::write_whole;
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
        match &self.journal {
            Some(journal) => Some(journal.verdict()),
            None => self.audit.as_ref().map(|audit| audit.verdict),
        }
    }

    /// Reads the folder of a run.
    pub fn read(run: &RunDir) -> Result<Self> {
        match journal::read(run)? {
            Some(journal) => Self::of(journal, run),
            None => Self::gather(
                run,
                run.read(load::SUMMARY)?,
                run.read(audit::report::FILE)?,
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

/// Replaces a file of a report, as a whole: it may be read meanwhile.
pub fn put(path: &Path, text: &str) -> Result<()> {
    write_whole(path, text, 0o644)
}

/// Writes anew what is there to be read of a run, after another audit: a page tells the verdict that counts.
pub fn renew(run: &RunDir) -> Result<()> {
    if run.path(PAGE).is_file() {
        write_known(&Known::read(run)?, run)?;
    }
    Ok(())
}
