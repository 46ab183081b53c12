//! What can be said on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::audit::cli::AuditArgs;
use crate::bench::cli::BenchArgs;
use crate::compare::CompareArgs;
use crate::console::ConsoleArgs;
use crate::dead::args::DeadCommand;
use crate::experiment::cli::ExperimentCommand;
use crate::faults::cli::FaultCommand;
use crate::load::cli::LoadArgs;
use crate::mails::MailsArgs;
use crate::matrix::cli::MatrixArgs;
use crate::passport::cli::MessageArgs;
use crate::prune::PruneArgs;
use crate::report::cli::ReportArgs;
use crate::scale;
use crate::service::ServeArgs;
use crate::stack::node::Service;
use crate::test::stages::Stage;
use crate::up::Up;

/// Runs Unacked, a RabbitMQ failure laboratory, on this machine
///
/// Start with `cargo lab up` and open the address that it prints. It needs no setup: PostgreSQL, Redis, RabbitMQ and
/// nginx are started as private copies on free loopback ports, with their data in .lab, apart from any that run already.
#[derive(Debug, Parser)]
#[command(
    name = "lab",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// The folder with data, logs and passwords of this stack [default: .lab in this checkout]
    #[arg(long, global = true, env = "LAB_DIR", value_name = "DIR")]
    pub lab_dir: Option<PathBuf>,
    /// How people say `lab` here [default: cargo lab]
    #[arg(long, global = true, env = "LAB_SAY", hide = true)]
    pub say: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    Deed(Deed),
    /// Be one sender, as `up` starts them: `lab sender --help` lists its settings
    #[command(disable_help_flag = true)]
    Sender(Settings),
    /// Be one receiver, as `up` starts them: `lab receiver --help` lists its settings
    #[command(disable_help_flag = true)]
    Receiver(Settings),
    /// Be one node of notes: `lab notes api --help` and `lab notes worker --help` list their settings
    #[command(disable_help_flag = true)]
    Notes(Settings),
    /// Be one node of leases: `lab leases --help` lists its settings
    #[command(disable_help_flag = true)]
    Leases(Settings),
    /// Be one node of sign-up: `lab signup api --help` and `lab signup welcome --help` list their settings
    #[command(disable_help_flag = true)]
    Signup(Settings),
    /// Be the catcher of mails, as `up --with signup` starts it
    #[command(disable_help_flag = true, hide = true)]
    Catcher(Settings),
}

