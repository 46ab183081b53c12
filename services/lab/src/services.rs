//! The services in this program: `lab sender`, `lab notes worker` and the others are what the stack starts.
//!
//! Each is the service's own program in all but name, settings and exit codes included.

use std::ffi::OsString;
use std::process::ExitCode;

use daemon::WrongSetting;
use daemon::settings::parse_from;

use crate::say;
use crate::stack::node::Service;

/// Runs the service that the first arguments name; `None` when they name none.
pub fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let said = arguments.get(1..)?;
    let named = |service: &Service| {
        let words = service.words();
        said.len() >= words.len() && said.iter().zip(words).all(|(said, word)| said == word)
    };
    let service = Service::ALL.into_iter().find(named)?;
    Some(be(service, said[service.words().len()..].to_vec()))
}

/// Runs a service of several roles; the first of the settings says which.
pub fn of(name: &str, settings: Vec<OsString>) -> ExitCode {
    let said = [vec!["lab".into(), name.into()], settings].concat();
    run(&said).unwrap_or_else(|| {
        let roles = Service::ALL.into_iter().filter(|one| one.role() == name);
        let roles: Vec<String> = roles
            .map(|one| format!("`lab {}`", one.words().join(" ")))
            .collect();
        say::complain(format!(
            "lab: {name} has several roles: right is {}",
            roles.join(" or ")
        ));
        ExitCode::from(WrongSetting::EXIT_CODE)
    })
}

/// Runs the catcher of mails with these settings.
pub fn catch(settings: Vec<OsString>) -> ExitCode {
    let arguments = [vec!["catcher".into()], settings].concat();
    let code = parse_from(arguments).map(|config| signup::catcher::main_with(&config));
    code.unwrap_or_else(|code| code)
}

/// Runs a service with these settings.
pub fn be(service: Service, settings: Vec<OsString>) -> ExitCode {
    let arguments = [vec![service.words().join(" ").into()], settings].concat();
    let code = match service {
        Service::Sender => parse_from(arguments).map(|config| sender::main_with(&config)),
        Service::Receiver => parse_from(arguments).map(|config| receiver::main_with(&config)),
        Service::Notes => parse_from(arguments).map(|config| notes::api::main_with(&config)),
        Service::NotesWorker => {
            parse_from(arguments).map(|config| notes::worker::main_with(&config))
        }
        Service::Leases => parse_from(arguments).map(|config| leases::main_with(&config)),
        Service::Signup => parse_from(arguments).map(|config| signup::api::main_with(&config)),
        Service::SignupWelcome => {
            parse_from(arguments).map(|config| signup::welcome::main_with(&config))
        }
    };
    code.unwrap_or_else(|code| code)
}
