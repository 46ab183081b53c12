//! A receiver as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    match daemon::settings::parse::<receiver::Config>() {
        Ok(config) => receiver::main_with(&config),
        Err(code) => code,
    }
}
