//! `lab servers`: private servers for tests, driven by lines on standard input.
//!
//! Prints one line of JSON when all three serve. Then each line `kill|stop|start|pause|resume postgres|redis|rabbitmq`
//! is done and answered by `ok` or `error: ..`, and so are `alarm on|off` and `consumer-timeout MS` of RabbitMQ. When
//! standard input ends, and so also when the process at its other end dies, everything is stopped and the folder removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::say::{self, Steps};
use crate::stack::dir::{self, LabDir};
use crate::stack::postgres::{self, Durability};
use crate::stack::process;
use crate::stack::servers::{Given, Servers, Which};
use crate::stack::supervisor::Unit;

/// The servers' folders: only processes in these may be ended as left-overs.
const HOMES: [&str; 4] = ["postgres", "redis", "rabbitmq", "epmd"];

/// Runs until standard input ends.
pub async fn run(root: &Path) -> Result<()> {
    let dir = LabDir::open(root)?;
    let Some(_lock) = dir::lock(dir.root())? else {
        bail!("other servers run in {}", dir.root().display());
    };
    let mut tasks = JoinSet::new();
    let result = serve(&dir, &mut tasks).await;
    drop(tasks);
    remove(&dir).await;
    result
}

async fn serve(dir: &LabDir, tasks: &mut JoinSet<()>) -> Result<()> {
    let given = Given::default();
    let (news, _) = mpsc::unbounded_channel();
    let durability = Durability::OfProcess;
    let servers = Servers::prepare(dir, &given, durability, false, &news, tasks).await?;
    // progress is for people: standard output holds only the protocol
    let quiet = |_: &str| {};
    let steps = Steps::new(&quiet);
    let mut ended = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let work = async {
        servers.start(dir, &steps).await?;
        say::line(describe(dir, &servers));
        while let Some(line) = lines
            .next_line()
            .await
            .context("cannot read standard input")?
        {
            match obey(&servers, line.trim()).await {
                Ok(()) => say::line("ok"),
                Err(error) => say::line(format!(
                    "error: {}",
                    format!("{error:#}").replace('\n', " ")
                )),
            }
        }
        Ok(())
    };
    let result = tokio::select! {
        result = work => result,
        _ = ended.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
        _ = hung_up.recv() => Ok(()),
    };
    // the data are thrown away: nobody waits for a graceful end
    for which in Which::ALL {
        if let Some(unit) = servers.unit(which) {
            drop(unit.kill().await);
        }
    }
    servers.stop(&steps).await;
    result
}

async fn obey(servers: &Servers, line: &str) -> Result<()> {
    let (deed, name) = line.split_once(' ').unwrap_or((line, ""));
    let broker = || servers.broker().context("it is not ours");
    match deed {
        "alarm" => return broker()?.memory_alarm(name.trim() == "on").await,
        "consumer-timeout" => {
            let millis = name.trim().parse();
            let millis =
                millis.with_context(|| format!("`{name}` is no number of milliseconds"))?;
            return broker()?
                .consumer_timeout(Duration::from_millis(millis))
                .await;
        }
        _ => {}
    }
    let which = Which::parse(name.trim());
    let which = which.with_context(|| format!("`{name}` is none of postgres, redis, rabbitmq"))?;
    let unit = servers.unit(which).context("it is not ours")?;
    match deed {
        "start" => unit.start().await,
        "stop" => unit.stop().await,
        "kill" => unit.kill().await,
        "pause" => all(unit.pid(), Signal::SIGSTOP),
        "resume" => all(unit.pid(), Signal::SIGCONT),
        _ => bail!("`{deed}` is none of start, stop, kill, pause, resume, alarm, consumer-timeout"),
    }
}

fn all(pid: Option<u32>, signal: Signal) -> Result<()> {
    let pid = pid
        .and_then(|pid| i32::try_from(pid).ok())
        .context("it does not run")?;
    for process in process::tree(pid) {
        process::signal(process.pid, signal);
    }
    Ok(())
}

fn describe(dir: &LabDir, servers: &Servers) -> Value {
    let (addresses, secrets) = (&servers.addresses, dir.secrets());
    let pid = |which| servers.unit(which).and_then(Unit::pid);
    json!({
        "postgres": {
            "url": addresses.database,
            "passwords": BTreeMap::from(secrets.of_roles()),
            "pid": pid(Which::Postgres),
        },
        "redis": { "url": addresses.redis, "pid": pid(Which::Redis) },
        "rabbitmq": {
            "amqp": addresses.amqp,
            "management": addresses.management,
            "pid": pid(Which::RabbitMq),
        },
        "dir": dir.root(),
    })
}

async fn remove(dir: &LabDir) {
    let homes: Vec<PathBuf> = HOMES.iter().map(|name| dir.root().join(name)).collect();
    let outside = postgres::outside(dir.root());
    let homes = [homes, vec![outside.clone()]].concat();
    let mut left = process::of_stack(dir.root(), &homes);
    let me = std::process::id();
    left.retain(|process| u32::try_from(process.pid) != Ok(me));
    process::end(&left, Duration::from_secs(1)).await;
    let _ = std::fs::remove_dir_all(outside);
    let _ = std::fs::remove_dir_all(dir.root());
}
