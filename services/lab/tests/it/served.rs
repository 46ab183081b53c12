//! `lab serve` for a test, in a folder of its own, with experiments that are quick.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use testkit::wait_until;
use tokio::process::{Child, Command};

use crate::world::lab;

const LIMIT: Duration = Duration::from_mins(2);

/// Two seconds of load; what fails is lost when it is acked at once.
const QUICK: &str = "title: The work fails one time in two\nlearn: Work that fails is done again.\n\
    stack:\n  sender: 1\n  receiver: 1\n  settings: { WORK_DELAY_MAX_MS: 5, WORK_FAIL_ONE_IN: 2 }\n\
    load: { rate: 20/s, for: 2s, size: 64B }\n\
    twin:\n  without: [ack-after-commit]\n  expect: { verdict: fail, class: lost }\n";

/// Longer than any test lets it run, and broken from the start.
const LONG: &str = "title: A receiver hangs\nlearn: Nothing.\n\
    stack:\n  sender: 1\n  receiver: 1\n  settings: { WORK_DELAY_MAX_MS: 5 }\n\
    load: { rate: 20/s, for: 300s, size: 64B }\n\
    faults:\n  - { at: 0s, fault: receiver-pause, for: 290s }\n";

pub(crate) struct Served {
    child: Child,
    pub(crate) root: PathBuf,
    pub(crate) url: String,
    pub(crate) client: Client,
}

impl Served {
    /// With the experiments `quick` and `long`.
    pub(crate) async fn start() -> Self {
        let root = std::env::temp_dir().join(format!("unacked-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&root).unwrap();
        let file = |name: &str, text: &str| {
            let path = root.join(format!("{name}.yaml"));
            fs::write(&path, text).unwrap();
            path
        };
        let files = [file("quick", QUICK), file("long", LONG)];
        let said = root.join("said.log");
        let child = Command::new(lab())
            .arg("--lab-dir")
            .arg(&root)
            .args(["serve", "--yes", "--port", "0"])
            .args(files)
            .stdin(Stdio::null())
            .stdout(File::create(&said).unwrap())
            .spawn()
            .unwrap();
        let url = wait_until("`lab serve` to say where it is", LIMIT, async || {
            let said = fs::read_to_string(&said).unwrap();
            let url = said
                .split("http://")
                .nth(1)
                .and_then(|rest| rest.split('/').next());
            url.map(|address| format!("http://{address}")).ok_or(said)
        })
        .await;
        Self {
            child,
            root,
            url,
            client: Client::new(),
        }
    }

    pub(crate) fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Status and body of a look.
    pub(crate) async fn look(&self, path: &str) -> (u16, Value) {
        let answer = self.ask(Method::GET, path).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Status and body of a start, without a word about its wishes where there are none.
    pub(crate) async fn begin(&self, experiment: &str, wishes: &Value) -> (u16, Value) {
        let path = format!("/lab/api/experiments/{experiment}/runs");
        let request = self.ask(Method::POST, &path);
        let request = if wishes.is_null() {
            request
        } else {
            request.json(wishes)
        };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Waits until a run is broken, and seen to be.
    pub(crate) async fn broken(&self, run: &str) {
        wait_until("the fault to be seen", LIMIT, async || {
            let (_, run) = self.look(&format!("/lab/api/runs/{run}")).await;
            if run["faults"][0]["seen"].is_string() {
                Ok(())
            } else {
                Err(run.to_string())
            }
        })
        .await;
    }

    /// Where the notes of active faults are.
    pub(crate) fn faults(&self) -> Vec<PathBuf> {
        let notes = fs::read_dir(self.stage().join("faults"));
        let paths = notes.into_iter().flatten().map(|note| note.unwrap().path());
        paths.collect()
    }

    pub(crate) fn stage(&self) -> PathBuf {
        self.root.join("experiments")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Stops it as Ctrl-C does, and removes all it made; its exit code.
    pub(crate) async fn end(self) -> Option<i32> {
        self.signal(Signal::SIGINT);
        self.end_by_itself().await
    }

    /// The same of one that was told already.
    pub(crate) async fn end_by_itself(mut self) -> Option<i32> {
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await;
        remove(&self.root).await;
        status.unwrap().unwrap().code()
    }
}

async fn remove(root: &Path) {
    let mut reset = Command::new(lab());
    reset.arg("--lab-dir").arg(root.join("experiments"));
    let reset = reset.args(["reset", "--yes"]).output().await.unwrap();
    assert!(reset.status.success(), "{reset:?}");
    fs::remove_dir_all(root).unwrap();
}

impl Drop for Served {
    /// Only a failed test leaves it; it goes as with Ctrl-C.
    fn drop(&mut self) {
        if self.child.id().is_some() {
            self.signal(Signal::SIGTERM);
        }
    }
}
