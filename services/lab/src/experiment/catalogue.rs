//! The experiments that come with the lab: the files of `services/lab/experiments`, inside the program.

use std::path::Path;

use super::file::Experiment;
use crate::say::Usage;

macro_rules! file {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../experiments/", $name, ".yaml")),
        )
    };
}

/// Names and texts, in the order of the catalogue.
pub const FILES: &[(&str, &str)] = &[
    file!("failed-work"),
    file!("crash-before-ack"),
    file!("redrive-after-pruning"),
    file!("confirm-lost"),
    file!("unroutable"),
    file!("poison"),
    file!("delivery-limit"),
    file!("queue-full"),
    file!("memory-alarm"),
    file!("redrive-under-alarm"),
    file!("broker-restart"),
    file!("connection-closed"),
    file!("half-open-link"),
    file!("stop-while-busy"),
    file!("fair-shares"),
    file!("dead-letters-away"),
    file!("retry-ladder"),
    file!("database-down"),
    file!("sender-killed"),
    file!("unconfirmed"),
    file!("notes-cache-away"),
    file!("notes-burst"),
    file!("leases-late-confirm"),
    file!("signup-mail-window"),
    file!("storm-short"),
    file!("storm"),
];

/// A file where there is one, else one of ours by its name.
pub fn open(what: &Path, max: usize) -> Result<Experiment, Usage> {
    let name = what.to_str().unwrap_or_default();
    let ours = FILES.iter().find(|(one, _)| *one == name);
    match ours {
        Some((name, text)) if !what.is_file() => {
            Experiment::parse(&format!("{name}.yaml"), text, max)
        }
        None if !what.exists() && !name.contains(['/', '.']) => Err(Usage(format!(
            "there is no experiment {name:?}; `cargo lab experiment list` names all, and a file is given by its path"
        ))),
        _ => Experiment::read(what, max),
    }
}

/// All of ours.
pub fn all(max: usize) -> Result<Vec<Experiment>, Usage> {
    FILES
        .iter()
        .map(|(name, text)| Experiment::parse(&format!("{name}.yaml"), text, max))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;
    use crate::experiment::harm::Harm;
    use crate::faults::catalogue;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments")
    }

    #[test]
    fn every_file_of_the_folder_comes_with_the_lab_and_can_be_run() {
        let files: BTreeSet<String> = std::fs::read_dir(folder())
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        let ours: BTreeSet<String> = all(16).unwrap().into_iter().map(|one| one.name).collect();
        assert_eq!(ours, files);
        assert_eq!(FILES.len(), files.len());
    }

    #[test]
    fn what_the_catalogue_promises_is_there() {
        let all = all(16).unwrap();
        let proved: BTreeSet<u32> = all.iter().filter_map(|one| one.proves).collect();
        let promised = (1..=9).chain([11, 12]).chain(14..=18).chain([22]);
        assert_eq!(proved, promised.collect());
        for one in &all {
            let storm = matches!(one.safe.harm, Harm::Storm(_));
            assert!(storm || one.twin.is_some(), "{} has no twin", one.name);
        }
        let numbers = all.iter().filter_map(|one| one.proves);
        assert!(numbers.is_sorted(), "not in order");
    }

    #[test]
    fn the_great_storm_has_every_kind_of_fault() {
        let storm = open(Path::new("storm"), 16).unwrap();
        let Harm::Storm(storm) = storm.safe.harm else {
            panic!("no storm")
        };
        let kinds: Vec<&str> = storm.faults.iter().map(String::as_str).collect();
        // in a storm nobody is given up on, so there is nobody to send back
        // and it is a storm over senders and receivers
        let every = catalogue()
            .iter()
            .filter(|entry| entry.beyond_main().is_none());
        let every = every.map(|entry| entry.name);
        let every: Vec<&str> = every
            .filter(|name| *name != "dead-letters-redrive")
            .collect();
        assert_eq!(kinds, every);
    }
}
