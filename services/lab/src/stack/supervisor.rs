//! Programs that are kept running, seen from outside.
//!
//! A [`Unit`] starts its program, waits until it answers, and starts it again when it ends by itself. How that is done,
//! and what can go wrong, is in [`keeper`](super::keeper).

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::FutureExt;
use futures::future::BoxFuture;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

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
    /// It was told to stop, and finishes what it has begun.
    Stopping,
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
    /// Why it does not serve although it runs; looked for only when somebody asks.
    pub missing: Option<String>,
}

/// How long a program that serves may take to answer when somebody wants to know its state.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

impl Condition {
    /// With the answer to whether it serves now.
    pub async fn after(mut self, answer: impl Future<Output = Result<()>>) -> Self {
        self.missing = match timeout(LOOK_LIMIT, answer).await {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(in_one_line(&why)),
            Err(_) => Some("it does not answer".to_owned()),
        };
        if self.missing.is_some() {
            self.doing = Doing::Unready;
        }
        self
    }
}

fn in_one_line(why: &anyhow::Error) -> String {
    let text = format!("{why:#}");
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// Where it is told that a program ended by itself and what became of it. Nobody needs to listen.
pub type News = mpsc::UnboundedSender<String>;

/// What a keeper can be told; the answer comes when it is done.
#[derive(Debug)]
pub enum Order {
    Start(oneshot::Sender<Result<()>>),
    Stop(oneshot::Sender<Result<()>>),
    Kill(oneshot::Sender<Result<()>>),
}

/// A program that is kept running, seen from outside.
#[derive(Clone)]
pub struct Unit {
    orders: mpsc::Sender<Order>,
    condition: watch::Receiver<Condition>,
    program: Arc<dyn Answers>,
}

/// A program, for those who only want to know whether it serves.
trait Answers: Send + Sync {
    fn answers(&self) -> BoxFuture<'_, Result<()>>;
}

impl<P: Program> Answers for P {
    fn answers(&self) -> BoxFuture<'_, Result<()>> {
        Program::answers(self).boxed()
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let condition = self.condition();
        f.debug_struct("Unit")
            .field("condition", &condition)
            .finish_non_exhaustive()
    }
}

impl Unit {
    /// Takes charge of a program, which is not started yet. It ends with the set of tasks or when the last handle is gone.
    /// With `restart` false it is started only when told.
    pub fn new<P: Program>(
        program: P,
        restart: bool,
        news: &News,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let program = Arc::new(program);
        let (orders, inbox) = mpsc::channel(4);
        let idle = Condition {
            doing: Doing::Stopped,
            pid: None,
            restarts: 0,
            missing: None,
        };
        let (report, condition) = watch::channel(idle);
        let keeper = Keeper::new(Arc::clone(&program), restart, inbox, report, news.clone());
        tasks.spawn(keeper.run());
        Self {
            orders,
            condition,
            program,
        }
    }

    /// Starts the program and comes back when it answers.
    pub async fn start(&self) -> Result<()> {
        self.order(Order::Start).await
    }

