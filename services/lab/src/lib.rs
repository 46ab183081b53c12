//! The laboratory's own program: starts and stops the native stack, scales it, tells its state, runs the tests.
//!
//! It is also each service: the stack starts `lab sender` and `lab receiver`, so that one build and one file are enough.

pub mod cli;
pub mod down;
pub mod reset;
pub mod say;
pub mod scale;
pub mod servers;
pub mod services;
pub mod stack;
pub mod status;
pub mod test;
pub mod up;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use cli::{Cli, Command};

/// Does what the command line says.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = services::run(&arguments) {
        return code;
    }
    match run(Cli::parse_from(arguments)) {
        Ok(code) => code,
        Err(error) => {
            say::complain(format!("lab: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let root = match cli.lab_dir {
        Some(root) => root,
        None => stack::dir::default_root()?,
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start")?;
    let code = runtime.block_on(async {
        let done = match cli.command {
            Command::Up(up) => return up::run(root, up).await,
            Command::Test { fast, stages } => return test::run(fast, &stages).await,
            Command::Down => down::run(&root).await,
            Command::Status { json } => status::run(&root, json).await,
            Command::Scale { nodes } => scale::run(&root, &nodes).await,
            Command::Reset { yes } => reset::run(&root, yes).await,
            Command::Servers { dir } => servers::run(&dir).await,
        };
        done.map(|()| ExitCode::SUCCESS)
    });
    // reading standard input cannot be interrupted: do not wait for it
    runtime.shutdown_background();
    code
}
