//! Whether somebody may still be at work on a run: then nothing is removed.
//!
//! It cannot always be known. Processes of other users, in containers and on other machines cannot be seen; the locks of
//! those that share the folder can, and so can what they write. What is unclear counts as going.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::experiment::journal;
use crate::run::record::Line;
use crate::run::{Meta, RunDir, leased, requests};
use crate::say::seconds;
use crate::stack::dir;

/// A load without an end writes at least so often, but for what its plan says.
const FRESH: Duration = Duration::from_mins(1);

/// What was seen of everybody at work in a folder, at one moment.
pub(super) struct Busy {
    /// Files that processes hold open below the runs, with the processes.
    open: Vec<(PathBuf, String)>,
    /// Folders whose lock is held by somebody who may be playing an experiment.
    held: Vec<PathBuf>,
}

impl Busy {
    /// Looks around. `stack_answers`: the lock of the folder itself is that of a native stack.
    pub(super) fn look(root: &Path, stack_answers: bool) -> Self {
        let held = stages(root, stack_answers).into_iter();
        Self {
            open: open_below(&dir::real(&root.join("runs"))),
            held: held.filter(|stage| dir::is_held(stage)).collect(),
        }
    }

    /// Why somebody may still be at work on this run; none: nobody is.
    pub(super) fn with(&self, run: &RunDir) -> Option<String> {
        let folder = dir::real(&run.path(""));
        let mut open = self.open.iter();
        if let Some((path, process)) = open.find(|(path, _)| path.starts_with(&folder)) {
            let file = path.strip_prefix(&folder).unwrap_or(path).display();
            return Some(format!("{process} has its {file} open"));
        }
        let meta = run.meta().ok();
        let is_load = meta.as_ref().is_some_and(|meta| meta.kind == "load");
        let is_over = match &meta {
            Some(meta) if is_load => meta.ended_at.is_some(),
            // it goes on when its load has ended: it waits and judges
            Some(_) => run.path(journal::FILE).is_file(),
            // nobody knows what it is
            None => false,
        };
        if is_over {
            return None;
        }
        if let (false, Some(stage)) = (is_load, self.held.first()) {
            let lock = stage.join("lock");
            return Some(format!(
                "it has no verdict, and somebody who may be playing it holds {}",
                lock.display()
            ));
        }
        let quiet = written(run)?;
        let ended = meta.as_ref().is_some_and(|meta| meta.ended_at.is_some());
        (!ended && quiet < longest(meta.as_ref())).then(|| {
            format!(
                "its end is not on record, and something of it was written {} ago",
                seconds(quiet)
            )
        })
    }
}

/// How long a load without an end may write nothing.
fn longest(meta: Option<&Meta>) -> Duration {
    match meta.and_then(|meta| meta.load.as_ref()) {
        Some(plan) => {
            let gap = plan.rate.longest_gap();
            FRESH + plan.patience + plan.length.map_or(gap, |length| gap.min(length))
        }
        None => FRESH,
    }
}

/// How long ago something of a run was written; one that was written in the future, by another clock, counts as now.
fn written(run: &RunDir) -> Option<Duration> {
    let files = ["run.json", requests::FILE, leased::Line::FILE];
    let files = files.map(|name| fs::metadata(run.path(name)));
    let times = files
        .into_iter()
        .flatten()
        .filter_map(|of| of.modified().ok());
    let newest = times.max()?;
    Some(newest.elapsed().unwrap_or_default())
}

/// Folders whose lock is held while experiments run: on a stack of their own, on one of Docker Compose, or on one that is
/// taken as it is, from this machine or from a container that shares the folder.
fn stages(root: &Path, stack_answers: bool) -> Vec<PathBuf> {
    let mut all = vec![root.join("experiments")];
    let projects = fs::read_dir(root.join("compose")).into_iter().flatten();
    all.extend(projects.filter_map(|one| Some(one.ok()?.path())));
    if !stack_answers {
        all.push(root.to_owned());
    }
    all
}

