//! Keeps one program running.
//!
//! It is started again when it ends by itself: first after half a second, then after ever longer pauses up to ten
//! seconds, and again after half a second once it ran well for a while. Programs get a process group of their own, so
//! that the terminal's Ctrl-C reaches only `lab`, which then stops them in order.
//!
//! Whoever started the stack is told of each death and of the restart after it; of restarts that fail one after the
//! other only once.
//!
//! What can go wrong between two lines: a program dies before it ever answered. Then the order to start it fails with
//! the end of its log, and it is not tried again: wrong settings do not heal. A program that ends with
//! [`WRONG_SETTINGS`] is never tried again.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::process;
use super::supervisor::{Condition, Doing, News, Order, Program};

/// The exit code of a service whose settings are wrong.
pub const WRONG_SETTINGS: i32 = 2;

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// After this time of running, a death counts as the first again.
const RAN_WELL: Duration = Duration::from_secs(20);
/// A larger log is put aside at the next start; one older log is kept.
const LOG_MAX: u64 = 20_000_000;
/// What is shown of a long last line.
const LINE_MAX: usize = 300;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Who keeps one program running.
#[derive(Debug)]
pub struct Keeper<P> {
    program: Arc<P>,
    restart: bool,
    inbox: mpsc::Receiver<Order>,
    report: watch::Sender<Condition>,
    news: News,
    pause: Duration,
    /// Restarts in a row that ended before the program answered.
    failures: u32,
}

/// Why a run of the program is over.
enum Over {
    /// It ended by itself.
    Died(ExitStatus),
    /// It was told to.
    Told,
    /// Nobody holds the unit any more.
    Abandoned,
}

impl<P: Program> Keeper<P> {
    /// With `restart` false the program is started only when told.
    pub fn new(
        program: Arc<P>,
        restart: bool,
        inbox: mpsc::Receiver<Order>,
        report: watch::Sender<Condition>,
        news: News,
    ) -> Self {
        Self {
            program,
            restart,
            inbox,
            report,
            news,
            pause: PAUSE_MIN,
            failures: 0,
        }
    }

    /// Obeys until nobody can give an order any more.
    pub async fn run(mut self) {
        while let Some(order) = self.inbox.recv().await {
            match order {
                Order::Start(answer) => {
                    if self.keep(answer).await.is_break() {
                        return;
                    }
                }
                Order::Stop(answer) | Order::Kill(answer) => drop(answer.send(Ok(()))),
            }
        }
    }

    /// Runs the program again and again until it is told to stop. `answer` is given once.
    async fn keep(&mut self, answer: oneshot::Sender<Result<()>>) -> std::ops::ControlFlow<()> {
        use std::ops::ControlFlow::{Break, Continue};
        let mut answer = Some(answer);
        let mut death = None;
        loop {
            self.set(Doing::Starting, None);
            let begun = Instant::now();
            let child = match self.spawn() {
                Ok(child) => child,
                Err(error) => {
                    self.set(Doing::Failed, None);
                    match answer {
                        Some(answer) => drop(answer.send(Err(error))),
                        None => self.tell(format!("cannot be started again: {error:#}")),
                    }
                    return Continue(());
                }
            };
            if let Some(status) = death.take() {
                let restarts = self.report.borrow().restarts;
                let how = ended(status);
                self.tell(format!("ended ({how}), started again (restart {restarts})"));
            }
            let status = match self.attend(child, &mut answer).await {
                Over::Told => {
                    self.set(Doing::Stopped, None);
                    return Continue(());
                }
                Over::Abandoned => return Break(()),
                Over::Died(status) => status,
            };
            let served = self.report.borrow().doing == Doing::Ready;
            self.clear_up().await;
            let refuses = status.code() == Some(WRONG_SETTINGS);
            // who only wanted it to be started does not wait for the answer
            if answer.as_ref().is_some_and(oneshot::Sender::is_closed) {
                answer = None;
            }
            let over = answer.is_some() || refuses || !self.restart;
            if over {
                let end = if self.restart {
                    Doing::Failed
                } else {
                    Doing::Stopped
                };
                self.set(end, None);
            }
            // after the condition was set: who gets this answer looks at it
            if let Some(answer) = answer.take() {
                let words = self.last_words(if refuses { 1 } else { 12 });
                let error = anyhow!("{} {}{words}", self.program.name(), how(status));
                drop(answer.send(Err(error)));
            } else if refuses && self.restart {
                let line = last_line(&self.program.log());
                self.tell(format!(
                    "refuses its settings and is not started again: {line}"
                ));
            }
            if over {
                return Continue(());
            }
            if served {
                death = Some(status);
            } else {
                self.tell_of_failure(status);
            }
            if begun.elapsed() > RAN_WELL {
                self.pause = PAUSE_MIN;
            }
            self.set(Doing::Waiting, None);
            let wait = self.pause;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            match timeout(wait, self.inbox.recv()).await {
                Err(_) => {}
                Ok(None) => return Break(()),
                Ok(Some(Order::Start(new))) => answer = Some(new),
                Ok(Some(Order::Stop(told) | Order::Kill(told))) => {
                    self.set(Doing::Stopped, None);
                    drop(told.send(Ok(())));
                    return Continue(());
                }
            }
            self.report.send_modify(|now| now.restarts += 1);
        }
    }

