//! Stacks as `lab up` starts them, which tests share.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use serde_json::Value;

/// The one program that is everything here.
pub(crate) fn lab() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lab"))
}

/// A stack that runs until this process ends.
pub(crate) struct Stack {
    /// Where its gateway listens.
    pub(crate) gateway: String,
    folder: PathBuf,
}

/// Where the gateway of the stack for people listens.
pub(crate) fn gateway() -> &'static str {
    static PEOPLE: LazyLock<Stack> = LazyLock::new(|| {
        let settings = [("WORK_DELAY_MAX_MS", "100"), ("WORK_FAIL_ONE_IN", "0")];
        Stack::start("people", &["--sender", "2", "--receiver", "2"], &settings)
    });
    &PEOPLE.gateway
}

impl Stack {
    /// Its shell takes it down when its standard input ends, and that ends with this process, however
    /// that ends.
    pub(crate) fn start(name: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let folder = format!("unacked-browser-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        let [port] = free_ports();
        let script = r#"
            lab=$0 dir=$1; shift
            mkdir -p "$dir"
            "$lab" --lab-dir "$dir" up --yes "$@" 2>&1 | tee -p "$dir.log" &
            exec > /dev/null
            cat
            "$lab" --lab-dir "$dir" down; "$lab" --lab-dir "$dir" reset --yes; rm -rf "$dir" "$dir.log"
        "#;
        #[expect(clippy::zombie_processes, reason = "it ends after this process")]
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .args([lab().as_os_str(), folder.as_os_str()])
            .args(["--port", &port.to_string()])
            .args(arguments)
            .envs(settings.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        // Open until this process ends, whatever happens to `shell`.
        std::mem::forget(shell.stdin.take());
        let says = shell.stdout.take().expect("its output");
        let mut said = String::new();
        for line in BufReader::new(says).lines() {
            said += &line.expect("text");
            if said.contains("ready after") {
                break;
            }
            said.push('\n');
        }
        assert!(
            said.contains("ready after"),
            "the stack {name} does not start:\n{said}"
        );
        let gateway = format!("http://127.0.0.1:{port}");
        Self { gateway, folder }
    }

    /// What a command of the lab writes about it.
    pub(crate) fn lab(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(lab());
        command.arg("--lab-dir").arg(&self.folder).args(arguments);
        let output = command.output().expect("the lab runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What one signs in with at its console.
    pub(crate) fn token(&self) -> String {
        let secrets = std::fs::read(self.folder.join("secrets.json")).expect("its secrets");
        let secrets: Value = serde_json::from_slice(&secrets).expect("JSON");
        secrets["console"].as_str().expect("a token").to_owned()
    }
}

/// Ports that nobody has.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// A text that no other test writes.
pub(crate) fn unique(text: &str) -> String {
    format!("{text} {}", uuid::Uuid::new_v4().simple())
}