/// What is done to a stack, or to the project.
#[derive(Debug, Subcommand)]
pub enum Deed {
    /// Start everything and stay until Ctrl-C
    ///
    /// Settings of the services are handed on from the environment: `WORK_DELAY_MAX_MS=0 cargo lab up` starts receivers
    /// that work without delay. `lab sender --help`, `lab receiver --help` and so on list them. A node or server that dies is
    /// started again. With `--with notes,leases,signup` three more services run, each under its name behind the gateway
    /// and at the root of a port of its own.
    Up(Up),
    /// Stop what `up` started; the data stay
    Down,
    /// Show what runs, and where
    Status {
        /// For scripts: addresses and pids of everything, passwords included
        #[arg(long)]
        json: bool,
    },
    /// Start or stop nodes while messages flow: `lab scale receiver=5 sender=1`
    Scale {
        /// A service and how many nodes of it there should be
        #[arg(required = true, value_name = "NAME=N", value_parser = scale::parse)]
        nodes: Vec<(Service, usize)>,
    },
    /// Offer messages to the gateway on a schedule, and record what each client was told
    ///
    /// The schedule does not slow down when the system does: latency counts from when a request was due. A request is
    /// repeated with the same key until it has an answer for good. The record is in runs/ID of the stack's folder.
    Load(Box<LoadArgs>),
    /// Say what became of every message of a run: PASS, FAIL or INCONCLUSIVE
    ///
    /// Waits until nothing of the run is on its way, then compares what each client was told with what was stored and
    /// processed, and names the messages that are not as they should be. Exit codes: 0 PASS, 1 FAIL, 3 INCONCLUSIVE.
    Audit {
        /// The run to judge, as with --run
        #[arg(value_name = "ID", conflicts_with = "run")]
        id: Option<String>,
        #[command(flatten)]
        args: Box<AuditArgs>,
    },
    /// Tell all that is known of one message, in order, and what brought it back each time
    Message(Box<MessageArgs>),
    /// List the mails that `up --with signup` has caught, the newest first
    ///
    /// A mail that was sent more than once under one Message-ID is one mail, told with how often it came.
    Mails(MailsArgs),
    /// Look at dead letters, send them back, or throw them away
    #[command(subcommand)]
    Dead(Box<DeadCommand>),
    /// Break a part of the running stack on purpose, and mend it
    #[command(subcommand)]
    Fault(FaultCommand),
    /// Run experiments: a load, faults, and a verdict that was expected
    #[command(subcommand)]
    Experiment(ExperimentCommand),
    /// Offer experiments over HTTP, on 127.0.0.1: start them, watch them, ask for their verdicts
    ///
    /// For the Chaos Toolkit and other programs: docs/chaos-toolkit has an example. One runs at a time, on a stack of its own.
    /// Ctrl-C heals and stops what runs.
    Serve(Box<ServeArgs>),
    /// Show the stack at /lab, and let those who signed in break and mend it
    ///
    /// `up` starts it beside the nodes; with `--no-console` it does not.
    Console(Box<ConsoleArgs>),
    /// Play twelve faults with all guarantees, then without each of eight, and compare with what was predicted
    ///
    /// Each cell has nodes, a vhost and a database of its own, on private servers; all take about half an hour. Exit codes: 0 all as predicted, 1 a cell is not
    /// as predicted, 3 a cell is inconclusive, 2 wrong usage, 130 interrupted (everything is healed and stopped first).
    Matrix(MatrixArgs),
    /// Write the report of a run, and say where it is: a page for people, junit.xml for a CI
    ///
    /// An experiment has written its own; after a load and an audit this does it. No server is asked.
    Report(ReportArgs),
    /// Show two runs side by side: what they were made with, and what they came to
    Compare(CompareArgs),
    /// Remove old runs, and their rows in the ledger
    ///
    /// Says first what it would remove. Messages that are neither processed nor parked keep all of their rows.
    Prune(PruneArgs),
    /// Measure how fast it is, against the limits of the broker and the database
    ///
    /// On a private stack, in a release build, which it makes if it is none. Exit codes: 0 measured, 1 a scenario failed,
    /// 2 wrong usage, 130 interrupted.
    Bench(Box<BenchArgs>),
    /// Remove all data of the stack
    Reset {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Run the project's tests, stage by stage, on real servers
    ///
    /// The last line is `N passed, N failed, N skipped`.
    Test {
        /// Only what needs no Docker and no browser: fmt, clippy, doc, tests
        #[arg(long)]
        fast: bool,
        /// Only these, in the usual order
        #[arg(value_name = "STAGE")]
        stages: Vec<Stage>,
    },
    /// Make pictures of every page, light and dark, wide and narrow, in docs/screenshots
    ///
    /// On a stack of its own, in Chromium, with a load and something broken. A page that does not fit its window, or that
    /// cannot be read, is an error, and the old pictures stay.
    Screenshots {
        /// Where else to put them
        #[arg(long, value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Private PostgreSQL, Redis and RabbitMQ for tests, driven by lines on standard input
    #[command(hide = true)]
    Servers {
        /// Where their data lie; removed at the end
        #[arg(long)]
        dir: PathBuf,
    },
}

/// What belongs to the service, which reads it itself.
#[derive(Debug, Args)]
pub struct Settings {
    /// Its flags
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "SETTING"
    )]
    pub all: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_lists_the_services() {
        let help = Cli::command().render_help().to_string();
        for service in Service::ALL {
            let listed = format!("  {} ", service.words()[0]);
            assert!(help.contains(&listed), "{help}");
        }
        for hidden in ["  servers ", "  catcher "] {
            assert!(!help.contains(hidden), "{help}");
        }
    }

    #[test]
    fn a_service_gets_all_that_stands_behind_it() {
        let line = ["lab", "--lab-dir", "x", "sender", "--help", "--prefetch=3"];
        let Command::Sender(settings) = Cli::try_parse_from(line).unwrap().command else {
            panic!("another command");
        };
        assert_eq!(settings.all, ["--help", "--prefetch=3"]);
    }

    #[test]
    fn the_run_of_an_audit_is_said_in_one_way() {
        let named = |line: &[&str]| {
            let cli = Cli::try_parse_from(line).ok()?;
            let Command::Deed(Deed::Audit { id, args }) = cli.command else {
                panic!("another command");
            };
            Some((id, args.run))
        };
        let r1 = || Some("r1".to_owned());
        assert_eq!(named(&["lab", "audit", "r1"]), Some((r1(), None)));
        assert_eq!(named(&["lab", "audit", "--run", "r1"]), Some((None, r1())));
        assert_eq!(named(&["lab", "audit"]), Some((None, None)));
        assert_eq!(named(&["lab", "audit", "r1", "--run", "r2"]), None);
    }
}
