//! Whether somebody still works on a run: then nothing is removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::experiment::journal;
use crate::run::RunDir;
use crate::run::requests;
use crate::stack::dir;

/// A load without an end writes at least so often.
const FRESH: Duration = Duration::from_mins(1);

/// Whether somebody still works on a run.
pub(super) fn going(root: &Path, run: &RunDir) -> bool {
    let Ok(meta) = run.meta() else { return false };
    let experiment = meta.kind != "load";
    if experiment && run.path(journal::FILE).is_file() {
        return false;
    }
    // an experiment goes on when its load has ended: it waits and judges
    if experiment && stages(root).iter().any(|stage| dir::is_held(stage)) {
        return true;
    }
    let written = fs::metadata(run.path(requests::FILE))
        .and_then(|log| log.modified())
        .ok();
    let fresh = written
        .and_then(|at| at.elapsed().ok())
        .is_some_and(|passed| passed < FRESH);
    in_use(&run.path("")) || (meta.ended_at.is_none() && fresh)
}

/// Folders whose lock is held while experiments run: on a stack of their own, on one of Docker Compose, or on one that is
/// taken as it is, where no native stack is in the folder.
fn stages(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![root.join("experiments")];
    let projects = fs::read_dir(root.join("compose")).into_iter().flatten();
    all.extend(projects.filter_map(|one| Some(one.ok()?.path())));
    if !root.join("secrets.json").is_file() {
        all.push(root.to_owned());
    }
    all
}

/// Whether a process holds a file of this folder open. Those of other users cannot be seen.
fn in_use(folder: &Path) -> bool {
    let folder = dir::real(folder);
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    let files = processes.filter_map(|process| fs::read_dir(process.ok()?.path().join("fd")).ok());
    let open = files
        .flatten()
        .filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    open.into_iter()
        .any(|path: PathBuf| path.starts_with(&folder))
}

#[cfg(test)]
mod tests {
    use daemon::clock;

    use super::*;
    use crate::run::tests::Root;

    #[test]
    fn a_run_whose_record_is_open_is_still_going() {
        let root = Root::new();
        let run = root.run("r1");
        let mut meta = run.meta().unwrap();
        assert!(!going(&root.0, &run), "nothing was ever offered");
        let recorder = requests::Recorder::create(&run).unwrap();
        meta.ended_at = Some(clock::now());
        run.write_meta(&meta).unwrap();
        assert!(going(&root.0, &run), "its record is open");
        drop(recorder);
        assert!(!going(&root.0, &run));
        meta.ended_at = None;
        run.write_meta(&meta).unwrap();
        assert!(going(&root.0, &run), "it was written a moment ago");
    }

    #[test]
    fn an_experiment_goes_on_until_its_journal_while_experiments_run() {
        let root = Root::new();
        let run = root.run("r1");
        let mut meta = run.meta().unwrap();
        meta.kind = "receiver-dies".to_owned();
        meta.ended_at = Some(clock::now());
        run.write_meta(&meta).unwrap();
        assert!(!going(&root.0, &run));
        for stage in ["experiments", "compose/unacked", "."] {
            let stage = root.0.join(stage);
            fs::create_dir_all(&stage).unwrap();
            let lock = dir::lock(&stage).unwrap();
            assert!(lock.is_some() && going(&root.0, &run), "{stage:?}");
            drop(lock);
            assert!(!going(&root.0, &run), "{stage:?}");
        }
        // that of a native stack says nothing of experiments
        fs::write(root.0.join("secrets.json"), "{}").unwrap();
        let _stack = dir::lock(&root.0).unwrap();
        assert!(!going(&root.0, &run));
        let _lock = dir::lock(&root.0.join("experiments")).unwrap();
        assert!(going(&root.0, &run));
        fs::write(run.path(journal::FILE), "{}").unwrap();
        assert!(!going(&root.0, &run));
    }
}