    /// Starts the program and comes back when that is under way.
    pub async fn start_soon(&self) -> Result<()> {
        let (answer, _) = oneshot::channel();
        let sent = self.orders.send(Order::Start(answer)).await;
        sent.map_err(|_| anyhow!("nobody keeps it any more"))
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

    /// What it is doing now; one that is said to be ready is asked.
    pub async fn look(&self) -> Condition {
        let before = self.condition();
        if before.doing != Doing::Ready {
            return before;
        }
        let after = before.after(self.program.answers()).await;
        let now = self.condition();
        // it may have ended meanwhile, which says more
        if now.doing == Doing::Ready {
            after
        } else {
            now
        }
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.condition.borrow().pid
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use testkit::wait_until;

    use super::*;
    use crate::stack::process;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Serves while there is a file `up`, and hangs while there is one called `hangs`.
    #[derive(Debug, Clone)]
    struct Scripted {
        folder: PathBuf,
        script: &'static str,
    }

    impl Scripted {
        fn new(script: &'static str) -> Self {
            let folder = std::env::temp_dir().join(format!("lab-{:08x}", rand::random::<u32>()));
            fs::create_dir(&folder).unwrap();
            Self { folder, script }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.folder.join(name)
        }
    }

    impl Program for Scripted {
        fn name(&self) -> String {
            "scripted".to_owned()
        }

        fn command(&self) -> Command {
            let mut command = Command::new("sh");
            command.args(["-c", self.script]).current_dir(&self.folder);
            command
        }

        async fn answers(&self) -> Result<()> {
            if self.file("hangs").exists() {
                std::future::pending::<()>().await;
            }
            anyhow::ensure!(self.file("up").exists(), "it is\nnot up");
            Ok(())
        }

        fn log(&self) -> PathBuf {
            self.file("log")
        }
    }

    struct Kept {
        program: Scripted,
        unit: Unit,
        news: mpsc::UnboundedReceiver<String>,
        _tasks: JoinSet<()>,
    }

    impl Kept {
        async fn start(script: &'static str) -> Self {
            let program = Scripted::new(script);
            let (told, news) = mpsc::unbounded_channel();
            let mut tasks = JoinSet::new();
            let unit = Unit::new(program.clone(), true, &told, &mut tasks);
            unit.start().await.unwrap();
            Self {
                program,
                unit,
                news,
                _tasks: tasks,
            }
        }

        /// No run after this one serves unless its script says so.
        fn kill(&self) {
            fs::remove_file(self.program.file("up")).unwrap();
            let pid = i32::try_from(self.unit.pid().unwrap()).unwrap();
            process::signal(pid, Signal::SIGKILL);
        }

        async fn told(&mut self) -> String {
            timeout(LIMIT, self.news.recv()).await.unwrap().unwrap()
        }

        async fn end(self) {
            self.unit.stop().await.unwrap();
            fs::remove_dir_all(self.program.folder).unwrap();
        }
    }

    #[tokio::test]
    async fn each_death_is_told_with_the_restart_after_it() {
        let mut kept = Kept::start("touch up; exec sleep 600").await;
        for restart in 1..=2 {
            kept.kill();
            let said = format!("scripted ended (signal 9), started again (restart {restart})");
            assert_eq!(kept.told().await, said);
            wait_until("it to serve again", LIMIT, async || {
                kept.unit.condition().doing == Doing::Ready
            })
            .await;
        }
        assert!(kept.news.try_recv().is_err());
        kept.end().await;
    }

    #[tokio::test]
    async fn restarts_that_fail_are_told_once() {
        let script = "test -e broken && { echo {\\\"message\\\":\\\"no luck\\\"}; exit 1; }; touch up; exec sleep 600";
        let mut kept = Kept::start(script).await;
        fs::write(kept.program.file("broken"), "").unwrap();
        kept.kill();
        assert_eq!(
            kept.told().await,
            "scripted ended (signal 9), started again (restart 1)"
        );
        let log = kept.program.log();
        wait_until("two restarts to fail", LIMIT, async || {
            fs::read_to_string(&log).unwrap().lines().count() >= 2
        })
        .await;
        fs::remove_file(kept.program.file("broken")).unwrap();
        let failed = kept.told().await;
        assert!(
            failed.starts_with("scripted ended (exit code 1) before it was ready")
                && failed.ends_with(": no luck"),
            "{failed}"
        );
        let back = kept.told().await;
        assert!(
            back.starts_with("scripted is ready again (restart "),
            "{back}"
        );
        kept.end().await;
    }

    #[tokio::test]
    async fn a_restart_that_refuses_its_settings_is_the_last() {
        let script =
            "test -e broken && { echo wrong setting X; exit 2; }; touch up; exec sleep 600";
        let mut kept = Kept::start(script).await;
        fs::write(kept.program.file("broken"), "").unwrap();
        kept.kill();
        kept.told().await;
        assert_eq!(
            kept.told().await,
            "scripted refuses its settings and is not started again: wrong setting X"
        );
        assert_eq!(kept.unit.look().await.doing, Doing::Failed);
        kept.end().await;
    }

    #[tokio::test]
    async fn what_is_said_to_be_ready_is_asked() {
        let kept = Kept::start("touch up; exec sleep 600").await;
        let looked = async || {
            let now = kept.unit.look().await;
            (now.doing, now.missing)
        };
        assert_eq!(looked().await, (Doing::Ready, None));
        fs::write(kept.program.file("hangs"), "").unwrap();
        let hangs = Some("it does not answer".to_owned());
        assert_eq!(looked().await, (Doing::Unready, hangs));
        fs::remove_file(kept.program.file("hangs")).unwrap();
        fs::remove_file(kept.program.file("up")).unwrap();
        let first_line = Some("it is".to_owned());
        assert_eq!(looked().await, (Doing::Unready, first_line));
        assert_eq!(kept.unit.condition().doing, Doing::Ready);
        kept.end().await;
    }
}
