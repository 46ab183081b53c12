//! What `lab` says about a stack: of settings that the services would refuse, of what hangs or dies
//! while it runs, and of what is left when `lab up` itself is killed.

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

const LIMIT: Duration = Duration::from_mins(3);

/// A folder for a stack, which is not there yet.
fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("unacked-{}", uuid::Uuid::new_v4().simple()))
}

fn said(output: &Output) -> String {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn up_refuses_wrong_settings_before_anything_starts() {
    for (name, value) in [
        ("WORK_DELAY_MAX_MS", "abc"),
        ("PREFETCH", "0"),
        ("PUBLISH_WINDOW", "1"),
        ("FAIL_POINTS", "nowhere=crash"),
        ("LOG", "info=loud=x"),
        ("LAB_REDIS_URL", "http://:secret@h"),
        ("LAB_DATABASE_URL", "secret"),
        ("LAB_AMQP_URL", "secret"),
        ("LAB_PORT", "high"),
    ] {
        let folder = folder();
        let output = Command::new(lab())
            .arg("--lab-dir")
            .arg(&folder)
            .arg("up")
            .env(name, value)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        let start = format!("wrong setting {name}");
        assert!(said.starts_with(&start), "{name}: {said}");
        assert_eq!(said.lines().count(), 1, "{name}: {said}");
        assert!(!said.contains("secret"), "{name}: {said}");
        assert!(!folder.exists(), "{name}: something began");
    }
}

/// A stack as `lab up` starts it, and what that says.
struct Stack {
    up: Child,
    folder: PathBuf,
    output: PathBuf,
}

impl Stack {
    async fn up() -> Self {
        let folder = folder();
        let output = folder.with_extension("log");
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let up = Command::new(lab())
            .args(["up", "--yes", "--sender", "1", "--receiver", "1"])
            .args(["--port", &port.to_string()])
            .arg("--lab-dir")
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .spawn()
            .unwrap();
        let stack = Self { up, folder, output };
        stack.says("ready after").await;
        stack
    }

    /// Waits for a line of `lab up`.
    async fn says(&self, what: &str) {
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

    async fn lab(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(lab());
        command.arg("--lab-dir").arg(&self.folder).args(arguments);
        command.stdin(Stdio::null()).output().await.unwrap()
    }

    async fn status(&self) -> Value {
        let output = self.lab(&["status", "--json"]).await;
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)))
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

fn signal(pid: &Value, signal: Signal) {
    let pid = i32::try_from(pid.as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[tokio::test]
async fn what_hangs_dies_or_is_left_behind_is_told() {
    let mut stack = Stack::up().await;
    let before = stack.status().await;
    let servers = ["postgres", "redis", "rabbitmq"];
    for server in servers {
        assert_eq!(before[server]["state"], "ready", "{before}");
        signal(&before[server]["pid"], Signal::SIGSTOP);
    }
    let paused = stack.status().await;
    let table = said(&stack.lab(&["status"]).await);
    for server in servers {
        signal(&before[server]["pid"], Signal::SIGCONT);
        assert_eq!(paused[server]["state"], "unready", "{paused}");
        assert_eq!(paused[server]["missing"], "it does not answer", "{paused}");
    }
    assert_eq!(paused["gateway_state"], "ready", "{paused}");
    let lines = table.lines().filter(|line| line.contains(" unready "));
    assert!(lines.count() >= servers.len(), "{table}");
    wait_until("all servers to be ready", LIMIT, async || {
        let status = stack.status().await;
        servers
            .iter()
            .all(|server| status[server]["state"] == "ready")
    })
    .await;

    let receiver = &before["nodes"][1];
    assert_eq!(receiver["service"], "receiver", "{before}");
    signal(&receiver["pid"], Signal::SIGKILL);
    let name = receiver["name"].as_str().unwrap();
    let line = format!("{name} ended (signal 9), started again (restart 1)\n");
    stack.says(&line).await;

    stack.up.kill().await.unwrap();
    for command in ["status", "down"] {
        let output = stack.lab(&[command]).await;
        let said = said(&output);
        assert_eq!(output.status.success(), command == "down", "{said}");
        assert!(said.contains(" was killed"), "{said}");
        assert!(said.contains(" processes "), "{said}");
        let folder = stack.folder.canonicalize().unwrap();
        let hint = format!("`cargo lab --lab-dir {} down`", folder.display());
        assert_eq!(said.contains(&hint), command == "status", "{said}");
    }
    let nothing = said(&stack.lab(&["status"]).await);
    assert!(nothing.contains("no stack runs in"), "{nothing}");
    let reset = stack.lab(&["reset", "--yes"]).await;
    assert!(reset.status.success(), "{}", said(&reset));
    fs::remove_file(&stack.output).unwrap();
}
