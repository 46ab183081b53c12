//! Docker's command, run and read.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::say::Usage;

/// Longer than any container may take to stop (`stop_grace_period`), and than Docker needs to make some.
const LIMIT: Duration = Duration::from_mins(3);

/// Runs `docker` with these arguments and gives what it wrote.
pub async fn docker(arguments: &[&str]) -> Result<String> {
    run(arguments, &[]).await
}

/// The same, with these in the environment, or not (none).
pub async fn run(arguments: &[&str], environment: &[(String, Option<String>)]) -> Result<String> {
    let output = output(arguments, environment).await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a container has written since then, or in between, on both its streams: Docker gives each on its own.
pub async fn logs(id: &str, since: &str, until: Option<&str>) -> Result<String> {
    let mut arguments = vec!["logs", "--since", since];
    arguments.extend(until.iter().flat_map(|until| ["--until", until]));
    arguments.push(id);
    let output = output(&arguments, &[]).await?;
    let streams = [output.stdout, output.stderr];
    Ok(streams
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .join("\n"))
}

async fn output(arguments: &[&str], environment: &[(String, Option<String>)]) -> Result<Output> {
    let mut command = Command::new("docker");
    for (name, value) in environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = match timeout(LIMIT, command.output()).await {
        Err(_) => bail!("docker {} takes too long", what(arguments)),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Usage("there is no program `docker` here".to_owned()).into());
        }
        Ok(output) => output.context("cannot run docker")?,
    };
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if said.contains("Cannot connect to the Docker daemon") || said.contains("permission denied") {
        return Err(Usage(format!("no Docker engine answers: {said}")).into());
    }
    bail!("docker {}: {said}", what(arguments))
}

/// What Docker knows of these.
pub async fn inspect(ids: &[&str]) -> Result<Vec<Value>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let text = docker(&[&["inspect", "--type", "container"], ids].concat()).await?;
    serde_json::from_str(&text).context("docker's JSON cannot be read")
}

fn what<'a>(arguments: &[&'a str]) -> &'a str {
    arguments.first().copied().unwrap_or_default()
}
