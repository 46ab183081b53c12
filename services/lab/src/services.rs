//! The services in this program: `lab sender` and `lab receiver` are what the stack starts.
//!
//! Each is the service's own program in all but name, settings and exit codes included.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::ValueEnum;
use daemon::settings::parse_from;

use crate::stack::node::Service;

/// Runs the service that the first argument names; `None` when it names none.
pub fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let (name, settings) = arguments.get(1..)?.split_first()?;
    let service = Service::from_str(name.to_str()?, false).ok()?;
    Some(be(service, settings.to_vec()))
}

/// Runs a service with these settings.
pub fn be(service: Service, settings: Vec<OsString>) -> ExitCode {
    let arguments = [vec![service.name().into()], settings].concat();
    let code = match service {
        Service::Sender => parse_from(arguments).map(|config| sender::main_with(&config)),
        Service::Receiver => parse_from(arguments).map(|config| receiver::main_with(&config)),
    };
    code.unwrap_or_else(|code| code)
}
