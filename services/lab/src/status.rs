//! `lab status`: what everything is doing, as a table for people or as JSON for scripts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::say;
use crate::stack::control::{self, Request};
use crate::stack::dir::{self, Place};
use crate::stack::node::Service;
use crate::stack::supervisor::{Condition, Doing};

/// What scripts and tests read. It holds passwords.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    pub gateway: String,
    pub gateway_pid: Option<u32>,
    pub gateway_state: Doing,
    pub gateway_restarts: u32,
    pub gateway_missing: Option<String>,
    pub postgres: ServerStatus,
    pub redis: ServerStatus,
    pub rabbitmq: RabbitMqStatus,
    /// None: it was left out.
    #[serde(default)]
    pub console: Option<ServerStatus>,
    /// What keeps the mails that nodes send; none: none sends any, or elsewhere.
    #[serde(default)]
    pub catcher: Option<ServerStatus>,
    /// Services that have a port of the gateway to themselves, with its URL.
    #[serde(default)]
    pub own: BTreeMap<Service, String>,
    pub nodes: Vec<NodeStatus>,
    /// The stack's folder and the process that runs it.
    pub dir: PathBuf,
    pub pid: u32,
}

/// What is known of any program. A server that was given by its URL has no pid here.
#[derive(Debug, Serialize, Deserialize)]
pub struct Program {
    pub pid: Option<u32>,
    pub state: Doing,
    pub restarts: u32,
    /// Why it is not ready although it runs.
    pub missing: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    pub url: String,
    #[serde(flatten)]
    pub program: Program,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct RabbitMqStatus {
    pub amqp: String,
    pub management: Option<String>,
    #[serde(flatten)]
    pub program: Program,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    pub name: String,
    pub service: Service,
    pub address: String,
    pub ops: String,
    #[serde(flatten)]
    pub program: Program,
}

/// What a stack knows of a node without asking it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeCondition {
    pub name: String,
    pub service: Service,
    pub ops: String,
    pub doing: Doing,
    /// All of its process is stopped where it is.
    pub frozen: bool,
    pub restarts: u32,
}

impl From<Condition> for Program {
    fn from(now: Condition) -> Self {
        Self {
            pid: now.pid,
            state: now.doing,
            restarts: now.restarts,
            missing: now.missing,
        }
    }
}

impl NodeStatus {
    pub fn new(service: Service, place: Place, now: Condition) -> Self {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        Self {
            name: place.name,
            service,
            // one without pages has one port
            address: url(if service.has_pages() {
                place.port
            } else {
                place.ops
            }),
            ops: url(place.ops),
            program: now.into(),
        }
    }
}

/// Prints it. Fails when nothing runs.
pub async fn run(root: &Path, json: bool) -> Result<()> {
    let answer = control::ask(root, &Request::Status, &say::tell).await?;
    if json {
        say::line(serde_json::to_string_pretty(&answer)?);
        return Ok(());
    }
    let status: Status =
        serde_json::from_value(answer).context("the stack that runs is of another version")?;
    say::line(table(&status));
    Ok(())
}

