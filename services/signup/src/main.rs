//! Sign-up as a process of its own: the first word says which role.

use std::{ffi::OsString, io::Write, process::ExitCode};

use mimalloc::MiMalloc;

/// As in all services: the system's one takes a fifth of a busy one's time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let role = (arguments.len() > 1).then(|| arguments.remove(1));
    match role.as_deref().and_then(|role| role.to_str()) {
        Some("api") => run(arguments, signup::api::main_with),
        Some("welcome") => run(arguments, signup::welcome::main_with),
        Some("catcher") => run(arguments, signup::catcher::main_with),
        _ => {
            let usage = "right is: signup api .., signup welcome .. or signup catcher ..; each tells its settings with --help";
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "{usage}");
            ExitCode::from(2)
        }
    }
}

fn run<C: clap::Parser>(arguments: Vec<OsString>, main_with: fn(&C) -> ExitCode) -> ExitCode {
    match daemon::settings::parse_from::<C>(arguments) {
        Ok(config) => main_with(&config),
        Err(code) => code,
    }
}
