//! The laboratory's own program: starts and stops the native stack, scales it, tells its state, runs the tests.
//!
//! It is also each service: the stack starts `lab sender`, `lab receiver` and others, so that one build and one file are enough.

// a file of tests that both kinds of tests use names it so
#[cfg(test)]
extern crate self as lab;

pub mod audit;
pub mod bench;
pub mod cli;
pub mod compare;
pub mod compose;
pub mod console;
pub mod dead;
pub mod down;
pub mod experiment;
pub mod faults;
pub mod halving;
pub mod load;
pub mod mails;
pub mod matrix;
pub mod passport;
pub mod prune;
pub mod report;
pub mod reset;
pub mod run;
pub mod say;
pub mod scale;
pub mod search;
pub mod servers;
pub mod service;
pub mod services;
pub mod settings;
pub mod stack;
pub mod status;
pub mod test;
pub mod up;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use daemon::WrongSetting;

use cli::{Cli, Command, Deed};
use stack::node::Service;

/// Does what the command line says.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = services::run(&arguments) {
        return code;
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, &arguments),
    };
    let deed = match cli.command {
        Command::Deed(deed) => deed,
        Command::Sender(settings) => return services::be(Service::Sender, settings.all),
        Command::Receiver(settings) => return services::be(Service::Receiver, settings.all),
        Command::Notes(settings) => return services::of("notes", settings.all),
        Command::Leases(settings) => return services::be(Service::Leases, settings.all),
        Command::Signup(settings) => return services::of("signup", settings.all),
        Command::Catcher(settings) => return services::catch(settings.all),
    };
    if let Some(say) = cli.say {
        stack::dir::called(say);
    }
    match run(cli.lab_dir, deed) {
        Ok(code) => code,
        Err(error) => {
            say::complain(format!("lab: {error:#}"));
            if error.is::<say::Usage>() {
                ExitCode::from(say::Usage::EXIT_CODE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Clap says it well of what was typed, but names the flag when it was the environment.
fn refuse(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let wrong = daemon::settings::wrong(error, Cli::command(), arguments);
    if wrong.name().starts_with("LAB_") {
        return wrong.report();
    }
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(WrongSetting::EXIT_CODE)
    } else {
        ExitCode::SUCCESS
    }
}

fn run(lab_dir: Option<PathBuf>, deed: Deed) -> Result<ExitCode> {
    let root = match lab_dir {
        Some(root) => root,
        None => stack::dir::default_root()?,
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start")?;
    let code = runtime.block_on(async {
        let done = match deed {
            Deed::Up(up) => return up::run(root, up).await,
            Deed::Experiment(command) => {
                return Box::pin(experiment::cli::run(&root, &command)).await;
            }
            Deed::Serve(args) => return Box::pin(service::run(&root, &args)).await,
            Deed::Console(args) => return Box::pin(console::run(&root, &args)).await,
            Deed::Matrix(args) => return Box::pin(matrix::cli::run(&root, &args)).await,
            Deed::Bench(args) => return Box::pin(bench::cli::run(&root, &args)).await,
            Deed::Dead(command) => return Box::pin(dead::cli::run(&root, &command)).await,
            Deed::Audit { id, mut args } => {
                args.run = args.run.take().or(id);
                return audit::cli::run(&root, &args).await;
            }
            Deed::Test { fast, stages } => return test::run(fast, &stages).await,
            Deed::Screenshots { folder } => return test::screenshots::run(folder).await,
            Deed::Message(args) => passport::cli::run(&root, &args).await,
            Deed::Down => down::run(&root).await,
            Deed::Status { json } => status::run(&root, json).await,
            Deed::Load(args) => load::cli::run(&root, &args).await,
            Deed::Fault(command) => faults::cli::run(&root, &command).await,
            Deed::Report(args) => report::cli::run(&root, &args),
            Deed::Compare(args) => compare::run(&root, &args),
            Deed::Prune(args) => prune::run(&root, &args).await,
            Deed::Mails(args) => mails::run(&root, &args),
            Deed::Scale { nodes } => scale::run(&root, &nodes).await,
            Deed::Reset { yes } => reset::run(&root, yes).await,
            Deed::Servers { dir } => servers::run(&dir).await,
        };
        done.map(|()| ExitCode::SUCCESS)
    });
    // reading standard input cannot be interrupted: do not wait for it
    runtime.shutdown_background();
    code
}