/// Without secrets.
fn table(status: &Status) -> String {
    let mut rows = vec![
        ["", "state", "pid", "restarts", "address"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut row = |name: &str, program: &Program, url: &str| {
        let address = match &program.missing {
            Some(why) => format!("{}  ({why})", host(url)),
            None => host(url),
        };
        let pid = program
            .pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        rows.push(vec![
            name.to_owned(),
            word(program.state),
            pid,
            program.restarts.to_string(),
            address,
        ]);
    };
    let (postgres, redis, rabbitmq) = (&status.postgres, &status.redis, &status.rabbitmq);
    row("PostgreSQL", &postgres.program, &postgres.url);
    row("Redis", &redis.program, &redis.url);
    row("RabbitMQ", &rabbitmq.program, &rabbitmq.amqp);
    for node in &status.nodes {
        row(&node.name, &node.program, &node.address);
    }
    if let Some(catcher) = &status.catcher {
        row("catcher", &catcher.program, &catcher.url);
    }
    if let Some(console) = &status.console {
        row("console", &console.program, &console.url);
    }
    let gateway = Program {
        pid: status.gateway_pid,
        state: status.gateway_state,
        restarts: status.gateway_restarts,
        missing: status.gateway_missing.clone(),
    };
    row("gateway", &gateway, &status.gateway);
    format!("{}\n\n{}", align(&rows), pages(status))
}

/// What to open, and where the file with the token of the console is.
fn pages(status: &Status) -> String {
    let gateway = &status.gateway;
    let mut lines = vec![format!("Pages          {gateway}/")];
    if status.console.is_some() {
        let secrets = status.dir.join("secrets.json");
        lines.push(format!(
            "The lab        {gateway}/lab  (to break something, sign in with the token `console` in {})",
            secrets.display()
        ));
    }
    for (service, own) in &status.own {
        let (name, page) = (service.name(), service.page());
        lines.push(format!(
            "{name:<13}  {gateway}{page}  (at the root of its own port: {own}/)"
        ));
    }
    if status.catcher.is_some() {
        let mails = dir::command(&status.dir, "mails");
        lines.push(format!("Mails          `{mails}`"));
    }
    if let Some(management) = &status.rabbitmq.management {
        lines.push(format!("RabbitMQ's UI  http://{}/", host(management)));
    }
    lines.join("\n")
}

fn word(state: Doing) -> String {
    serde_json::to_value(state)
        .ok()
        .and_then(|word| Some(word.as_str()?.to_owned()))
        .unwrap_or_default()
}

/// Host and port of a URL.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default().to_owned()
}

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_table_shows_no_secret() {
        assert_eq!(
            host("postgres://postgres:secret@127.0.0.1:5433/unacked"),
            "127.0.0.1:5433"
        );
        assert_eq!(
            host("amqp://lab:secret@127.0.0.1:5672/%2f"),
            "127.0.0.1:5672"
        );
    }

    #[test]
    fn the_pages_are_named_with_the_file_of_the_token() {
        let program = json!({"pid": 1, "state": "ready", "restarts": 0, "missing": null});
        let with = |more: Value| {
            let mut all = program.clone();
            let more = more.as_object().unwrap().clone();
            all.as_object_mut().unwrap().extend(more);
            all
        };
        let status = json!({
            "gateway": "http://127.0.0.1:8080",
            "gateway_pid": 1,
            "gateway_state": "ready",
            "gateway_restarts": 0,
            "gateway_missing": null,
            "postgres": with(json!({"url": "postgres://u:secret@127.0.0.1:1/unacked"})),
            "redis": with(json!({"url": "redis://:secret@127.0.0.1:2"})),
            "rabbitmq": with(json!({"amqp": "amqp://u:secret@127.0.0.1:3", "management": "http://u:secret@127.0.0.1:4"})),
            "console": with(json!({"url": "http://127.0.0.1:5"})),
            "nodes": [],
            "dir": "/there/.lab",
            "pid": 1,
        });
        let mut status: Status = serde_json::from_value(status).unwrap();
        let said = table(&status);
        assert!(!said.contains("secret@"), "{said}");
        assert!(said.contains("http://127.0.0.1:8080/lab  ("), "{said}");
        assert!(said.contains("the token `console` in /there/.lab/secrets.json"));
        assert!(
            said.ends_with("RabbitMQ's UI  http://127.0.0.1:4/"),
            "{said}"
        );
        status.console = None;
        assert!(!table(&status).contains("The lab"));
        assert!(!table(&status).contains("mails"));
        let own = "http://127.0.0.1:8092".to_owned();
        status.own.insert(Service::Leases, own);
        status.catcher = Some(serde_json::from_value(with(json!({"url": "smtp://x"}))).unwrap());
        let said = table(&status);
        let line = "leases         http://127.0.0.1:8080/leases/queues  (at the root of its own port: http://127.0.0.1:8092/)";
        assert!(said.contains(line) && said.contains(" mails`"), "{said}");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [
            vec!["a".to_owned(), "b".to_owned()],
            vec!["long".to_owned(), "c".to_owned()],
        ];
        assert_eq!(align(&rows), "a     b\nlong  c");
    }
}
