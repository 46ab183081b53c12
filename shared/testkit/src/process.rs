//! A service as a process of its own, that can be killed, paused, stopped and started again on the
//! same port.
//!
//! Ports are picked by asking for a free one and giving it back; somebody else may take it before
//! the child does, so a child that ends at once is tried again with others.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use reqwest::{Client, StatusCode};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

const LIVE_LIMIT: Duration = Duration::from_secs(30);
const ASK_LIMIT: Duration = Duration::from_secs(5);
const TRIES: u32 = 3;
/// How much of a log a failure shows.
const TAIL: usize = 6_000;

/// What to run: a program with arguments and settings. The environment of the test is not passed
/// on, but for `PATH`.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    binary: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Program {
    /// A program; the name becomes the node's.
    pub fn new(name: impl Into<String>, binary: impl AsRef<Path>) -> Self {
        let name = name.into();
        let env = vec![
            ("NODE_NAME".to_owned(), name.clone()),
            ("LAB_OPS".to_owned(), "true".to_owned()),
        ];
        Self {
            name,
            binary: binary.as_ref().to_owned(),
            args: Vec::new(),
            env,
        }
    }

    /// Adds an argument, for example `sender` for the program `lab`.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets a setting. A later one wins.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "env(\"PREFETCH\", 16) reads well"
    )]
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// Starts it on free ports and waits until it answers `/health/live`.
    ///
    /// # Panics
    /// If it does not; the end of its log is in the message.
    pub async fn start(self) -> Process {
        let name = self.name.clone();
        self.try_start()
            .await
            .unwrap_or_else(|error| panic!("starting {name}: {error:#}"))
    }

    /// As [`Program::start`], for a test that expects it to fail.
    pub async fn try_start(self) -> anyhow::Result<Process> {
        let log = std::env::temp_dir().join(format!("unacked-{}-{}.log", self.name, crate::name()));
        let client = Client::builder().timeout(ASK_LIMIT).build()?;
        let mut tries = 0;
        loop {
            tries += 1;
            let [port, ops_port] = free_ports()?;
            let child = self.spawn(port, ops_port, &log)?;
            let program = self.clone();
            let client = client.clone();
            let log = log.clone();
            let mut process = Process {
                program,
                child,
                port,
                ops_port,
                client,
                log,
            };
            match process.live().await {
                Ok(()) => return Ok(process),
                Err(_) if tries < TRIES && process.lost_its_port() => {}
                Err(error) => return Err(error.context(process.log_tail())),
            }
        }
    }

    /// Runs it to its end and gives its exit status and all it said; for settings that must be
    /// refused.
    pub async fn output(&self, limit: Duration) -> anyhow::Result<(ExitStatus, String)> {
        let [port, ops_port] = free_ports()?;
        let mut command = self.command(port, ops_port);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = timeout(limit, output)
            .await
            .context("it goes on running")??;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status, String::from_utf8_lossy(&said).into_owned()))
    }

    fn spawn(&self, port: u16, ops_port: u16, log: &Path) -> anyhow::Result<Child> {
        let file = File::options().create(true).append(true).open(log)?;
        let mut command = self.command(port, ops_port);
        let command = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let spawned = command.kill_on_drop(true).spawn();
        spawned.with_context(|| self.binary.display().to_string())
    }

    fn command(&self, port: u16, ops_port: u16) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(&self.args)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH"))
            .env("LISTEN", format!("127.0.0.1:{port}"))
            .env("OPS_LISTEN", format!("127.0.0.1:{ops_port}"))
            // as every launcher of ours does
            .env("RUST_MIN_STACK", "134217728")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            // Ctrl-C is for the test, whose end ends its children.
            .process_group(0);
        command
    }
}

/// Both at once, so that they differ.
fn free_ports() -> anyhow::Result<[u16; 2]> {
    let (one, other) = (
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    );
    Ok([one.local_addr()?.port(), other.local_addr()?.port()])
}

/// A running service. Killed when dropped; if the test is failing, the end of its log is shown.
pub struct Process {
    program: Program,
    child: Child,
    port: u16,
    ops_port: u16,
    client: Client,
    log: PathBuf,
}

