//! The whole native stack under load, while one part after the other is killed or restarted: what was
//! accepted is processed, once, and nobody restarts anything by hand.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::PgPool;
use testkit::wait_until;

use crate::{
    check::audit,
    load::offer_counted,
    up::{LIMIT, Stack, said, signal},
};

const MESSAGES: usize = 2_000;

/// Waits until the gateway answers and every node says that it is ready.
async fn all_ready(stack: &Stack) {
    wait_until("the whole stack to be ready", LIMIT, async || {
        let status = stack.status().await?;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        for node in &nodes {
            let url = format!("{}/health/ready", node["ops"].as_str().unwrap_or_default());
            let answer = reqwest::get(url).await.map_err(|error| error.to_string())?;
            if !answer.status().is_success() {
                return Err(answer.text().await.unwrap_or_default());
            }
        }
        let page = reqwest::get(&stack.gateway)
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
async fn pid(stack: &Stack, harm: &Harm) -> Option<Value> {
    let status = stack.status().await.ok()?;
    let pid = match harm.target {
        "sender" | "receiver" => {
            let nodes = status["nodes"].as_array()?;
            nodes.iter().find(|node| node["service"] == harm.target)?["pid"].clone()
        }
        server => status[server]["pid"].clone(),
    };
    pid.is_i64().then_some(pid)
}

struct Harm {
    what: &'static str,
    target: &'static str,
    signal: Signal,
}

#[tokio::test]
async fn two_thousand_messages_survive_every_part_being_killed_or_restarted() {
    use Signal::{SIGINT, SIGKILL, SIGTERM};
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
    let mut stack = Stack::up(2, 3, &[("WORK_DELAY_MAX_MS", "100")]).await;
    all_ready(&stack).await;
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
            let before = pid(&stack, harm).await.unwrap();
            let began = Instant::now();
            signal(&before, harm.signal);
            wait_until("another process in its place", LIMIT, async || {
                pid(&stack, harm).await.is_some_and(|now| now != before)
            })
            .await;
            all_ready(&stack).await;
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
    let down = stack.lab(&["down"]).await;
    assert!(down.status.success(), "{}", said(&down));
    assert!(stack.up.wait().await.unwrap().success());
    stack.reset().await;
    audit.assert_exactly_once(MESSAGES);
}
