//! The stages of `lab test`.

use std::process::Stdio;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::Value;
use tokio::process::Command;

use super::cargo::{cargo, check, count, has};
use super::docker::Docker;
use super::test_servers::TEST_SERVERS;
use super::{Run, Tally, chaos_toolkit, scripts};
use crate::say::{self, Steps};
use crate::stack::install::{self, CHROMEDRIVER, CHROMIUM};
use crate::stack::process;

/// One stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// The code is formatted
    Fmt,
    /// The lints are silent
    Clippy,
    /// The documentation builds, and its links lead somewhere
    Doc,
    /// The scripts of the pages do what they should, and their linter is silent
    Scripts,
    /// Unit and integration tests on private servers
    Tests,
    /// The fast experiments and their unsafe twins end as they must
    Experiments,
    /// The road again, on RabbitMQ 4.0 in a container
    Road4,
    /// The pages in a real browser
    Browser,
    /// The compose stack
    Compose,
}

impl Stage {
    pub const ALL: [Self; 9] = [
        Self::Fmt,
        Self::Clippy,
        Self::Doc,
        Self::Scripts,
        Self::Tests,
        Self::Experiments,
        Self::Road4,
        Self::Browser,
        Self::Compose,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Doc => "doc",
            Self::Scripts => "scripts",
            Self::Tests => "tests",
            Self::Experiments => "experiments",
            Self::Road4 => "road4",
            Self::Browser => "browser",
            Self::Compose => "compose",
        }
    }

    pub fn what(self) -> &'static str {
        match self {
            Self::Fmt => "the code is formatted",
            Self::Clippy => "the lints are silent",
            Self::Doc => "the documentation builds",
            Self::Scripts => "the scripts of the pages, tested and linted",
            Self::Tests => "unit and integration tests on private servers",
            Self::Experiments => "the fast experiments and their unsafe twins end as they must",
            Self::Road4 => "the road again, on RabbitMQ 4.0 in a container",
            Self::Browser => "the pages in a real browser",
            Self::Compose => "the compose stack",
        }
    }

    /// Needs neither Docker nor a browser.
    pub fn is_fast(self) -> bool {
        matches!(
            self,
            Self::Fmt | Self::Clippy | Self::Doc | Self::Scripts | Self::Tests
        )
    }

    pub fn needs_servers(self) -> bool {
        matches!(self, Self::Tests | Self::Road4 | Self::Browser)
    }

    /// Runs it.
    pub async fn run(self, run: &mut Run) -> Result<Tally> {
        match self {
            Self::Fmt => fmt(run).await,
            Self::Clippy => clippy(run).await,
            Self::Doc => doc(run).await,
            Self::Scripts => scripts::run(&run.root).await,
            Self::Tests => tests(run).await,
            Self::Experiments => experiments(run).await,
            Self::Road4 => road4(run).await,
            Self::Browser => browser(run).await,
            Self::Compose => compose(run).await,
        }
    }
}

async fn fmt(run: &Run) -> Result<Tally> {
    if !has(&run.root, "fmt", "rustfmt").await {
        return Ok(Tally::FAILED);
    }
    check(cargo(&run.root, &["fmt", "--all", "--check"])).await
}

async fn clippy(run: &Run) -> Result<Tally> {
    if !has(&run.root, "clippy", "clippy").await {
        return Ok(Tally::FAILED);
    }
    // not by RUSTFLAGS: other flags would build every dependency again; those two are no targets of every `cargo test`
    let arguments = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--test",
        "browser",
        "--test",
        "compose",
        "--",
        "-D",
        "warnings",
    ];
    check(cargo(&run.root, &arguments)).await
}

async fn doc(run: &Run) -> Result<Tally> {
    let mut command = cargo(&run.root, &["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    check(command).await
}

async fn tests(run: &Run) -> Result<Tally> {
    let addresses = servers(run)?;
    let mut arguments = vec!["test", "--workspace", "--no-fail-fast"];
    let mut skipped = Tally::default();
    if let Err(why) = chaos_toolkit::ensure(&run.root).await {
        skipped = skip(
            "chaos_toolkit",
            &format!("the Chaos Toolkit cannot be had: {why:#}"),
        );
        arguments.extend(["--", "--skip", "chaos_toolkit::"]);
    }
    let mut tally = count(with_servers(cargo(&run.root, &arguments), &addresses)).await?;
    tally += skipped;
    Ok(tally)
}

/// On a stack of their own, which is what they are about.
async fn experiments(run: &Run) -> Result<Tally> {
    let mut command = Command::new(process::own_program());
    command
        .arg("--lab-dir")
        .arg(run.root.join("target/test-experiments"))
        .args(["experiment", "run", "--all", "--fast", "--yes"])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    check(command).await
}

async fn road4(run: &mut Run) -> Result<Tally> {
    let docker = match docker(run).await {
        Ok(docker) => docker,
        Err(why) => return Ok(skip("road4", &why)),
    };
    let mut addresses = servers(run)?;
    let broker = docker.rabbitmq().await?;
    addresses["rabbitmq"] = broker.addresses.clone();
    let arguments = [
        "test",
        "--workspace",
        "--no-fail-fast",
        "--test",
        "it",
        "--",
        "road::",
        "cuts::",
        "storm::",
        "topology::",
        "foreign::",
        "guarantees::",
        "retries::",
        "ladder::",
        "mission::a_message_that_always_fails",
    ];
    count(with_servers(cargo(&run.root, &arguments), &addresses)).await
}

async fn browser(run: &Run) -> Result<Tally> {
    let steps = Steps::new(&say::tell);
    if let Err(why) = install::ensure_installed(&[CHROMIUM, CHROMEDRIVER], true, &steps).await {
        return Ok(skip("browser", &format!("{why:#}")));
    }
    let arguments = ["test", "--workspace", "--no-fail-fast", "--test", "browser"];
    count(with_servers(cargo(&run.root, &arguments), &servers(run)?)).await
}

async fn compose(run: &mut Run) -> Result<Tally> {
    match docker(run).await {
        Err(why) => return Ok(skip("compose", &why)),
        Ok(docker) if !docker.has_compose().await => {
            return Ok(skip("compose", "Docker has no compose plugin"));
        }
        Ok(_) => {}
    }
    let arguments = ["test", "--workspace", "--no-fail-fast", "--test", "compose"];
    count(cargo(&run.root, &arguments)).await
}

async fn docker(run: &mut Run) -> Result<Docker, String> {
    if run.docker.is_none() {
        run.docker = Some(Docker::find(&run.root).await);
    }
    run.docker
        .clone()
        .unwrap_or_else(|| Err("nobody looked for Docker".to_owned()))
}

fn servers(run: &Run) -> Result<Value> {
    run.servers
        .as_ref()
        .map(|servers| servers.addresses.clone())
        .context("the servers do not run")
}

/// With the servers, and more tests at once than there are cores: most of a test is waiting.
fn with_servers(mut command: Command, addresses: &Value) -> Command {
    command.env(TEST_SERVERS, addresses.to_string());
    let threads = "RUST_TEST_THREADS";
    if std::env::var_os(threads).is_none() {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        command.env(threads, (cores + cores.div_ceil(2)).to_string());
    }
    command
}

pub(super) fn skip(stage: &str, why: &str) -> Tally {
    say::line(format!("skipped {stage}: {why}"));
    Tally::SKIPPED
}
