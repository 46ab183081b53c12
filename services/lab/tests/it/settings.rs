//! What a node tells of its settings, and what it keeps to itself.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};
use daemon::settings::AllSettings;

const SECRET: &str = "hunter2";

fn hidden(command: &Command) -> Vec<&Arg> {
    let arguments = command.get_arguments();
    arguments
        .filter(|arg| arg.is_hide_env_values_set())
        .collect()
}

fn all() -> [Command; 7] {
    [
        sender::Config::command(),
        receiver::Config::command(),
        notes::api::Config::command(),
        notes::worker::Config::command(),
        leases::Config::command(),
        signup::api::Config::command(),
        signup::welcome::Config::command(),
    ]
}

/// As if each setting that hides its value were given this secret.
fn read(mut command: Command) -> ArgMatches {
    command.build();
    let flags = hidden(&command)
        .into_iter()
        .flat_map(|arg| [format!("--{}", arg.get_long().unwrap()), SECRET.to_owned()]);
    let given: Vec<OsString> = std::iter::once("it".to_owned())
        .chain(flags)
        .map(OsString::from)
        .collect();
    command.try_get_matches_from(given).unwrap()
}

#[test]
fn what_hides_its_value_is_not_told_on_the_ops_port() {
    for command in all() {
        let name = command.get_name().to_owned();
        let hidden: Vec<String> = hidden(&command)
            .iter()
            .map(|arg| arg.get_id().as_str().to_uppercase())
            .collect();
        assert!(hidden.contains(&"DATABASE_URL".to_owned()), "{hidden:?}");
        let AllSettings(told) = AllSettings::from_arg_matches(&read(command)).unwrap();
        assert!(told.contains_key("SHUTDOWN_SECS"), "{name}: {told:?}");
        for setting in hidden {
            assert!(!told.contains_key(&setting), "{name} tells {setting}");
        }
        let leaked = told.values().any(|value| value.contains(SECRET));
        assert!(!leaked, "{name}: {told:?}");
    }
}

#[test]
fn what_may_hold_a_password_hides_its_value() {
    let secret = ["url", "password", "secret", "token", "key"];
    for command in all() {
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            // how long something lasts is no secret
            let may = id.split('_').any(|word| secret.contains(&word)) && !id.ends_with("_secs");
            assert_eq!(arg.is_hide_env_values_set(), may, "{id}");
        }
    }
}
