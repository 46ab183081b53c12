//! The experiments that come with the lab: the files of `services/lab/experiments`, inside the program.

use std::path::Path;

use super::file::Experiment;
use crate::say::Usage;

/// Names and texts, in the order of the catalogue.
pub const FILES: &[(&str, &str)] = &[];

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
