//! `lab up`: starts the stack and stays until it is told to stop.
//!
//! The order matters: first the lock (one stack per folder), then what an earlier one left behind is ended, then the
//! gateway's port is looked at before anything slow begins. A signal, at any moment after that, stops what was started;
//! a second one kills it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::time::{sleep, timeout};

use crate::faults;
use crate::say::{self, Steps};
use crate::settings;
use crate::stack::control::{self, Control, Request};
use crate::stack::dir::{self, LabDir};
use crate::stack::install::{self, NGINX};
use crate::stack::node::Service;
use crate::stack::servers::Given;
use crate::stack::supervisor::News;
use crate::stack::{Options, Plan, Stack, clear_up, ports, process};

/// How long a stack that stops may heal what is in the broker's data; the next one does it too.
const CLEAR_LIMIT: Duration = Duration::from_secs(5);

/// The most nodes of one service.
pub const NODES_MAX: usize = 64;

#[derive(Debug, Args)]
pub struct Up {
    /// How many senders: they show the first page and accept messages
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = count)]
    pub sender: usize,
    /// How many receivers: they process the messages
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = count)]
    pub receiver: usize,
    /// The gateway's port on 127.0.0.1
    #[arg(long, default_value_t = 8080, env = "LAB_PORT")]
    pub port: u16,
    /// Install missing server programs without asking
    #[arg(long)]
    pub yes: bool,
    /// Put a proxy between each node and each server, so that links can be made slow, silent or be cut
    #[arg(long)]
    pub faults: bool,
    /// Leave the console at /lab out
    #[arg(long)]
    pub no_console: bool,
    /// Guarantees to switch off in all nodes, with commas between them, as WITHOUT does: see `lab sender --help`
    #[arg(long, value_name = "GUARANTEES")]
    pub without: Option<String>,
    #[command(flatten)]
    pub given: Given,
}

/// A number of nodes.
pub fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count <= NODES_MAX => Ok(count),
        _ => Err(format!("a number from 0 to {NODES_MAX} is needed")),
    }
}

