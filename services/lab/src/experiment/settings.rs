//! Settings of nodes in an experiment: which there are, and whether a value can be used.
//!
//! Every setting is said, those that the file does not name with their default: what stands in the environment of whoever
//! runs an experiment must not change it. Each service has defaults of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Arg, Command, CommandFactory, Parser};

use crate::stack::node::Service;

/// What the stack itself says, or what has a field of its own in the file.
const NOT_YOURS: [&str; 16] = [
    "LISTEN",
    "OPS_LISTEN",
    "AMQP_URL",
    "DATABASE_URL",
    "REDIS_URL",
    "REDIS_PREFIX",
    "NODE_NAME",
    "LAB_OPS",
    "LOG",
    "LOG_FORMAT",
    "WITHOUT",
    "REDRIVE_TOKEN",
    "SIGNUP_KEY",
    "SIGNUP_KEY_OLD",
    "SMTP_URL",
    "SMTP_CA_FILE",
];

/// Settings by their variable.
pub type Settings = BTreeMap<String, String>;

fn command(service: Service) -> Command {
    match service {
        Service::Sender => sender::Config::command(),
        Service::Receiver => receiver::Config::command(),
        Service::Notes => notes::api::Config::command(),
        Service::NotesWorker => notes::worker::Config::command(),
        Service::Leases => leases::Config::command(),
        Service::Signup => signup::api::Config::command(),
        Service::SignupWelcome => signup::welcome::Config::command(),
    }
}

fn variable(arg: &Arg) -> Option<String> {
    let name = arg.get_env()?.to_str()?.to_owned();
    (!NOT_YOURS.contains(&&*name)).then_some(name)
}

/// All that an experiment may set of these services, with what they are otherwise.
pub fn usual(services: &[Service]) -> Settings {
    let mut usual = Settings::new();
    for service in services {
        for arg in command(*service).get_arguments() {
            let default = arg
                .get_default_values()
                .iter()
                .map(|value| value.to_string_lossy())
                .collect::<Vec<_>>();
            if let Some(name) = variable(arg) {
                // where services differ in it, the first one's: who starts a node says its own
                usual.entry(name).or_insert_with(|| default.join(","));
            }
        }
    }
    usual
}

/// What nodes of one service get: what the file names, else their own default, which may be another than another service's.
pub fn own(service: Service, named: &Settings) -> Settings {
    let mut own = usual(&[service]);
    own.extend(named.clone());
    own
}

/// Whether nodes of these services can be started where a file names these; else why not.
pub fn check(services: &[Service], named: &Settings, without: &str) -> Result<(), String> {
    for service in services.iter().copied() {
        let (command, settings) = (command(service), own(service, named));
        let takes = |flag: &str| {
            command
                .get_arguments()
                .any(|arg| arg.get_long() == Some(flag))
        };
        let without = format!("--without={without}");
        let ours = [
            "--node-name=x",
            "--listen=127.0.0.1:0",
            "--ops-listen=127.0.0.1:0",
            "--database-url=postgres://u:x@127.0.0.1:1/d",
            "--redis-url=redis://127.0.0.1:1/0",
            "--amqp-url=amqp://127.0.0.1:1/%2f",
            "--redis-prefix=x:",
            "--log=info",
            "--log-format=auto",
            "--lab-ops=true",
            "--smtp-url=smtp://127.0.0.1:1025",
            "--signup-key=a key of thirty-two bytes or more",
            &without,
        ];
        let ours = ours.into_iter().filter(|flag| {
            let name = flag.trim_start_matches('-').split('=').next();
            name.is_some_and(takes)
        });
        let mut flags: Vec<OsString> = vec![service.name().into()];
        flags.extend(ours.map(OsString::from));
        for arg in command.get_arguments() {
            if let (Some(value), Some(flag)) = (
                variable(arg).and_then(|name| settings.get(&name)),
                arg.get_long(),
            ) {
                flags.push(format!("--{flag}={value}").into());
            }
        }
        let wrong = match service {
            Service::Sender => checked(&flags, sender::Config::check),
            Service::Receiver => checked(&flags, receiver::Config::check),
            Service::Notes => checked(&flags, notes::api::Config::check),
            Service::NotesWorker => checked(&flags, notes::worker::Config::check),
            Service::Leases => checked(&flags, leases::Config::check),
            Service::Signup => checked(&flags, signup::api::Config::check),
            Service::SignupWelcome => checked(&flags, signup::welcome::Config::check),
        };
        wrong?;
    }
    Ok(())
}

fn checked<C: Parser>(
    flags: &[OsString],
    check: impl Fn(&C) -> Result<(), daemon::WrongSetting>,
) -> Result<(), String> {
    read::<C>(flags).and_then(|config| said(check(&config)))
}

fn said<T>(checked: Result<T, daemon::WrongSetting>) -> Result<T, String> {
    checked.map_err(|wrong| wrong.to_string())
}

