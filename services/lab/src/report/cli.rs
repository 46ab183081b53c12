//! `lab report`: writes what is to be read of a run, and says where it is.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use super::{JUNIT, Known, story, write_known};
use crate::experiment::journal;
use crate::run::{RunDir, RunId};
use crate::say::{self, Usage};
use crate::stack::dir;

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The run [default: the newest]
    #[arg(value_name = "ID")]
    pub run: Option<String>,
    /// Print the path of the page and nothing else, as in: xdg-open "$(lab report --open-path)"
    #[arg(long)]
    pub open_path: bool,
}

/// Writes them anew: an audit may have come since.
pub fn run(root: &Path, args: &ReportArgs) -> Result<()> {
    let run = open(root, args.run.as_deref())?;
    let known = Known::read(&run)?;
    let page = write_known(&known, &run)?;
    let page = dir::real(&page);
    if args.open_path {
        say::line(page.display());
        return Ok(());
    }
    let verdict = known.verdict();
    let verdict = verdict.map_or_else(String::new, |verdict| format!("{verdict}: "));
    say::line(format!("run      {}, {}", run.id(), story::title(&known)));
    say::line(format!("verdict  {verdict}{}", story::headline(&known)));
    let journal = run.path(journal::FILE);
    say::line(format!("page     {}", page.display()));
    if journal.is_file() {
        say::line(format!("journal  {}", dir::real(&journal).display()));
    } else {
        say::line("journal  none: this run is no finished experiment");
    }
    say::line(format!(
        "junit    {}",
        dir::real(&run.path(JUNIT)).display()
    ));
    Ok(())
}

fn open(root: &Path, id: Option<&str>) -> Result<RunDir> {
    match id {
        Some(id) => RunDir::open(root, &id.parse::<RunId>()?),
        None => RunDir::newest(root)?.ok_or_else(|| {
            let load = dir::command(root, "load");
            Usage(format!(
                "there is no run in {} yet; `{load}` makes one",
                root.display()
            ))
            .into()
        }),
    }
}
