//! A stack of the test's own, as `cargo lab up` starts it.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use testkit::wait_until;
use tokio::process::{Child, Command};

use crate::world::lab;

/// How long a stack may take for anything.
pub(crate) const LIMIT: Duration = Duration::from_mins(3);

/// A folder for a stack, which is not there yet.
pub(crate) fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("unacked-{}", uuid::Uuid::new_v4().simple()))
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// All that a command said.
pub(crate) fn said(output: &Output) -> String {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

/// Sends a signal to a process that a status names.
pub(crate) fn signal(pid: &Value, signal: Signal) {
    let pid = i32::try_from(pid.as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// `lab up`, its folder, and what it says.
pub(crate) struct Stack {
    pub(crate) up: Child,
    pub(crate) folder: PathBuf,
    pub(crate) gateway: String,
    output: PathBuf,
}

impl Stack {
    /// So many nodes of each service, with these settings; ready.
    pub(crate) async fn up(senders: u8, receivers: u8, settings: &[(&str, &str)]) -> Self {
        Self::up_with(senders, receivers, &[], settings).await
    }

    /// The same, said with these flags too.
    pub(crate) async fn up_with(
        senders: u8,
        receivers: u8,
        flags: &[&str],
        settings: &[(&str, &str)],
    ) -> Self {
        let folder = folder();
        let output = folder.with_extension("log");
        let port = free_port();
        let up = Command::new(lab())
            .args(["up", "--yes", "--port", &port.to_string()])
            .args(["--sender", &senders.to_string()])
            .args(["--receiver", &receivers.to_string()])
            .args(flags)
            .arg("--lab-dir")
            .arg(&folder)
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .spawn()
            .unwrap();
        let gateway = format!("http://127.0.0.1:{port}");
        let stack = Self {
            up,
            folder,
            gateway,
            output,
        };
        stack.says("ready after").await;
        stack
    }

    /// Waits for a line of `lab up`.
    pub(crate) async fn says(&self, what: &str) {
        wait_until(&format!("`lab up` to say: {what}"), LIMIT, async || {
            let said = fs::read_to_string(&self.output).unwrap();
            if said.contains(what) {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
    }

    /// A command of `lab` on this stack.
    pub(crate) async fn lab(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(lab());
        command.arg("--lab-dir").arg(&self.folder).args(arguments);
        command.stdin(Stdio::null()).output().await.unwrap()
    }

    /// What `lab status` says, or why it says nothing.
    pub(crate) async fn status(&self) -> Result<Value, String> {
        let output = self.lab(&["status", "--json"]).await;
        serde_json::from_slice(&output.stdout).map_err(|_| said(&output))
    }

    /// Removes what the stack leaves when it is down.
    pub(crate) async fn reset(self) {
        let reset = self.lab(&["reset", "--yes"]).await;
        assert!(reset.status.success(), "{}", said(&reset));
        fs::remove_file(&self.output).unwrap();
    }
}

impl Drop for Stack {
    /// Only a failed test leaves a stack; it goes as with Ctrl-C.
    fn drop(&mut self) {
        if let Some(pid) = self.up.id() {
            signal(&pid.into(), Signal::SIGTERM);
        }
    }
}
