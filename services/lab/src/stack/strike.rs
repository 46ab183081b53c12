//! What a fault does to a program of the stack: hold it dead, pause it, start it again.
//!
//! A program that is held dead is not started again by its keeper, nor by a scaling, until it is released. A program that
//! is paused stays what it was for everybody who does not ask it anything.

use std::fmt;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::servers::Which;
use super::supervisor::Unit;
use super::{Stack, process};
use crate::say::Usage;

/// One program that can be struck.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// By its name.
    Node(String),
    Server(Which),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => f.write_str(name),
            Self::Server(which) => f.write_str(which.title()),
        }
    }
}

/// How a program is made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// SIGKILL, with all its processes.
    Kill,
    /// It is asked to stop, and may finish what it has begun.
    Terminate,
}

impl Stack {
    /// Ends a program and keeps it from being started again.
    pub async fn hold(&self, target: &Target, end: End) -> Result<()> {
        let unit = self.unit(target)?;
        self.held().insert(target.clone());
        match end {
            End::Kill => unit.kill().await,
            End::Terminate => unit.stop().await,
        }
    }

    /// Starts a program that was held, and waits until a server answers. A node is not waited for: it may be not ready
    /// for want of a server that is away.
    pub async fn release(&self, target: &Target) -> Result<()> {
        let unit = self.unit(target)?;
        self.held().remove(target);
        match target {
            Target::Server(_) => unit.start().await,
            Target::Node(_) => unit.start_soon().await,
        }
    }

    /// Stops a program softly and starts it again.
    pub async fn restart(&self, target: &Target) -> Result<()> {
        let unit = self.unit(target)?;
        self.held().insert(target.clone());
        let stopped = unit.stop().await;
        self.release(target).await.and(stopped)
    }

    /// Stops all processes of a program where they are (SIGSTOP).
    pub fn pause(&self, target: &Target) -> Result<()> {
        self.signal(target, Signal::SIGSTOP)
    }

    /// Lets them go on.
    pub fn resume(&self, target: &Target) -> Result<()> {
        self.signal(target, Signal::SIGCONT)
    }

    /// Sets or lifts the broker's memory alarm.
    pub async fn memory_alarm(&self, on: bool) -> Result<()> {
        let broker = self.servers.broker();
        broker
            .context(not_ours(Which::RabbitMq))?
            .memory_alarm(on)
            .await
    }

    /// Its process, while it runs.
    pub fn pid(&self, target: &Target) -> Result<Option<i32>> {
        let pid = self.unit(target)?.pid();
        Ok(pid.and_then(|pid| i32::try_from(pid).ok()))
    }

    fn signal(&self, target: &Target, signal: Signal) -> Result<()> {
        let Some(pid) = self.pid(target)? else {
            bail!("{target} does not run");
        };
        // twice: a process may have got a child between the look and the signal
        for _ in 0..2 {
            for process in process::tree(pid) {
                process::signal(process.pid, signal);
            }
        }
        Ok(())
    }

    fn unit(&self, target: &Target) -> Result<Unit> {
        match target {
            Target::Server(which) => {
                let unit = self.servers.unit(*which).cloned();
                unit.ok_or_else(|| Usage(not_ours(*which)).into())
            }
            Target::Node(name) => {
                let nodes = self.nodes();
                let mut all = nodes.values().flatten();
                let found = all.find(|node| node.place.name == *name);
                let unit = found.map(|node| node.unit.clone());
                unit.ok_or_else(|| Usage(format!("there is no node {name}")).into())
            }
        }
    }
}

fn not_ours(which: Which) -> String {
    format!(
        "{} was given by its URL and is not started by lab",
        which.title()
    )
}
