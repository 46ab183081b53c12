//! A node of the lease queue as a process of its own.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// The system's one takes a fifth of a busy node's time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match daemon::settings::parse::<leases::Config>() {
        Ok(config) => leases::main_with(&config),
        Err(code) => code,
    }
}
