//! `lab up`: starts the stack and stays until it is told to stop.
//!
//! The order matters: first the lock (one stack per folder), then what an earlier one left behind is ended, then the
//! gateway's ports are looked at before anything slow begins. A signal, at any moment after that, stops what was started;
//! a second one kills it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
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
    /// What to run beside them, with commas between; `lab scale notes-worker=5` changes how many
    #[arg(long, value_name = "SERVICES", value_enum, value_delimiter = ',')]
    pub with: Vec<With>,
    /// With notes: a port of the gateway that leads there only
    #[arg(
        long,
        default_value_t = 8091,
        env = "LAB_NOTES_PORT",
        value_name = "PORT"
    )]
    pub notes_port: u16,
    /// With leases: a port of the gateway that leads there only
    #[arg(
        long,
        default_value_t = 8092,
        env = "LAB_LEASES_PORT",
        value_name = "PORT"
    )]
    pub leases_port: u16,
    /// With signup: a port of the gateway that leads there only
    #[arg(
        long,
        default_value_t = 8093,
        env = "LAB_SIGNUP_PORT",
        value_name = "PORT"
    )]
    pub signup_port: u16,
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

/// What may run beside senders and receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum With {
    /// Notes that are written through a queue and read through a cache: 2 nodes, and 2 workers
    Notes,
    /// An HTTP lease queue: 2 nodes
    Leases,
    /// Accounts with a welcome mail: 1 node, 1 that sends the mails, and a catcher that keeps them
    Signup,
    /// All of these
    All,
}

impl With {
    fn means(self, service: Service) -> bool {
        match self {
            Self::Notes => service.role() == "notes",
            Self::Leases => service.role() == "leases",
            Self::Signup => service.role() == "signup",
            Self::All => true,
        }
    }
}

impl Up {
    /// How many nodes of each service.
    fn plan(&self) -> Plan {
        let usual = |service| match service {
            Service::Sender => self.sender,
            Service::Receiver => self.receiver,
            Service::Notes | Service::NotesWorker | Service::Leases => 2,
            Service::Signup | Service::SignupWelcome => 1,
        };
        let asked = |service: &Service| {
            Service::MAIN.contains(service) || self.with.iter().any(|with| with.means(*service))
        };
        let all = Service::ALL.into_iter().filter(asked);
        all.map(|service| (service, usual(service))).collect()
    }

    /// The ports of the gateway that lead to one service only.
    fn own(&self) -> BTreeMap<Service, u16> {
        let mut own = BTreeMap::from([
            (Service::Notes, self.notes_port),
            (Service::Leases, self.leases_port),
            (Service::Signup, self.signup_port),
        ]);
        let plan = self.plan();
        own.retain(|service, _| plan.contains_key(service));
        own
    }

    /// Finds a port that somebody has, or that was said twice.
    fn check_ports(&self) -> Result<()> {
        let own = self.own().into_iter();
        let own = own.map(|(service, port)| (format!("--{}-port", service.name()), port));
        let mut seen = BTreeSet::new();
        for (flag, port) in std::iter::once(("--port".to_owned(), self.port)).chain(own) {
            if !ports::is_free(port) {
                let who = ports::holder(port);
                bail!("port {port} is taken by {who}; end it or choose another with {flag}");
            }
            if !seen.insert(port) {
                bail!("port {port} is to be two at once; choose another with {flag}");
            }
        }
        Ok(())
    }
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
    let plan = up.plan();
    let services: Vec<Service> = plan.keys().copied().collect();
    let checked = settings::check(&up.given, up.without.as_deref(), &services, &arguments);
    if let Err(wrong) = checked {
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
    up.check_ports()?;
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
        own: up.own(),
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        up: Up,
    }

    fn up(flags: &[&str]) -> Up {
        Line::try_parse_from([&["up"], flags].concat()).unwrap().up
    }

    #[test]
    fn only_what_was_asked_for_runs_and_has_a_port() {
        let main = Plan::from([(Service::Sender, 2), (Service::Receiver, 3)]);
        assert_eq!(up(&[]).plan(), main);
        assert!(up(&[]).own().is_empty());
        let notes = up(&["--with", "notes", "--notes-port=9"]);
        let mut plan = main.clone();
        plan.extend([(Service::Notes, 2), (Service::NotesWorker, 2)]);
        assert_eq!(notes.plan(), plan);
        assert_eq!(notes.own(), BTreeMap::from([(Service::Notes, 9)]));
        let all = up(&["--with=all"]);
        assert_eq!(all.plan().len(), Service::ALL.len());
        for same in [
            &["--with", "leases,signup,notes"][..],
            &["--with=notes", "--with=leases", "--with=signup"],
            &["--with=all,notes"],
        ] {
            let same = up(same);
            assert_eq!((same.plan(), same.own()), (all.plan(), all.own()));
        }
    }

    #[test]
    fn what_there_is_is_said_to_who_asks_for_something_else() {
        for wrong in ["note", "notes,x", "", "notes-worker"] {
            let Err(error) = Line::try_parse_from(["up", "--with", wrong]) else {
                panic!("{wrong} was taken");
            };
            let said = error.to_string();
            assert!(said.contains("notes, leases, signup, all"), "{said}");
        }
    }

    #[test]
    fn a_port_that_is_taken_or_said_twice_is_named_with_its_flag() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        let (free, _held) = ports::free().unwrap();
        let port = |name: &str, port: u16| format!("--{name}={port}");
        let refused = |flags: &[&str]| up(flags).check_ports().map_err(|error| error.to_string());
        let main = port("port", free);
        let same = port("leases-port", free);
        let said = refused(&["--with=leases", &main, &same]).unwrap_err();
        assert!(
            said.contains("two at once") && said.ends_with("--leases-port"),
            "{said}"
        );
        let busy = port("leases-port", taken);
        let said = refused(&["--with=leases", &main, &busy]).unwrap_err();
        assert!(
            said.contains("is taken by") && said.ends_with("--leases-port"),
            "{said}"
        );
        // nobody listens there without leases
        assert_eq!(refused(&[&main, &busy]), Ok(()));
    }
}
