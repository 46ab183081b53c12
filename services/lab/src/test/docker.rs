//! Docker, for the newer RabbitMQ and for the compose stack.
//!
//! Images come from a registry, or, on a machine that reaches none, from a script beside the checkout that makes them
//! under the same names.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lapin::{Connection, ConnectionProperties};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::say;

const RABBITMQ: &str = "rabbitmq:4.0-management";
const START_LIMIT: Duration = Duration::from_mins(2);

/// A Docker engine that answers.
#[derive(Debug, Clone)]
pub struct Docker;

impl Docker {
    /// Looks for one; where the script for images is there, that also starts one. Otherwise says why there is none.
    pub async fn find(root: &Path) -> Result<Self, String> {
        let script = root.join("../shared/offline-images/build");
        if script.is_file() {
            say::line(format!("images by {}", script.display()));
            let status = Command::new(&script).stdin(Stdio::null()).status().await;
            if !status.is_ok_and(|status| status.success()) {
                return Err(format!("{} failed", script.display()));
            }
        }
        docker(&["info"])
            .await
            .map_err(|_| "no Docker engine answers".to_owned())?;
        Ok(Self)
    }

    /// Whether it can run a compose file.
    pub async fn has_compose(&self) -> bool {
        docker(&["compose", "version"]).await.is_ok()
    }

    /// A RabbitMQ of the newer version in a container.
    pub async fn rabbitmq(&self) -> Result<Broker> {
        let name = format!("unacked-test-{:08x}", rand::random::<u32>());
        let password = format!("{:032x}", rand::random::<u128>());
        let user = "RABBITMQ_DEFAULT_USER=lab";
        let pass = format!("RABBITMQ_DEFAULT_PASS={password}");
        let run = [
            "run",
            "--detach",
            "--rm",
            "--name",
            &name,
            "--hostname",
            "rabbitmq",
        ];
        let ports = [
            "--publish",
            "127.0.0.1::5672",
            "--publish",
            "127.0.0.1::15672",
        ];
        let rest = ["--env", user, "--env", &pass, RABBITMQ];
        let mut broker = Broker {
            name: name.clone(),
            addresses: Value::Null,
        };
        docker(&[run.as_slice(), &ports, &rest].concat()).await?;
        let amqp = format!(
            "amqp://lab:{password}@{}/%2f",
            published(&name, "5672").await?
        );
        let management = format!("http://lab:{password}@{}", published(&name, "15672").await?);
        let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &name]).await?;
        let pid: i32 = pid.trim().parse().context("the container has no process")?;
        wait(&amqp, &management).await?;
        broker.addresses = json!({ "amqp": amqp, "management": management, "pid": pid });
        Ok(broker)
    }
}

/// The container; gone when this is dropped.
#[derive(Debug)]
pub struct Broker {
    name: String,
    /// As in what `lab servers` prints.
    pub addresses: Value,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let mut remove = std::process::Command::new("docker");
        remove.args(["rm", "--force", "--volumes", &self.name]);
        let _ = remove.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

async fn wait(amqp: &str, management: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let look = async {
            let connection = Connection::connect(amqp, ConnectionProperties::default()).await?;
            drop(connection.close(200, "looked".into()).await);
            let overview = reqwest::get(format!("{management}/api/overview")).await?;
            ensure!(
                overview.status().is_success(),
                "the management API says {}",
                overview.status()
            );
            Ok(())
        };
        match timeout(Duration::from_secs(5), look).await {
            Ok(Ok(())) => return Ok(()),
            _ if begun.elapsed() > START_LIMIT => bail!("{RABBITMQ} does not answer"),
            _ => sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn published(name: &str, port: &str) -> Result<String> {
    let text = docker(&["port", name, port]).await?;
    Ok(text
        .lines()
        .next()
        .context("the container has no port")?
        .to_owned())
}

async fn docker(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("docker");
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().await.context("cannot run docker")?;
    ensure!(
        status.success(),
        "docker {}: {}",
        arguments[0],
        String::from_utf8_lossy(&stderr).trim()
    );
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
