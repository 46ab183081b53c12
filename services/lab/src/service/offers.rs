//! The experiments that can be had: those that come with the lab, and the files that were named at the start. Never a
//! path that a request names.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::experiment::catalogue;
use crate::experiment::file::Experiment;
use crate::experiment::list::describe;
use crate::say::Usage;

/// One experiment.
#[derive(Debug, Clone)]
pub struct Offer {
    pub experiment: Arc<Experiment>,
    /// Why this stack cannot do it.
    pub why_not: Option<String>,
}

/// As the API shows it.
#[derive(Debug, Serialize)]
pub struct Listed<'a> {
    name: &'a str,
    title: &'a str,
    learn: &'a str,
    /// The number in the catalogue of experiments.
    proves: Option<u32>,
    fast: bool,
    expected: String,
    /// How the unsafe twin differs, and what must come of that.
    twin: Option<String>,
    possible: bool,
    why_not: Option<&'a str>,
}

impl Offer {
    fn new(experiment: Experiment, max: usize) -> Self {
        let path = format!("{}.yaml", experiment.name);
        let possible = Experiment::parse(&path, &experiment.text, max);
        Self {
            experiment: Arc::new(experiment),
            why_not: possible.err().map(|why| why.0),
        }
    }

    /// How the unsafe twin differs, and what must come of that.
    pub fn twin(&self) -> Option<String> {
        let Experiment { safe, twin, .. } = &*self.experiment;
        twin.as_ref().map(|twin| describe(safe, twin))
    }

    /// For the list.
    pub fn listed(&self) -> Listed<'_> {
        let Experiment {
            name,
            path: _,
            text: _,
            title,
            learn,
            proves,
            fast,
            safe,
            twin,
        } = &*self.experiment;
        Listed {
            name,
            title,
            learn,
            proves: *proves,
            fast: *fast,
            expected: safe.expect.to_string(),
            twin: twin.as_ref().map(|twin| describe(safe, twin)),
            possible: self.why_not.is_none(),
            why_not: self.why_not.as_deref(),
        }
    }
}

/// All of them. What is too large for `max` nodes is named too, with the reason; what cannot be read is an error.
pub fn all(files: &[PathBuf], max: usize) -> Result<Vec<Offer>, Usage> {
    let mut all: Vec<Experiment> = catalogue::all(usize::MAX)?;
    for file in files {
        let one = Experiment::read(file, usize::MAX)?;
        let letter = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
        if one.name.is_empty() || !one.name.bytes().all(letter) {
            return Err(Usage(format!(
                "{}: the name of the file is the experiment's: letters, digits and \"-_.\"",
                file.display()
            )));
        }
        if all.iter().any(|other| other.name == one.name) {
            return Err(Usage(format!(
                "{}: there is an experiment {} already; give the file another name",
                file.display(),
                one.name
            )));
        }
        all.push(one);
    }
    Ok(all.into_iter().map(|one| Offer::new(one, max)).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TEXT: &str = "title: t\nlearn: l\nstack: { sender: 2, receiver: 3 }\nload: { rate: 1/s, for: 3s }\n\
        twin:\n  without: [inbox]\n  expect: { verdict: fail, class: duplicated }\n";

    #[test]
    fn a_file_is_offered_by_its_name_and_what_is_too_large_says_so() {
        let folder =
            std::env::temp_dir().join(format!("lab-offers-{:016x}", rand::random::<u64>()));
        fs::create_dir(&folder).unwrap();
        let file = |name: &str| {
            let path = folder.join(name);
            fs::write(&path, TEXT).unwrap();
            path
        };
        let mine = file("mine.yaml");
        let offered = |max| {
            all(std::slice::from_ref(&mine), max)
                .unwrap()
                .pop()
                .unwrap()
        };
        let fits = offered(5);
        assert_eq!((&*fits.experiment.name, &fits.why_not), ("mine", &None));
        assert_eq!(
            serde_json::to_value(fits.listed()).unwrap()["twin"],
            "without inbox: FAIL (duplicated)"
        );
        let large = offered(4).why_not.unwrap();
        assert!(large.contains("5 nodes are too many"), "{large}");
        let twice = all(&[mine.clone(), mine.clone()], 5).unwrap_err();
        assert!(twice.0.contains("already"), "{twice}");
        let odd = all(&[file("a b.yaml")], 5).unwrap_err();
        assert!(odd.0.contains("the name of the file"), "{odd}");
        fs::remove_dir_all(folder).unwrap();
    }
}
