//! The roles of notes as processes: `notes api` and `notes worker`.

use std::{
    ffi::{OsStr, OsString},
    process::ExitCode,
};

use daemon::{WrongSetting, settings::parse_from};
use mimalloc::MiMalloc;

/// See the sender's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next();
    let settings = |name: &str| -> Vec<OsString> {
        let name = OsString::from(format!("notes {name}"));
        std::iter::once(name).chain(arguments).collect()
    };
    let code = match role.as_deref().and_then(OsStr::to_str) {
        Some("api") => parse_from(settings("api")).map(|config| notes::api::main_with(&config)),
        Some("worker") => {
            parse_from(settings("worker")).map(|config| notes::worker::main_with(&config))
        }
        _ => Err(WrongSetting::because("of the role", "the first word is api or worker").report()),
    };
    code.unwrap_or_else(|code| code)
}
