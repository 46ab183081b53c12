//! The whole native stack under load, while one part after the other is killed or restarted: what was
//! accepted is processed, once, and nobody restarts anything by hand.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;
use sqlx::PgPool;
use testkit::wait_until;
use tokio::process::{Child, Command};

use crate::{check::audit, load::offer_counted, world::lab};

const LIMIT: Duration = Duration::from_mins(3);
const MESSAGES: usize = 2_000;

/// A stack of the test's own, as `cargo lab up` starts it.
struct Stack {
    up: Child,
    dir: PathBuf,
    gateway: String,
}

impl Stack {
    async fn up() -> Self {
        let dir = std::env::temp_dir().join(format!("unacked-{}", uuid::Uuid::new_v4().simple()));
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let up = Command::new(lab())
            .args(["up", "--yes", "--sender", "2", "--receiver", "3"])
            .args(["--port", &port.to_string()])
            .arg("--lab-dir")
            .arg(&dir)
            .env("WORK_DELAY_MAX_MS", "100")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stack = Self {
            up,
            dir,
            gateway: format!("http://127.0.0.1:{port}"),
        };
        stack.all_ready().await;
        stack
    }

    async fn status(&self) -> Result<Value, String> {
        let status = Command::new(lab())
            .args(["status", "--json", "--lab-dir"])
            .arg(&self.dir)
            .output();
        let output = status.await.map_err(|error| error.to_string())?;
        serde_json::from_slice(&output.stdout)
            .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Waits until the gateway answers and every node says that it is ready.
    async fn all_ready(&self) {
        wait_until("the whole stack to be ready", LIMIT, async || {
            let status = self.status().await?;
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            for node in &nodes {
                let url = format!("{}/health/ready", node["ops"].as_str().unwrap_or_default());
                let answer = reqwest::get(url).await.map_err(|error| error.to_string())?;
                if !answer.status().is_success() {
                    return Err(answer.text().await.unwrap_or_default());
                }
            }
            let page = reqwest::get(&self.gateway)
                .await
                .map_err(|error| error.to_string())?;
            if nodes.len() == 5 && page.status().is_success() {
                Ok(())
            } else {
                Err(status.to_string())
            }
        })
        .await;
    }

    /// Of the process that the harm is for; none while it is being started again.
    async fn pid(&self, harm: &Harm) -> Option<i32> {
        let status = self.status().await.ok()?;
        let pid = match harm.target {
            "sender" | "receiver" => {
                let nodes = status["nodes"].as_array()?;
                nodes.iter().find(|node| node["service"] == harm.target)?["pid"].clone()
            }
            server => status[server]["pid"].clone(),
        };
        i32::try_from(pid.as_i64()?).ok()
    }

    async fn down(mut self) {
        let down = Command::new(lab())
            .args(["down", "--lab-dir"])
            .arg(&self.dir)
            .output()
            .await
            .unwrap();
        assert!(down.status.success(), "{down:?}");
        assert!(self.up.wait().await.unwrap().success());
        let reset = Command::new(lab())
            .args(["reset", "--yes", "--lab-dir"])
            .arg(&self.dir)
            .output();
        assert!(reset.await.unwrap().status.success());
    }
}

impl Drop for Stack {
    /// Only a failed test leaves a stack; it goes as with Ctrl-C.
    fn drop(&mut self) {
        if let Some(pid) = self.up.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM);
        }
    }
}

struct Harm {
    what: &'static str,
    target: &'static str,
    signal: nix::sys::signal::Signal,
}

#[tokio::test]
async fn two_thousand_messages_survive_every_part_being_killed_or_restarted() {
    use nix::sys::signal::Signal::{SIGINT, SIGKILL, SIGTERM};
    // PostgreSQL's fast shutdown is SIGINT: at SIGTERM it waits until its clients have gone.
    let harms = [
        Harm {
            what: "kill -9 of a receiver",
            target: "receiver",
            signal: SIGKILL,
        },
        Harm {
            what: "kill -9 of a sender",
            target: "sender",
            signal: SIGKILL,
        },
        Harm {
            what: "kill -9 of RabbitMQ",
            target: "rabbitmq",
            signal: SIGKILL,
        },
        Harm {
            what: "graceful restart of RabbitMQ",
            target: "rabbitmq",
            signal: SIGTERM,
        },
        Harm {
            what: "graceful restart of Postgres",
            target: "postgres",
            signal: SIGINT,
        },
        Harm {
            what: "graceful restart of Redis",
            target: "redis",
            signal: SIGTERM,
        },
    ];
    let stack = Stack::up().await;
    let accepted = AtomicUsize::new(0);
    let urls = [stack.gateway.clone()];
    let load = offer_counted(&urls, MESSAGES, 16, Duration::from_millis(100), &accepted);
    let ruin = async {
        let mut table = Vec::new();
        for (n, harm) in harms.iter().enumerate() {
            let goal = MESSAGES * (n + 1) / (harms.len() + 2);
            wait_until("some more messages to be accepted", LIMIT, async || {
                accepted.load(Ordering::Relaxed) >= goal
            })
            .await;
            let pid = stack.pid(harm).await.unwrap();
            let began = Instant::now();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), harm.signal).unwrap();
            wait_until("another process in its place", LIMIT, async || {
                stack.pid(harm).await.is_some_and(|now| now != pid)
            })
            .await;
            stack.all_ready().await;
            table.push((harm.what, goal, began.elapsed()));
        }
        table
    };
    let ((), table) = tokio::join!(load, ruin);
    let status = stack.status().await.unwrap();
    let admin = PgPool::connect(status["postgres"]["url"].as_str().unwrap())
        .await
        .unwrap();
    let audit = wait_until("all to be accounted for", LIMIT, async || {
        let audit = audit(&admin).await;
        if audit.is_drained() {
            Ok(audit)
        } else {
            Err(audit)
        }
    })
    .await;
    admin.close().await;
    println!("| harm | at message | all ready again after |");
    for (what, at, took) in table {
        println!("| {what} | {at} | {:.1} s |", took.as_secs_f64());
    }
    println!(
        "accepted {}, processed {}, parked {}, missing {}, twice {}",
        audit.accepted,
        audit.processed,
        audit.parked,
        audit.missing.len(),
        audit.twice.len()
    );
    stack.down().await;
    audit.assert_exactly_once(MESSAGES);
}
