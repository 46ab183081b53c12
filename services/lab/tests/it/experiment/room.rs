//! A stack of the test's own that experiments run on, and what they leave.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use lab::audit::Verdict;
use lab::audit::class::Class;
use lab::experiment::journal::{Journal, Outcome};
use lab::faults::active::Notes;
use lab::run::RunDir;
use lab::stack::{dir, left_over, postgres};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::LIMIT;
use crate::world::lab;

/// A folder of a stack that is the test's own, with files of experiments beside it.
pub(super) struct Room {
    pub(super) root: PathBuf,
}

impl Room {
    pub(super) fn new() -> Self {
        let name = format!("unacked-{}", uuid::Uuid::new_v4().simple());
        let files = std::env::temp_dir().join(name);
        std::fs::create_dir(&files).unwrap();
        Self {
            root: files.canonicalize().unwrap().join("lab"),
        }
    }

    /// Writes a file; its path as it is given on the command line.
    pub(super) fn file(&self, name: &str, text: &str) -> String {
        let path = self.root.with_file_name(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(lab());
        command.arg("--lab-dir").arg(&self.root);
        command.args(["experiment", "run", "--yes"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Its exit code, and all that it said.
    pub(super) async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = timeout(LIMIT, self.command(arguments).output()).await;
        let output = output.unwrap().unwrap();
        (output.status.code().unwrap(), said(&output))
    }

    /// Starts one, and comes back when it has seen that something is broken.
    pub(super) async fn broken(
        &self,
        file: &str,
        faults: usize,
    ) -> (Child, Lines<BufReader<ChildStdout>>) {
        let mut child = self.command(&[file]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < faults {
            let line = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap();
            let line = line.expect("the experiment ended before its faults were seen");
            seen += usize::from(line.contains("seen: "));
        }
        assert_eq!(self.notes(), faults);
        (child, lines)
    }

    /// The stack that experiments have to themselves.
    pub(super) fn own(&self) -> PathBuf {
        self.root.join("experiments")
    }

    pub(super) fn notes(&self) -> usize {
        Notes::of(&self.own()).all().unwrap().len()
    }

    #[track_caller]
    pub(super) fn nothing_is_left(&self) {
        assert_eq!(self.notes(), 0);
        assert_eq!(left_over(&self.own()), []);
        assert_eq!(dir::holder(&self.own()), None);
    }

    /// What the newest run of this kind left.
    pub(super) fn left(&self, kind: &str) -> Left {
        let mut folders: Vec<PathBuf> = std::fs::read_dir(self.root.join("runs"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        folders.sort_by_key(|folder| folder.metadata().unwrap().created().unwrap());
        let runs = folders.iter().rev().map(|folder| {
            let id = folder.file_name().unwrap().to_str().unwrap();
            RunDir::open(&self.root, &id.parse().unwrap()).unwrap()
        });
        let mut runs = runs.filter(|run| run.meta().unwrap().kind == kind);
        Left::read(&runs.next().unwrap_or_else(|| panic!("no run of {kind}")))
    }

    /// One line, and nothing was made.
    pub(super) async fn refused(&self, arguments: &[&str]) -> String {
        let (code, said) = self.run(arguments).await;
        assert_eq!(code, 2, "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!Path::exists(&self.root), "{arguments:?}");
        said
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for process in left_over(&self.own()) {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        let _ = std::fs::remove_dir_all(postgres::outside(&self.own()));
        let _ = std::fs::remove_dir_all(self.root.parent().unwrap_or(&self.root));
    }
}

pub(super) fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// What an experiment wrote.
pub(super) struct Left {
    pub(super) journal: Journal,
    pub(super) page: String,
    pub(super) junit: String,
}

impl Left {
    fn read(run: &RunDir) -> Self {
        let read = |name: &str| std::fs::read_to_string(run.path(name)).unwrap();
        Self {
            journal: serde_json::from_str(&read("journal.json")).unwrap(),
            page: read("report.html"),
            junit: read("junit.xml"),
        }
    }

    pub(super) fn messages(&self, class: Class) -> u64 {
        let classes = &self.journal.audit.classes;
        classes.get(&class).map_or(0, |count| count.messages)
    }

    /// That all three say this.
    #[track_caller]
    pub(super) fn says(&self, verdict: Verdict, outcome: Outcome) {
        let journal = &self.journal;
        assert_eq!(
            (journal.audit.verdict, journal.outcome),
            (verdict, outcome),
            "{:#?}",
            journal.audit.reasons
        );
        let title = format!("<title>{verdict}: ");
        assert!(self.page.contains(&title), "{}", self.page);
        for (class, count) in &journal.audit.classes {
            assert!(count.messages > 0);
            assert!(self.page.contains(class.word()), "{class}");
        }
        let document = roxmltree::Document::parse(&self.junit).unwrap();
        let count = |name: &str| {
            let nodes = document.descendants();
            nodes.filter(|node| node.has_tag_name(name)).count()
        };
        assert_eq!(count("testcase"), 1 + journal.expectations.len());
        let unmet = journal.expectations.iter().filter(|one| !one.met).count();
        let (failures, errors) = match outcome {
            Outcome::AsExpected => (0, 0),
            Outcome::NotAsExpected => (1 + unmet, 0),
            Outcome::Inconclusive => (unmet, 1),
        };
        assert_eq!((count("failure"), count("error")), (failures, errors));
    }
}
