//! A receiver as a process of its own.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// See the sender's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match daemon::settings::parse::<receiver::Config>() {
        Ok(config) => receiver::main_with(&config),
        Err(code) => code,
    }
}
