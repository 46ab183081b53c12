//! A sender as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    match daemon::settings::parse::<sender::Config>() {
        Ok(config) => sender::main_with(&config),
        Err(code) => code,
    }
}
