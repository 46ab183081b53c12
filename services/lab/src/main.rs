//! The `lab` program: see [`lab::main`].
use std::process::ExitCode;

use mimalloc::MiMalloc;

/// See the sender's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    lab::main()
}