fn read<C: Parser>(flags: &[OsString]) -> Result<C, String> {
    // named by their variables, since no flag is in the file
    said(
        C::try_parse_from(flags)
            .map_err(|error| daemon::settings::wrong(&error, C::command(), &[])),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Settings {
        let mut settings = usual(&Service::ALL);
        settings.insert(name.to_owned(), value.to_owned());
        settings
    }

    #[test]
    fn the_usual_settings_can_be_used_and_none_is_the_stacks_own() {
        let usual = usual(&Service::ALL);
        check(&Service::ALL, &usual, "").unwrap();
        assert_eq!(usual["WORK_FAIL_ONE_IN"], "5");
        assert_eq!(usual["PUBLISH_WINDOW"], "1000");
        for name in NOT_YOURS {
            assert!(!usual.contains_key(name), "{name}");
        }
    }

    #[test]
    fn each_service_has_its_own_defaults_where_the_file_says_nothing() {
        let named = Settings::from([("HEARTBEAT_SECS".to_owned(), "3".to_owned())]);
        for (service, name, value) in [
            (Service::Receiver, "PREFETCH", "16"),
            (Service::NotesWorker, "PREFETCH", "64"),
            (Service::Receiver, "RETRY", "requeue"),
            (Service::SignupWelcome, "RETRY", "ladder"),
            (Service::Receiver, "MAX_DELIVERIES", "100"),
            (Service::SignupWelcome, "MAX_DELIVERIES", "1000"),
            (Service::SignupWelcome, "HEARTBEAT_SECS", "3"),
        ] {
            assert_eq!(own(service, &named)[name], value, "{service:?} {name}");
        }
    }

    #[test]
    fn nodes_tell_their_settings_and_no_password() {
        let urls = ["--database-url=x", "--redis-url=y"];
        for service in Service::ALL {
            let mut line = [&[service.name(), "--shutdown-secs=7"], &urls[..]].concat();
            line.extend((service != Service::Leases).then_some("--amqp-url=z"));
            line.extend((service == Service::Signup).then_some("--signup-key=s"));
            line.extend((service == Service::SignupWelcome).then_some("--smtp-url=s"));
            let told = match service {
                Service::Sender => sender::Config::parse_from(line).all.0,
                Service::Receiver => receiver::Config::parse_from(line).all.0,
                Service::Notes => notes::api::Config::parse_from(line).all.0,
                Service::NotesWorker => notes::worker::Config::parse_from(line).all.0,
                Service::Leases => leases::Config::parse_from(line).all.0,
                Service::Signup => signup::api::Config::parse_from(line).all.0,
                Service::SignupWelcome => signup::welcome::Config::parse_from(line).all.0,
            };
            assert_eq!(told["SHUTDOWN_SECS"], "7");
            for arg in command(service).get_arguments() {
                let Some(name) = arg.get_env().and_then(|name| name.to_str()) else {
                    continue;
                };
                if arg.is_hide_env_values_set() {
                    assert!(!told.contains_key(name), "{name} is told");
                } else if !arg.get_default_values().is_empty() {
                    assert!(told.contains_key(name), "{name} is not told");
                }
            }
        }
    }

    #[test]
    fn the_compose_file_hands_on_every_setting() {
        let file = include_str!("../../../../docker/docker-compose.yml");
        for service in Service::ALL {
            let name = service.name();
            let begin = [format!("\n  {name}:\n"), format!("\n  {name}: &{name}\n")];
            let begin = begin
                .iter()
                .find_map(|begin| Some(file.find(begin)? + begin.len()));
            let own = &file[begin.unwrap_or_else(|| panic!("there is no {name}"))..];
            // to the next service, or the comment before it
            let own = own.split("\n\n").next().unwrap_or_default();
            for setting in usual(&[service]).into_keys() {
                let to_all = format!("\n  {setting}:");
                let to_one = format!("\n      {setting}:");
                assert!(
                    file.contains(&to_all) || own.contains(&to_one),
                    "{setting} is missing for {name}"
                );
            }
        }
        assert!(file.contains("\n  WITHOUT:"));
    }

    #[test]
    fn what_a_node_would_refuse_is_refused() {
        for (name, value, why) in [
            ("PREFETCH", "0", "PREFETCH"),
            ("WORK_DELAY_MAX_MS", "fast", "WORK_DELAY_MAX_MS"),
            ("WORK_DELAY_MIN_MS", "9000", "WORK_DELAY_M"),
            ("RETRY", "never", "RETRY"),
            ("FAIL_POINTS", "nowhere=crash", "nowhere"),
        ] {
            let said = check(&Service::MAIN, &with(name, value), "").unwrap_err();
            assert!(
                said.contains(why) && !said.contains('\n'),
                "{name}={value}: {said}"
            );
        }
        let said = check(&Service::MAIN, &usual(&Service::MAIN), "persistence").unwrap_err();
        assert!(said.contains("QUEUE_TYPE=classic"), "{said}");
        check(
            &Service::MAIN,
            &with("QUEUE_TYPE", "classic"),
            "persistence",
        )
        .unwrap();
    }
}
