//! Life and death of a process: everything that runs is spawned here.
//!
//! A task that dies (ends too early, errs, panics) takes the process down with a failing exit
//! code; there are no zombies with a dead relay and a healthy page. Stopping is soft first: the
//! token says stop, tasks finish what they have in hand, up to the limit. Then it is hard:
//! [`Lifecycle::finish`] names who is still running and gives up. A second signal does not wait.
//!
//! A cancelled runtime drops what is left wherever it stands, as a crash would; every row, lease
//! and delivery must survive that anyway.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{WrongSetting, settings::complain};

const FAILED: u8 = 1;

/// The life of this process. Clones share everything.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

struct Inner {
    limit: Duration,
    stop: CancellationToken,
    tasks: TaskTracker,
    running: Mutex<BTreeMap<u64, &'static str>>,
    next: AtomicU64,
    /// The exit code of the first failure.
    failure: Mutex<Option<u8>>,
}

impl Lifecycle {
    /// A life that, once asked to stop, gives its tasks this long.
    pub fn new(limit: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                limit,
                stop: CancellationToken::new(),
                tasks: TaskTracker::new(),
                running: Mutex::default(),
                next: AtomicU64::new(0),
                failure: Mutex::default(),
            }),
        }
    }

    /// Cancelled as soon as the process is asked to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// Asks everything to stop.
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }

    /// Asks everything to stop, because of this. The process will exit with 2 if this is a
    /// [`WrongSetting`], else with 1; the first failure decides.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "who fails gives the error away"
    )]
    pub fn fail(&self, error: anyhow::Error) {
        let code = if let Some(wrong) = error.downcast_ref::<WrongSetting>() {
            let arguments: Vec<_> = std::env::args_os().collect();
            let _ = wrong.clone().as_given(&arguments).report();
            WrongSetting::EXIT_CODE
        } else {
            tracing::error!("failed: {error:#}");
            FAILED
        };
        lock(&self.inner.failure).get_or_insert(code);
        self.stop();
    }

    /// Runs a task for as long as the process lives. If it ends before stop was asked, errs or
    /// panics, everything stops and the process fails.
    pub fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.run(name, true, task);
    }

    /// Runs a task that may end when its work is done. If it errs or panics, everything stops and
    /// the process fails.
    pub fn spawn_once(
        &self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.run(name, false, task);
    }

    fn run(
        &self,
        name: &'static str,
        for_life: bool,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let life = self.clone();
        let running = Running::new(self, name);
        self.inner.tasks.spawn(async move {
            let _running = running;
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) if for_life && !life.inner.stop.is_cancelled() => {
                    life.fail(anyhow::anyhow!("the task {name} ended by itself"));
                }
                Ok(Ok(())) => tracing::debug!(task = name, "ended"),
                Ok(Err(error)) => life.fail(error.context(format!("the task {name}"))),
                // The panic itself was logged by the panic hook.
                Err(_panic) => life.fail(anyhow::anyhow!("the task {name} panicked")),
            }
        });
    }

    /// From now on SIGTERM and SIGINT ask everything to stop, and a second one ends the process
    /// at once.
    pub fn on_signals(&self) {
        let signals =
            signal(SignalKind::terminate()).and_then(|t| Ok((t, signal(SignalKind::interrupt())?)));
        match signals {
            Ok((term, int)) => self.listen(term, int),
            Err(error) => self.fail(anyhow::Error::new(error).context("listening for signals")),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the Lifecycle; it must outlive stop"
    )]
    fn listen(&self, mut term: Signal, mut int: Signal) {
        let life = self.clone();
        tokio::spawn(async move {
            let next = async || {
                tokio::select! {
                    _ = term.recv() => "SIGTERM",
                    _ = int.recv() => "SIGINT",
                }
            };
            let mut next = next;
            let first = next().await;
            tracing::info!(signal = first, "stopping");
            life.stop();
            let second = next().await;
            tracing::warn!(signal = second, "stopping at once");
            // No runtime, no destructors: now.
            std::process::exit(i32::from(FAILED));
        });
    }

    /// Waits until stop is asked, then until all tasks have ended, at most up to the limit. What
    /// still runs then is named, and the process fails.
    pub async fn finish(self) -> ExitCode {
        ExitCode::from(self.finish_with_code().await)
    }

    async fn finish_with_code(self) -> u8 {
        self.inner.stop.cancelled().await;
        self.inner.tasks.close();
        if timeout(self.inner.limit, self.inner.tasks.wait())
            .await
            .is_err()
        {
            let running = self.running();
            let limit = self.inner.limit;
            tracing::error!(?running, ?limit, "giving up on tasks that do not end");
            return lock(&self.inner.failure).unwrap_or(FAILED);
        }
        lock(&self.inner.failure).unwrap_or(0)
    }

    /// The names of the tasks that run now.
    pub fn running(&self) -> Vec<&'static str> {
        lock(&self.inner.running).values().copied().collect()
    }
}