impl Process {
    /// The node's name.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// Its pages and API, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its second port, without a slash at the end.
    pub fn ops_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ops_port)
    }

    /// Its process id, as long as it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills it, as `kill -9` does, and waits for its end.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("killing a child");
    }

    /// Asks it to stop with SIGTERM; its exit status. An error if it has not ended within the
    /// limit.
    pub async fn terminate(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit).await
    }

    /// Waits for its end, for example after a fail point crashed it.
    pub async fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let ended = timeout(limit, self.child.wait()).await;
        let name = &self.program.name;
        Ok(ended.with_context(|| format!("{name} did not end in {limit:?}"))??)
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Pauses it with SIGSTOP: its sockets stay open, and it does nothing.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP).expect("pausing a child");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT).expect("resuming a child");
    }

    /// Sends it a signal. An error if it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().context("it has ended")?;
        Ok(signal::kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Starts it again on the same ports, after it was killed or has ended, and waits until it
    /// answers `/health/live`.
    pub async fn start_again(&mut self) {
        let name = self.program.name.clone();
        let started = self.try_start_again().await;
        started.unwrap_or_else(|error| panic!("starting {name} again: {error:#}"));
    }

    async fn try_start_again(&mut self) -> anyhow::Result<()> {
        ensure!(self.ended().is_some(), "it still runs");
        self.child = self.program.spawn(self.port, self.ops_port, &self.log)?;
        let live = self.live().await;
        live.map_err(|error| error.context(self.log_tail()))
    }

    /// Changes settings for the next [`Process::start_again`].
    #[expect(clippy::needless_pass_by_value, reason = "as Program::env")]
    pub fn set_env(&mut self, name: &str, value: impl ToString) {
        self.program.env.push((name.to_owned(), value.to_string()));
    }

    /// Whether `/health/ready` says yes, and the body, which tells each part's state.
    pub async fn ready(&self) -> anyhow::Result<(bool, serde_json::Value)> {
        let answer = self
            .client
            .get(format!("{}/health/ready", self.ops_url()))
            .send()
            .await?;
        Ok((answer.status() == StatusCode::OK, answer.json().await?))
    }

    /// Arms exactly these fail points (the empty text: none).
    pub async fn arm(&self, fail_points: &str) -> anyhow::Result<()> {
        let url = format!("{}/ops/fail-points", self.ops_url());
        let answer = self
            .client
            .put(url)
            .body(fail_points.to_owned())
            .send()
            .await?;
        let status = answer.status();
        ensure!(status.is_success(), "{status}: {}", answer.text().await?);
        Ok(())
    }

    /// How often the fail point was passed, and how many stand there now.
    pub async fn fail_point(&self, name: &str) -> anyhow::Result<(u64, u64)> {
        let url = format!("{}/ops/fail-points", self.ops_url());
        let all: serde_json::Value = self.client.get(url).send().await?.json().await?;
        let one = all
            .as_array()
            .and_then(|all| all.iter().find(|one| one["name"] == name));
        let one = one.with_context(|| format!("no fail point {name}"))?;
        let count = |field: &str| one[field].as_u64().context("not a count");
        Ok((count("passages")?, count("parked")?))
    }

    /// The sum of this metric over all its labels; 0 if nothing was counted yet.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self
            .client
            .get(format!("{}/metrics", self.ops_url()))
            .send()
            .await?;
        Ok(sum_of(name, &text.text().await?))
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(TAIL)..];
        format!(
            "the end of {}'s log:\n{}",
            self.program.name,
            String::from_utf8_lossy(tail)
        )
    }

    /// All of its log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    async fn live(&mut self) -> anyhow::Result<()> {
        let url = format!("{}/health/live", self.ops_url());
        let end = Instant::now() + LIVE_LIMIT;
        loop {
            let answer = self.client.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return Ok(());
            }
            if let Some(status) = self.ended() {
                bail!("it ended: {status}");
            }
            ensure!(Instant::now() < end, "it does not answer {url}");
            sleep(Duration::from_millis(25)).await;
        }
    }

    fn lost_its_port(&mut self) -> bool {
        self.ended().is_some() && self.log().contains("Address already in use")
    }
}

fn sum_of(name: &str, text: &str) -> f64 {
    let value = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix(name)?;
        let value = if rest.starts_with('{') {
            rest.rsplit_once('}')?.1
        } else {
            rest
        };
        // A longer name is another metric.
        value.strip_prefix(' ')?.trim().parse().ok()
    };
    text.lines().filter_map(value).sum()
}

impl Drop for Process {
    fn drop(&mut self) {
        // The child itself is killed by `kill_on_drop`, paused or not.
        if std::thread::panicking() {
            #[expect(
                clippy::print_stderr,
                reason = "a failing test shows its captured output"
            )]
            {
                eprintln!("{}", self.log_tail());
            }
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_over_other_metrics() {
        let text = "# TYPE a counter\na{x=\"1\"} 2\na{x=\"2 }\"} 3\na_total 10\nb 1.5\n";
        assert!((sum_of("a", text) - 5.0).abs() < f64::EPSILON);
        assert!((sum_of("b", text) - 1.5).abs() < f64::EPSILON);
        assert!(sum_of("c", text).abs() < f64::EPSILON);
    }

    #[tokio::test]
    async fn a_program_that_ends_is_told_with_its_log() {
        let program = Program::new("sender-1", "/bin/sh")
            .arg("-c")
            .arg("echo $X ${HOME-none}; exit 2");
        let (status, said) = program.env("X", "why").output(ASK_LIMIT).await.unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(2), "why none\n"));
        let program = Program::new("sender-1", "/bin/sh")
            .arg("-c")
            .arg("echo why; exit 2");
        let Err(error) = program.try_start().await else {
            panic!("it started")
        };
        let error = format!("{error:#}");
        assert!(
            error.contains("why") && error.contains("exit status: 2"),
            "{error}"
        );
    }

    #[test]
    fn free_ports_differ() {
        let [one, other] = free_ports().unwrap();
        assert_ne!(one, other);
    }
}