/// Starts the stack, waits, stops it.
pub async fn run(root: PathBuf, up: Up) -> Result<ExitCode> {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Err(wrong) = settings::check(&up.given, up.without.as_deref(), &arguments) {
        return Ok(wrong.report());
    }
    let mut ends = Ends::new()?;
    dir::make_folder(&root, 0o711)?;
    let root = root.canonicalize()?;
    let Some(_lock) = dir::lock(&root)? else {
        bail!("{}", already_running(&root).await);
    };
    let (lines, _) = broadcast::channel(100);
    let tell = |text: &str| {
        say::line(text);
        // also to those who asked for the end over the control socket
        let _ = lines.send(text.to_owned());
    };
    let steps = Steps::new(&tell);
    let (news, mut told) = mpsc::unbounded_channel();
    let prepared = tokio::select! {
        stack = prepare(&root, &up, news, &steps) => stack?,
        () = ends.next() => bail!("interrupted"),
    };
    let stack = Arc::new(prepared);
    let (control, down) = (Control::open(&root)?, Arc::new(Notify::new()));
    let plan = Plan::from([
        (Service::Sender, up.sender),
        (Service::Receiver, up.receiver),
    ]);
    let work = async {
        stack.start_servers(&steps).await?;
        // what an earlier stack was hurt by and left in the broker's data
        clear_faults(&stack, &tell).await;
        stack.start_nodes(&plan, &steps).await?;
        steps.note(welcome(&root, &stack, &steps));
        std::future::pending::<Result<()>>().await
    };
    let life = async {
        let result = tokio::select! {
            result = work => result,
            () = ends.next() => Ok(()),
            () = down.notified() => Ok(()),
        };
        if let Err(error) = &result {
            say::complain(format!("lab: {error:#}"));
        }
        let begun = Instant::now();
        tell("Stopping. Ctrl-C again kills everything at once.");
        let stopped = async {
            let cleared = clear_faults(&stack, &tell);
            drop(timeout(CLEAR_LIMIT, cleared).await);
            stack.stop(&steps).await;
        };
        tokio::select! {
            () = stopped => {}
            () = ends.next() => {
                tell("Killing everything.");
                stack.abort();
                clear_up(&root).await;
            }
        }
        let (time, reset) = (say::seconds(begun.elapsed()), dir::command(&root, "reset"));
        let root = root.display();
        tell(&format!(
            "Stopped in {time}. The data stay in {root}; `{reset}` removes them."
        ));
        // the last line is still on its way to whoever asked for the end
        sleep(Duration::from_millis(50)).await;
        result
    };
    let result = tokio::select! {
        result = life => result,
        () = pass_on(&mut told, &tell) => Ok(()),
        () = control.serve(&stack, &down, &lines) => Ok(()),
    };
    Ok(if result.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Heals or forgets the faults that are on disk. One that cannot be healed now stays there.
async fn clear_faults(stack: &Arc<Stack>, tell: say::Tell<'_>) {
    match faults::over_socket::injector(stack).clear().await {
        Ok(cleared) => {
            for (fault, healed) in cleared {
                tell(&match healed {
                    Ok(healed) => format!("the fault {} is over: {}", fault.describe(), healed.how),
                    Err(error) => format!("{error:#}"),
                });
            }
        }
        Err(error) => tell(&format!("what is left of faults is unknown: {error:#}")),
    }
}

async fn prepare(root: &Path, up: &Up, news: News, steps: &Steps<'_>) -> Result<Stack> {
    let begun = Instant::now();
    let left = clear_up(root).await;
    if left > 0 {
        steps.done(
            begun,
            format!(
                "ended {} of an earlier stack that was killed",
                process::count(left)
            ),
        );
    }
    if !ports::is_free(up.port) {
        let who = ports::holder(up.port);
        bail!(
            "port {} is taken by {who}; end it or choose another with --port",
            up.port
        );
    }
    let mut needed = up.given.needed();
    needed.push(NGINX);
    install::ensure_installed(&needed, up.yes, steps).await?;
    let begun = Instant::now();
    let dir = LabDir::open(root)?;
    let without = up.without.iter();
    let options = Options {
        faults: up.faults,
        console: !up.no_console,
        settings: without
            .map(|off| ("WITHOUT".to_owned(), off.clone()))
            .collect(),
        program: None,
    };
    let stack = Stack::prepare(dir, &up.given, up.port, options, news).await?;
    if begun.elapsed() > Duration::from_millis(500) {
        steps.done(begun, "data folders made");
    }
    Ok(stack)
}

/// Says which programs ended by themselves, for as long as the stack lives.
async fn pass_on(told: &mut mpsc::UnboundedReceiver<String>, tell: say::Tell<'_>) {
    while let Some(news) = told.recv().await {
        tell(&news);
    }
    std::future::pending::<()>().await;
}

fn welcome(root: &Path, stack: &Stack, steps: &Steps<'_>) -> String {
    format!(
        "ready after {}\n\n{}\nCtrl-C stops everything and keeps the data.\n\
         In another terminal: {}, {}\n",
        steps.total(),
        stack.pages(),
        dir::command(root, "status"),
        dir::command(root, "scale receiver=5"),
    )
}

async fn already_running(root: &Path) -> String {
    let quiet = |_: &str| {};
    let status = control::ask(root, &Request::Status, &quiet).await.ok();
    let at = status.and_then(|status| Some(format!(" at {}", status["gateway"].as_str()?)));
    let at = at.unwrap_or_default();
    let by = dir::holder(root)
        .map(|pid| format!(" (pid {pid})"))
        .unwrap_or_default();
    format!(
        "a stack already runs in {}{at}{by}; `{}` stops it, `{}` shows it",
        root.display(),
        dir::command(root, "down"),
        dir::command(root, "status"),
    )
}

/// The signals that end a stack: Ctrl-C, a polite kill, a closed terminal.
pub(crate) struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Ends {
    pub(crate) fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot wait for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
