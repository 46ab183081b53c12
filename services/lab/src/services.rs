//! The services in this program: `lab sender` and `lab receiver` are what the stack starts.
//!
//! Each is the service's own program in all but name, settings and exit codes included.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the service that the first argument names; `None` when it names none.
pub fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let (_, arguments) = arguments.split_first()?;
    let code = match arguments.first()?.to_str()? {
        "sender" => daemon::settings::parse_from(arguments.to_vec())
            .map(|config| sender::main_with(&config)),
        "receiver" => daemon::settings::parse_from(arguments.to_vec())
            .map(|config| receiver::main_with(&config)),
        _ => return None,
    };
    Some(code.unwrap_or_else(|code| code))
}
