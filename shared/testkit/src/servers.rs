//! The servers that tests run on: the shared ones of the whole run, or a test's own, which it may
//! break.
//!
//! Own servers are a child, `lab servers`, driven by lines on its standard input. When that input
//! ends, because the test dropped them or died, the child stops everything and removes its folder.

use std::{collections::BTreeMap, path::Path, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
    time::timeout,
};

/// RabbitMQ takes its time, more so on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(4);
const COMMAND_LIMIT: Duration = Duration::from_mins(2);
const END_LIMIT: Duration = Duration::from_mins(1);

/// Where the servers are.
#[derive(Debug, Clone, Deserialize)]
pub struct Addresses {
    /// PostgreSQL.
    pub postgres: Postgres,
    /// Redis.
    pub redis: Redis,
    /// RabbitMQ.
    pub rabbitmq: RabbitMq,
}

/// Where PostgreSQL is.
#[derive(Debug, Clone, Deserialize)]
pub struct Postgres {
    /// For the superuser, to the database `unacked`, which is the template of each test's own.
    pub url: String,
    /// Of the roles.
    pub passwords: BTreeMap<String, String>,
    /// The main process.
    pub pid: i32,
}

/// Where Redis is.
#[derive(Debug, Clone, Deserialize)]
pub struct Redis {
    /// With the password.
    pub url: String,
    /// The main process.
    pub pid: i32,
}

/// Where RabbitMQ is.
#[derive(Debug, Clone, Deserialize)]
pub struct RabbitMq {
    /// To the default vhost.
    pub amqp: String,
    /// The management API, with user and password.
    pub management: String,
    /// The main process.
    pub pid: i32,
}

/// One of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
    /// RabbitMQ.
    RabbitMq,
}

impl Server {
    fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::RabbitMq => "rabbitmq",
        }
    }
}

/// Servers to test on. Clones are the same servers; own ones end with the last clone.
#[derive(Clone)]
pub struct Servers {
    /// Where they are.
    pub at: Addresses,
    own: Option<Arc<Mutex<Own>>>,
}

struct Own {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Servers {
    /// The servers of the whole run, as `TEST_SERVERS` names them. They cannot be broken.
    #[expect(clippy::disallowed_methods, reason = "a test has no config.rs")]
    pub fn shared() -> Self {
        let Ok(line) = std::env::var("TEST_SERVERS") else {
            panic!(
                "these tests need servers: run them with `cargo lab test`, or set TEST_SERVERS to \
                 the line that `cargo lab servers --dir DIR` prints, while that runs"
            )
        };
        let at =
            serde_json::from_str(&line).expect("TEST_SERVERS is not what `lab servers` prints");
        Self { at, own: None }
    }

    /// Starts servers of the test's own.
    pub async fn start(lab: &Path) -> Self {
        let dir = std::env::temp_dir().join(format!("unacked-{}", crate::name()));
        let started = Self::try_start(lab, &dir).await;
        started.unwrap_or_else(|error| panic!("own servers in {}: {error:#}", dir.display()))
    }

    async fn try_start(lab: &Path, dir: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(lab)
            .arg("servers")
            .arg("--dir")
            .arg(dir)
            // Ctrl-C is for the test; its end is what ends the servers.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| lab.display().to_string())?;
        let orders = child.stdin.take().context("no standard input")?;
        let answers = child.stdout.take().context("no standard output")?;
        let mut own = Own {
            child,
            orders,
            answers: BufReader::new(answers).lines(),
        };
        let line = own.answer(START_LIMIT).await?;
        let at = serde_json::from_str(&line).with_context(|| format!("not addresses: {line}"))?;
        Ok(Self {
            at,
            own: Some(Arc::new(Mutex::new(own))),
        })
    }

    /// Kills it, as `kill -9` does.
    pub async fn kill(&self, server: Server) {
        self.order("kill", server).await;
    }

    /// Stops it gracefully.
    pub async fn stop(&self, server: Server) {
        self.order("stop", server).await;
    }

