//! Settings of nodes in an experiment: which there are, and whether a value can be used.
//!
//! Every setting is said, those that the file does not name with their default: what stands in the environment of whoever
//! runs an experiment must not change it.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Arg, Command, CommandFactory, Parser};

use crate::stack::node::Service;

/// What the stack itself says, or what has a field of its own in the file.
const NOT_YOURS: [&str; 12] = [
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
];

/// Settings by their variable.
pub type Settings = BTreeMap<String, String>;

fn command(service: Service) -> Command {
    match service {
        Service::Sender => sender::Config::command(),
        Service::Receiver => receiver::Config::command(),
    }
}

fn variable(arg: &Arg) -> Option<String> {
    let name = arg.get_env()?.to_str()?.to_owned();
    (!NOT_YOURS.contains(&&*name)).then_some(name)
}

/// All that an experiment may set, with what they are otherwise.
pub fn usual() -> Settings {
    let mut usual = Settings::new();
    for service in Service::ALL {
        for arg in command(service).get_arguments() {
            let default = arg
                .get_default_values()
                .iter()
                .map(|value| value.to_string_lossy())
                .collect::<Vec<_>>();
            if let Some(name) = variable(arg) {
                usual.insert(name, default.join(","));
            }
        }
    }
    usual
}

/// Whether nodes can be started with these; else why not.
pub fn check(settings: &Settings, without: &str) -> Result<(), String> {
    for service in Service::ALL {
        let mut flags: Vec<OsString> = vec![
            service.name().into(),
            "--node-name=x".into(),
            "--listen=127.0.0.1:0".into(),
            "--ops-listen=127.0.0.1:0".into(),
            "--database-url=postgres://u:x@127.0.0.1:1/d".into(),
            "--redis-url=redis://127.0.0.1:1/0".into(),
            "--amqp-url=amqp://127.0.0.1:1/%2f".into(),
            "--redis-prefix=x:".into(),
            "--log=info".into(),
            "--log-format=auto".into(),
            "--lab-ops=true".into(),
            format!("--without={without}").into(),
        ];
        for arg in command(service).get_arguments() {
            if let (Some(value), Some(flag)) = (
                variable(arg).and_then(|name| settings.get(&name)),
                arg.get_long(),
            ) {
                flags.push(format!("--{flag}={value}").into());
            }
        }
        let wrong = match service {
            Service::Sender => {
                read::<sender::Config>(&flags).and_then(|config| said(config.check()))
            }
            Service::Receiver => {
                read::<receiver::Config>(&flags).and_then(|config| said(config.check()))
            }
        };
        wrong?;
    }
    Ok(())
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
        let mut settings = usual();
        settings.insert(name.to_owned(), value.to_owned());
        settings
    }

    #[test]
    fn the_usual_settings_can_be_used_and_none_is_the_stacks_own() {
        let usual = usual();
        check(&usual, "").unwrap();
        assert_eq!(usual["WORK_FAIL_ONE_IN"], "5");
        assert_eq!(usual["PUBLISH_WINDOW"], "1000");
        for name in NOT_YOURS {
            assert!(!usual.contains_key(name), "{name}");
        }
    }

    #[test]
    fn nodes_tell_their_settings_and_no_password() {
        let urls = ["--database-url=x", "--redis-url=y", "--amqp-url=z"];
        for service in Service::ALL {
            let line = [&[service.name(), "--shutdown-secs=7"], &urls[..]].concat();
            let told = match service {
                Service::Sender => sender::Config::parse_from(line).all.0,
                Service::Receiver => receiver::Config::parse_from(line).all.0,
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
        for name in usual().into_keys().chain(["WITHOUT".to_owned()]) {
            let handed_on = format!("\n  {name}:");
            let to_one = format!("\n      {name}:");
            assert!(
                file.contains(&handed_on) || file.contains(&to_one),
                "{name} is missing"
            );
        }
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
            let said = check(&with(name, value), "").unwrap_err();
            assert!(
                said.contains(why) && !said.contains('\n'),
                "{name}={value}: {said}"
            );
        }
        let said = check(&usual(), "persistence").unwrap_err();
        assert!(said.contains("QUEUE_TYPE=classic"), "{said}");
        check(&with("QUEUE_TYPE", "classic"), "persistence").unwrap();
    }
}
