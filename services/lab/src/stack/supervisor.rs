//! Programs that are kept running, seen from outside.
//!
//! A [`Unit`] starts its program, waits until it answers, and starts it again when it ends by itself. How that is done,
//! and what can go wrong, is in [`keeper`](super::keeper).

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::keeper::Keeper;

/// Something that can be kept running.
pub trait Program: Send + Sync + 'static {
    /// What people call it.
    fn name(&self) -> String;
    /// The command, complete but for its standard streams.
    fn command(&self) -> Command;
    /// Asks it once whether it serves.
    fn answers(&self) -> impl Future<Output = Result<()>> + Send;
    /// Where its output goes.
    fn log(&self) -> PathBuf;
    /// How it is asked to stop.
    fn stop_signal(&self) -> Signal {
        Signal::SIGTERM
    }
    /// How long it may take to stop before it is killed.
    fn stop_limit(&self) -> Duration {
        Duration::from_secs(20)
    }
    /// How long it may take to answer.
    fn start_limit(&self) -> Duration {
        Duration::from_mins(1)
    }
    /// The folder that only its own processes work in: what is left there after its death is ended too.
    fn home(&self) -> Option<&Path> {
        None
    }
}

/// What a program is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Doing {
    Stopped,
    Starting,
    Ready,
    /// It did answer, but does not serve now: a part that it needs is missing.
    Unready,
    /// Died by itself; waits before the next try.
    Waiting,
    /// Given up.
    Failed,
}

/// What is known of a program now.
#[derive(Debug, Clone)]
pub struct Condition {
    pub doing: Doing,
    pub pid: Option<u32>,
    /// How often it was started again after ending by itself.
    pub restarts: u32,
}

/// What a keeper can be told; the answer comes when it is done.
#[derive(Debug)]
pub enum Order {
    Start(oneshot::Sender<Result<()>>),
    Stop(oneshot::Sender<Result<()>>),
    Kill(oneshot::Sender<Result<()>>),
}

/// A program that is kept running, seen from outside.
#[derive(Debug, Clone)]
pub struct Unit {
    orders: mpsc::Sender<Order>,
    condition: watch::Receiver<Condition>,
}

impl Unit {
    /// Takes charge of a program, which is not started yet. It ends with the set of tasks or when the last handle is gone.
    /// With `restart` false it is started only when told.
    pub fn new<P: Program>(program: P, restart: bool, tasks: &mut JoinSet<()>) -> Self {
        let (orders, inbox) = mpsc::channel(4);
        let idle = Condition {
            doing: Doing::Stopped,
            pid: None,
            restarts: 0,
        };
        let (report, condition) = watch::channel(idle);
        tasks.spawn(Keeper::new(program, restart, inbox, report).run());
        Self { orders, condition }
    }

    /// Starts the program and comes back when it answers.
    pub async fn start(&self) -> Result<()> {
        self.order(Order::Start).await
    }

    /// Stops it softly; kills it when that takes too long.
    pub async fn stop(&self) -> Result<()> {
        self.order(Order::Stop).await
    }

    /// Kills it with all its processes; it stays dead until it is started.
    pub async fn kill(&self) -> Result<()> {
        self.order(Order::Kill).await
    }

    async fn order(&self, order: fn(oneshot::Sender<Result<()>>) -> Order) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.orders
            .send(order(answer))
            .await
            .map_err(|_| anyhow!("nobody keeps it any more"))?;
        answered.await.context("nobody keeps it any more")?
    }

    /// What it is doing now.
    pub fn condition(&self) -> Condition {
        self.condition.borrow().clone()
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.condition.borrow().pid
    }
}
