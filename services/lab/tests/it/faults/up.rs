//! `lab up` in a process of its own, and what is said to it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use testkit::wait_until;
use tokio::process::{Child, Command};

use super::{LIMIT, port};
use crate::world::lab;

/// `lab up` in a process of its own.
pub(super) struct Up {
    pub(super) child: Child,
    pub(super) root: PathBuf,
    pub(super) log: PathBuf,
}

impl Up {
    pub(super) async fn start(root: &Path, faults: bool) -> Self {
        let log = root.with_extension("log");
        let mut command = Command::new(lab());
        command.arg("--lab-dir").arg(root);
        command.args(["up", "--yes", "--sender", "1", "--receiver", "1"]);
        command.args(["--port", &port().to_string()]);
        if faults {
            command.arg("--faults");
        }
        let output = File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(output).spawn().unwrap();
        let up = Self {
            child,
            root: root.to_owned(),
            log,
        };
        up.says("ready after").await;
        up
    }

    pub(super) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn says(&self, what: &str) {
        wait_until(&format!("`lab up` to say: {what}"), LIMIT, async || {
            let said = self.said();
            if said.contains(what) {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(lab());
        command
            .arg("--lab-dir")
            .arg(&self.root)
            .arg("fault")
            .args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(super) async fn fault(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.unwrap()
    }

    pub(super) async fn active(&self) -> Vec<Value> {
        let output = self.fault(&["active", "--json"]).await;
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    /// One that is refused, with its one line.
    pub(super) async fn refused(&self, arguments: &[&str]) -> String {
        let output = self.fault(arguments).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        said
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(pid) = self.child.id() {
            signal(pid, Signal::SIGTERM);
        }
    }
}

pub(super) fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

pub(super) fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}