    /// Starts it again, on the same port and data, and returns when it accepts connections.
    pub async fn start_again(&self, server: Server) {
        self.order("start", server).await;
    }

    /// Pauses all its processes: its sockets stay open, and it answers nothing.
    pub async fn pause(&self, server: Server) {
        self.order("pause", server).await;
    }

    /// Lets it go on.
    pub async fn resume(&self, server: Server) {
        self.order("resume", server).await;
    }

    /// Ends own servers and waits for that. Without this, they end a little after the last clone
    /// was dropped.
    pub async fn end(self) {
        let Some(own) = self.own.and_then(Arc::into_inner) else {
            return;
        };
        let Own {
            mut child,
            orders,
            answers: _,
        } = own.into_inner();
        drop(orders);
        let ended = timeout(END_LIMIT, child.wait()).await;
        assert!(ended.is_ok(), "own servers did not end in {END_LIMIT:?}");
    }

    /// Sets or lifts RabbitMQ's memory alarm, which blocks publishing.
    pub async fn alarm(&self, on: bool) {
        self.obey(format!("alarm {}", if on { "on" } else { "off" }))
            .await;
    }

    /// Has RabbitMQ wait no longer than this for the answer to a delivery, on channels that are opened from now on: then
    /// it closes the channel. It looks every half of this, instead of once a minute.
    pub async fn consumer_timeout(&self, patience: Duration) {
        self.obey(format!("consumer-timeout {}", patience.as_millis()))
            .await;
    }

    async fn order(&self, deed: &str, server: Server) {
        self.obey(format!("{deed} {}", server.word())).await;
    }

    async fn obey(&self, order: String) {
        let own = self
            .own
            .as_ref()
            .expect("only own servers (Servers::start) may be broken");
        if let Err(error) = own.lock().await.obey(&order).await {
            panic!("{order}: {error:#}");
        }
    }
}

impl Own {
    async fn obey(&mut self, order: &str) -> anyhow::Result<()> {
        self.orders
            .write_all(format!("{order}\n").as_bytes())
            .await?;
        self.orders.flush().await?;
        let answer = self.answer(COMMAND_LIMIT).await?;
        ensure!(answer == "ok", "{answer}");
        Ok(())
    }

    async fn answer(&mut self, limit: Duration) -> anyhow::Result<String> {
        let line = timeout(limit, self.answers.next_line())
            .await
            .context("no answer in time")??;
        let Some(line) = line else {
            let status = self.child.try_wait();
            bail!("`lab servers` ended: {status:?}");
        };
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for `lab servers`: one line of addresses, then an answer per order.
    const STAND_IN: &str = r#"#!/bin/sh
echo '{"postgres":{"url":"p","passwords":{"sender":"a"},"pid":1},"redis":{"url":"r","pid":2},"rabbitmq":{"amqp":"q","management":"m","pid":3}}'
while read -r order; do
  case "$order" in "kill redis") echo ok;; *) echo "error: not $order";; esac
done
"#;

    async fn stand_in() -> Servers {
        let path = std::env::temp_dir().join(format!("lab-{}", crate::name()));
        // Written by another process: a child that another test of this one begins meanwhile would hold it open for
        // writing for a moment, and a file that is being written cannot be executed ("Text file busy").
        let write = r#"printf %s "$2" > "$1" && chmod 700 "$1""#;
        let mut writer = Command::new("sh");
        writer.args(["-c", write, "sh"]).arg(&path).arg(STAND_IN);
        assert!(writer.status().await.unwrap().success());
        let servers = Servers::start(&path).await;
        std::fs::remove_file(&path).unwrap();
        servers
    }

    #[tokio::test]
    async fn own_servers_obey_and_end_when_told() {
        let servers = stand_in().await;
        assert_eq!(servers.at.rabbitmq.pid, 3);
        servers.kill(Server::Redis).await;
        servers.end().await;
    }

    #[tokio::test]
    #[should_panic(expected = "stop postgres: error: not stop postgres")]
    async fn an_order_that_fails_is_a_panic_with_the_reason() {
        stand_in().await.stop(Server::Postgres).await;
    }
}
