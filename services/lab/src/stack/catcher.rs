//! The catcher of mails as a program of the stack: this very program, started again as `lab catcher`.
//!
//! It takes what the nodes of sign-up send and keeps each mail as a line of `mails.ndjson` in the stack's folder. It may die at
//! any time: it is started again on the same file, and nodes send again what it did not say yes to.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::dir::{self, LabDir};
use super::process::{self, MARKER};
use super::supervisor::Program;

/// The catcher to run.
#[derive(Debug)]
pub struct Catcher {
    stack: PathBuf,
    port: u16,
    file: PathBuf,
    log: PathBuf,
    program: PathBuf,
}

impl Catcher {
    /// Makes the file for its owner only. `program` as in the options of a stack: without it this very one.
    pub fn new(dir: &LabDir, port: u16, program: Option<PathBuf>) -> Result<Self> {
        let file = dir::mails(dir.root());
        let mut open = File::options();
        let opened = open.create(true).append(true).mode(0o600).open(&file);
        opened.with_context(|| format!("cannot make {}", file.display()))?;
        Ok(Self {
            stack: dir.root().to_owned(),
            port,
            file,
            log: dir.log("catcher"),
            program: program.unwrap_or_else(process::own_program),
        })
    }
}

impl Program for Catcher {
    fn name(&self) -> String {
        "the catcher of mails".to_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg0("lab")
            .args(["catcher", "--listen", &format!("127.0.0.1:{}", self.port)])
            .arg("--file")
            .arg(&self.file)
            .env(MARKER, &self.stack)
            .env_remove("RUST_BACKTRACE");
        command
    }

    async fn answers(&self) -> Result<()> {
        let connected = TcpStream::connect(("127.0.0.1", self.port)).await;
        let mut greeting = [0; 4];
        let mut stream = connected.context("no connection")?;
        stream.read_exact(&mut greeting).await?;
        ensure!(&greeting == b"220 ", "it does not speak SMTP");
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.log.clone()
    }

    fn start_limit(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn stop_limit(&self) -> Duration {
        Duration::from_secs(5)
    }
}
