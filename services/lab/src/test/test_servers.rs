//! The servers that all tests of one run share: `lab servers` as a child.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::say::{self, Steps};
use crate::stack::servers::Given;
use crate::stack::{install, process};

/// The variable that tells tests where the servers are.
pub const TEST_SERVERS: &str = "TEST_SERVERS";

const START_LIMIT: Duration = Duration::from_mins(3);

#[derive(Debug)]
pub struct TestServers {
    child: Child,
    /// The child stops when this is closed, so also when we die.
    input: ChildStdin,
    _output: BufReader<ChildStdout>,
    pub addresses: Value,
}

impl TestServers {
    /// Installs what is missing and starts them.
    pub async fn start(root: &Path) -> Result<Self> {
        let given = Given::default();
        install::ensure_installed(&given.needed(), true, &Steps::new(&say::tell)).await?;
        let folder = format!("test-servers-{:08x}", rand::random::<u32>());
        let folder = root.join("target").join(folder);
        let mut command = Command::new(process::own_program());
        command.arg("servers").arg("--dir").arg(&folder);
        // a group of its own: Ctrl-C must not take the servers away before the tests that use them
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().context("cannot start the servers")?;
        let input = child
            .stdin
            .take()
            .context("no way to talk to the servers")?;
        let output = child.stdout.take().context("no way to hear the servers")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let read = timeout(START_LIMIT, output.read_line(&mut line)).await;
        read.context("the servers took too long to start")??;
        let addresses = serde_json::from_str(&line).context("the servers did not start")?;
        Ok(Self {
            child,
            input,
            _output: output,
            addresses,
        })
    }

    /// Comes back when they are gone.
    pub async fn stop(mut self) {
        drop(self.input);
        let _ = timeout(Duration::from_mins(1), self.child.wait()).await;
    }
}
