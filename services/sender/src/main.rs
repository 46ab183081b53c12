//! A sender as a process of its own.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// The system's one takes a fifth of a busy sender's time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match daemon::settings::parse::<sender::Config>() {
        Ok(config) => sender::main_with(&config),
        Err(code) => code,
    }
}