/// The files below a folder that processes hold open, and who does. Processes of other users cannot be seen.
fn open_below(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut open = Vec::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let name = process.file_name();
        // `self` is one of the others
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let process = process.path();
        let files = fs::read_dir(process.join("fd")).into_iter().flatten();
        let files = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        let ours: Vec<PathBuf> = files.filter(|path| path.starts_with(folder)).collect();
        if !ours.is_empty() {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let who = format!("process {pid} ({})", name.trim());
            open.extend(ours.into_iter().map(|path| (path, who.clone())));
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use daemon::clock;

    use super::*;
    use crate::load::Plan;
    use crate::load::schedule::Rate;
    use crate::run::tests::Root;

    fn why(root: &Root, run: &RunDir) -> Option<String> {
        Busy::look(&root.0, false).with(run)
    }

    /// As if a file was written so long ago.
    fn aged(run: &RunDir, name: &str, ago: Duration) {
        let file = File::options().write(true).open(run.path(name)).unwrap();
        file.set_modified(SystemTime::now() - ago).unwrap();
    }

    fn change(run: &RunDir, change: impl FnOnce(&mut Meta)) {
        let mut meta = run.meta().unwrap();
        change(&mut meta);
        run.write_meta(&meta).unwrap();
    }

    #[test]
    fn a_run_whose_record_is_open_may_still_be_going_and_it_is_said_who_has_it() {
        let root = Root::new();
        let run = root.run("r1");
        let recorder = requests::Recorder::create(&run).unwrap();
        change(&run, |meta| meta.ended_at = Some(clock::now()));
        let said = why(&root, &run).unwrap();
        let pid = std::process::id();
        assert!(said.starts_with(&format!("process {pid} (")), "{said}");
        assert!(said.ends_with(") has its requests.log open"), "{said}");
        drop(recorder);
        assert_eq!(why(&root, &run), None);
    }

    #[test]
    fn a_load_without_an_end_may_go_on_for_as_long_as_its_plan_lets_it_be_silent() {
        let root = Root::new();
        let run = root.run("r1");
        let said = why(&root, &run).unwrap();
        let right = "its end is not on record, and something of it was written 0.";
        assert!(said.starts_with(right), "being made now: {said}");
        aged(&run, "run.json", Duration::from_secs(61));
        assert_eq!(why(&root, &run), None);
        // patience and the time between two requests are silence too
        change(&run, |meta| {
            meta.load = Some(Plan {
                rate: Rate::Constant(0.01),
                patience: Duration::from_mins(10),
                ..Plan::default()
            });
        });
        drop(requests::Recorder::create(&run).unwrap());
        aged(&run, "run.json", Duration::from_hours(1));
        for (secs, going) in [(750, true), (770, false)] {
            aged(&run, requests::FILE, Duration::from_secs(secs));
            assert_eq!(why(&root, &run).is_some(), going, "{secs}");
        }
        // lessees go on when all requests are answered
        fs::write(run.path(leased::Line::FILE), "").unwrap();
        assert!(why(&root, &run).is_some());
        aged(&run, leased::Line::FILE, Duration::from_secs(770));
        assert_eq!(why(&root, &run), None);
        // by a clock that is ahead
        let ahead = SystemTime::now() + Duration::from_hours(1);
        let log = File::options().write(true).open(run.path(requests::FILE));
        log.unwrap().set_modified(ahead).unwrap();
        assert!(why(&root, &run).is_some());
        change(&run, |meta| meta.ended_at = Some(clock::now()));
        assert_eq!(why(&root, &run), None);
    }

    #[test]
    fn what_cannot_be_read_may_be_going_while_it_is_fresh_or_a_lock_is_held() {
        let root = Root::new();
        let run = root.run("r1");
        fs::write(run.path("run.json"), "{").unwrap();
        assert!(why(&root, &run).is_some());
        aged(&run, "run.json", Duration::from_secs(61));
        assert_eq!(why(&root, &run), None);
        let _lock = dir::lock(&root.0).unwrap();
        assert!(why(&root, &run).is_some());
    }

    #[test]
    fn an_experiment_goes_on_until_its_journal_while_experiments_may_run() {
        let root = Root::new();
        let run = root.run("r1");
        change(&run, |meta| {
            meta.kind = "receiver-dies".to_owned();
            meta.ended_at = Some(clock::now());
        });
        assert_eq!(why(&root, &run), None);
        let below = ["experiments", "compose/unacked"].map(|name| root.0.join(name));
        for stage in below.iter().chain([&root.0]) {
            fs::create_dir_all(stage).unwrap();
            let lock = dir::lock(stage).unwrap();
            let said = why(&root, &run).unwrap();
            let right = stage.join("lock").display().to_string();
            assert!(lock.is_some() && said.ends_with(&right), "{said}");
            drop(lock);
            assert_eq!(why(&root, &run), None, "{stage:?}");
        }
        // a native stack was here once: who holds the lock may be an experiment in a container all the same
        fs::write(root.0.join("secrets.json"), "{}").unwrap();
        let _stack = dir::lock(&root.0).unwrap();
        assert!(why(&root, &run).is_some());
        // a native stack that answers says nothing of experiments
        assert_eq!(Busy::look(&root.0, true).with(&run), None);
        let _lock = dir::lock(&root.0.join("experiments")).unwrap();
        assert!(Busy::look(&root.0, true).with(&run).is_some());
        fs::write(run.path(journal::FILE), "{}").unwrap();
        assert_eq!(Busy::look(&root.0, true).with(&run), None);
    }
}
