//! `lab load` in a folder of its own, and what it records there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use lab::run::RunDir;
use lab::run::requests::{self, Answer, Answered, Line, Offered};
use tokio::process::{Child, Command};

use super::LIMIT;
use crate::world::lab;

/// The folder of a stack that is nowhere; goes with the test.
pub(super) struct Root(pub(super) PathBuf);

impl Root {
    pub(super) fn new() -> Self {
        let name = format!("lab-load-{:016x}", rand::random::<u64>());
        Self(std::env::temp_dir().join(name))
    }

    pub(super) fn start(&self, arguments: &str) -> Child {
        Command::new(lab())
            .arg("--lab-dir")
            .arg(&self.0)
            .arg("load")
            .args(arguments.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    pub(super) async fn load(&self, arguments: &str) -> Output {
        let child = self.start(arguments);
        tokio::time::timeout(LIMIT, child.wait_with_output())
            .await
            .unwrap()
            .unwrap()
    }

    pub(super) fn record(&self) -> Record {
        Record::read(&self.0, "t1")
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) offered: BTreeMap<u64, Offered>,
    pub(super) answered: BTreeMap<u64, Answered>,
}

impl Record {
    fn read(root: &Path, run: &str) -> Self {
        let mut record = Self::default();
        let Ok(run) = RunDir::open(root, &run.parse().unwrap()) else {
            return record;
        };
        let Ok(lines) = requests::read(&run.path(requests::FILE)) else {
            return record;
        };
        for line in lines {
            match line.unwrap() {
                Line::Named(_) => {}
                Line::Offered(offered) => {
                    let twice = record.offered.insert(offered.number, offered);
                    assert_eq!(twice, None);
                }
                Line::Answered(answered) => {
                    assert!(record.offered.contains_key(&answered.number));
                    let twice = record.answered.insert(answered.number, answered);
                    assert_eq!(twice, None);
                }
            }
        }
        record
    }

    pub(super) fn answers(&self) -> Vec<(Answer, u32)> {
        let answers = self.answered.values();
        answers.map(|one| (one.answer, one.tries)).collect()
    }
}