    fn spawn(&self) -> Result<Child> {
        let path = self.program.log();
        if std::fs::metadata(&path).is_ok_and(|log| log.len() > LOG_MAX) {
            let _ = std::fs::rename(&path, path.with_extension("log.1"));
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = self.program.command();
        command
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log);
        command.process_group(0).kill_on_drop(true);
        let program = command.as_std().get_program().to_owned();
        command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))
    }

    /// From birth to death of one process.
    async fn attend(
        &mut self,
        mut child: Child,
        answer: &mut Option<oneshot::Sender<Result<()>>>,
    ) -> Over {
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .unwrap_or_default();
        self.set(Doing::Starting, child.id());
        let begun = Instant::now();
        let mut ready = false;
        loop {
            let order = tokio::select! {
                status = child.wait() => match status {
                    Ok(status) => return Over::Died(status),
                    Err(_) => return Over::Abandoned,
                },
                order = self.inbox.recv() => order,
                answers = look(&*self.program), if !ready => {
                    match answers {
                        Ok(()) => {
                            ready = true;
                            self.set(Doing::Ready, child.id());
                            if std::mem::take(&mut self.failures) > 0 {
                                let restarts = self.report.borrow().restarts;
                                self.tell(format!("is ready again (restart {restarts})"));
                            }
                            if let Some(answer) = answer.take() {
                                drop(answer.send(Ok(())));
                            }
                        }
                        Err(why) if begun.elapsed() > self.program.start_limit() => {
                            if let Some(answer) = answer.take() {
                                drop(answer.send(Err(self.too_slow(&why))));
                            }
                        }
                        Err(_) => {}
                    }
                    continue;
                }
            };
            match order {
                Some(Order::Start(new)) if ready => drop(new.send(Ok(()))),
                Some(Order::Start(new)) => *answer = Some(new),
                Some(Order::Stop(told)) => {
                    self.set(Doing::Stopping, child.id());
                    self.stop(&mut child, pid).await;
                    drop(told.send(Ok(())));
                    return Over::Told;
                }
                Some(Order::Kill(told)) => {
                    self.kill(&mut child, pid).await;
                    drop(told.send(Ok(())));
                    return Over::Told;
                }
                None => {
                    self.stop(&mut child, pid).await;
                    return Over::Abandoned;
                }
            }
        }
    }

    async fn stop(&self, child: &mut Child, pid: i32) {
        process::signal(pid, self.program.stop_signal());
        for process in process::tree(pid) {
            process::signal(process.pid, Signal::SIGCONT);
        }
        if timeout(self.program.stop_limit(), child.wait())
            .await
            .is_err()
        {
            self.kill(child, pid).await;
        }
        self.clear_up().await;
    }

    async fn kill(&self, child: &mut Child, pid: i32) {
        for process in process::tree(pid) {
            process::signal(process.pid, Signal::SIGKILL);
        }
        drop(child.wait().await);
        self.clear_up().await;
    }

    /// Processes that outlived their parent would keep its port or its memory.
    async fn clear_up(&self) {
        if let Some(home) = self.program.home() {
            let left = process::working_in(home);
            process::end(&left, Duration::from_secs(1)).await;
        }
    }

    fn too_slow(&self, why: &anyhow::Error) -> anyhow::Error {
        let limit = self.program.start_limit().as_secs();
        anyhow!(
            "{} does not answer after {limit} s: {why:#}{}",
            self.program.name(),
            self.last_words(12)
        )
    }

    fn last_words(&self, count: usize) -> String {
        let path = self.program.log();
        let text = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        match &lines[lines.len().saturating_sub(count)..] {
            [] => format!("; {} is empty", path.display()),
            [line] => format!(": {line}"),
            end => format!(
                ". The end of {}:\n    {}",
                path.display(),
                end.join("\n    ")
            ),
        }
    }

    /// It ended before it was ready. Tried again and again, it would end for the same reason: said once.
    fn tell_of_failure(&mut self, status: ExitStatus) {
        self.failures += 1;
        if self.failures == 1 {
            let (how, line) = (ended(status), last_line(&self.program.log()));
            self.tell(format!(
                "ended ({how}) before it was ready and is tried again, which is not told each time. Its last words: {line}"
            ));
        }
    }

    fn tell(&self, what: impl std::fmt::Display) {
        // nobody needs to listen
        let _ = self.news.send(format!("{} {what}", self.program.name()));
    }

    fn set(&self, doing: Doing, pid: Option<u32>) {
        self.report.send_modify(|now| {
            now.doing = doing;
            now.pid = pid;
        });
    }
}

/// Asks whether the program answers, with a deadline, and not too often.
async fn look<P: Program>(program: &P) -> Result<()> {
    sleep(LOOK_EVERY).await;
    match timeout(Duration::from_secs(2), program.answers()).await {
        Ok(answer) => answer,
        Err(_) => bail!("it took the question and did not answer within 2 s"),
    }
}

/// The last line of a log, of a JSON line only its message.
fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    let line = line.unwrap_or("none").trim();
    let message = serde_json::from_str::<Value>(line)
        .ok()
        .and_then(|line| Some(line["message"].as_str()?.to_owned()));
    let words = message.unwrap_or_else(|| line.to_owned());
    if words.chars().count() > LINE_MAX {
        words.chars().take(LINE_MAX).chain(['…']).collect()
    } else {
        words
    }
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "nobody knows how".to_owned(),
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(WRONG_SETTINGS), _) => "refuses its settings".to_owned(),
        (Some(code), _) => format!("ended with code {code} before it answered"),
        (None, Some(signal)) => format!("was ended by signal {signal} before it answered"),
        (None, None) => "ended before it answered".to_owned(),
    }
}