/// Runs a whole process: a runtime, signals, what `start` spawns, and the wait for the end.
///
/// `start` spawns its tasks and returns; an error of it ends the process. What is left at the end
/// is dropped without waiting for it.
pub fn run_process<F, Fut>(limit: Duration, start: F) -> ExitCode
where
    F: FnOnce(Lifecycle) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("no runtime: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    let code = runtime.block_on(async {
        let lifecycle = Lifecycle::new(limit);
        lifecycle.on_signals();
        let stopping = lifecycle.stopping();
        // A start that hangs must not outlive a signal.
        let started = tokio::select! {
            started = start(lifecycle.clone()) => started,
            () = stopping.cancelled() => Ok(()),
        };
        if let Err(error) = started {
            lifecycle.fail(error);
        }
        lifecycle.finish().await
    });
    runtime.shutdown_background();
    code
}

/// Keeps a task's name in the list of what runs.
struct Running {
    life: Lifecycle,
    number: u64,
}

impl Running {
    fn new(life: &Lifecycle, name: &'static str) -> Self {
        let number = life.inner.next.fetch_add(1, Ordering::Relaxed);
        lock(&life.inner.running).insert(number, name);
        Self {
            life: life.clone(),
            number,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.life.inner.running).remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life() -> Lifecycle {
        Lifecycle::new(Duration::from_secs(10))
    }

    #[tokio::test]
    async fn a_task_that_ends_when_asked_is_a_clean_exit() {
        let life = life();
        let stopping = life.stopping();
        life.spawn("loop", async move {
            stopping.cancelled().await;
            Ok(())
        });
        assert_eq!(life.running(), ["loop"]);
        life.stop();
        assert_eq!(life.finish_with_code().await, 0);
    }

    #[tokio::test]
    async fn a_signal_asks_everything_to_stop() {
        let life = life();
        life.on_signals();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        timeout(Duration::from_secs(5), life.stopping().cancelled())
            .await
            .unwrap();
        assert_eq!(life.finish_with_code().await, 0);
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_takes_the_process_down() {
        let life = life();
        life.spawn("loop", async { Ok(()) });
        assert_eq!(life.finish_with_code().await, 1);
    }

    #[tokio::test]
    async fn a_task_that_panics_takes_the_process_down() {
        let life = life();
        life.spawn_once("work", async { panic!("on purpose") });
        assert_eq!(life.finish_with_code().await, 1);
    }

    #[tokio::test]
    async fn a_task_that_errs_takes_the_process_down_with_the_code_of_the_first_error() {
        let life = life();
        life.spawn("settings", async {
            Err(WrongSetting::new("X", "1", "2").into())
        });
        life.stopping().cancelled().await;
        life.fail(anyhow::anyhow!("later"));
        assert_eq!(life.finish_with_code().await, 2);
    }

    #[tokio::test]
    async fn work_may_end() {
        let life = life();
        life.spawn_once("work", async { Ok(()) });
        tokio::task::yield_now().await;
        assert!(!life.stopping().is_cancelled());
        life.stop();
        assert_eq!(life.finish_with_code().await, 0);
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_given_up_after_the_limit() {
        let life = Lifecycle::new(Duration::from_millis(50));
        life.spawn("stuck", std::future::pending());
        life.stop();
        let start = tokio::time::Instant::now();
        assert_eq!(life.finish_with_code().await, 1);
        assert!(start.elapsed() >= Duration::from_millis(50));
    }
}
