//! What audits on file have proven of runs.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use crate::audit::Report;
use crate::audit::class::Class;
use crate::audit::report::FILE;
use crate::run::RunDir;

/// By the name of the run; with the age of the file.
pub type Audits = HashMap<String, (SystemTime, Proven)>;

/// What an audit has proven of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proven {
    /// Stored, and nothing came of it.
    pub stored: i64,
    pub never_stored: i64,
}

/// Of every run that has an audit; what is as old as it was is not read again.
pub fn audits(root: &Path, known: &Audits) -> Audits {
    let Ok(folders) = fs::read_dir(root.join("runs")) else {
        return Audits::new();
    };
    let one = |folder: fs::DirEntry| {
        let name = folder.file_name().into_string().ok()?;
        let file = folder.path().join(FILE).metadata().ok()?;
        let at = file.modified().ok()?;
        if let Some(known) = known.get(&name).filter(|known| known.0 == at) {
            return Some((name, *known));
        }
        let run = RunDir::open(root, &name.parse().ok()?).ok()?;
        let report: Report = run.read(FILE).ok()??;
        let lost = report.classes.get(&Class::Lost);
        let lost = lost.map_or(0, |lost| lost.messages);
        let never = report.figures.never_stored.min(lost);
        let proven = Proven {
            stored: i64::try_from(lost - never).ok()?,
            never_stored: i64::try_from(never).ok()?,
        };
        Some((name, (at, proven)))
    };
    folders.flatten().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::made::report;

    #[test]
    fn an_audit_is_read_of_every_run_and_again_when_it_is_new() {
        let root = crate::run::tests::Root::new();
        let names: Vec<String> = (0..60).map(|n| format!("a{n}")).collect();
        let write = |name: &String, lost: u64| {
            let path = root.0.join("runs").join(name).join(FILE);
            let report = report(&[(Class::Lost, lost)], &[]);
            fs::write(path, serde_json::to_vec(&report).unwrap()).unwrap();
        };
        for name in &names {
            root.run(name);
            write(name, 2);
        }
        let first = audits(&root.0, &Audits::new());
        assert_eq!(first.len(), 60);
        assert!(first.values().all(|(_, proven)| proven.stored == 2));
        let later = SystemTime::now() + Duration::from_secs(5);
        write(&names[7], 9);
        let path = root.0.join("runs/a7").join(FILE);
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(later).unwrap();
        let again = audits(&root.0, &first);
        assert_eq!(again["a7"].1.stored, 9);
        assert_eq!(again["a8"].1.stored, 2);
    }
}
