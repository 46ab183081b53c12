//! The settings that `lab up` hands on to the services, looked at before anything starts.
//!
//! The services read them as they will later, in this process: with the environment as it is, and with flags for what
//! the stack itself says. So a flag is never wrong here unless it was given to `lab up`.

use std::ffi::OsString;

use clap::Parser;
use daemon::WrongSetting;
use daemon::settings::wrong;
use reqwest::Url;

use crate::stack::node::Service;
use crate::stack::postgres;
use crate::stack::servers::Given;

const DATABASE: &str = "postgres://USER:PASSWORD@HOST:PORT/DATABASE";
const MANAGEMENT: &str = "http://USER:PASSWORD@HOST:PORT";

/// Finds what one of these services would refuse. `arguments` are those of this process.
pub fn check(
    given: &Given,
    without: Option<&str>,
    services: &[Service],
    arguments: &[OsString],
) -> Result<(), WrongSetting> {
    each(given, without, services).map_err(|wrong| as_given_here(wrong, arguments))?;
    if given
        .management_url
        .as_deref()
        .is_some_and(|url| !is_http(url))
    {
        let wrong = WrongSetting::secret("MANAGEMENT_URL", MANAGEMENT);
        return Err(as_given_here(wrong, arguments));
    }
    Ok(())
}

fn each(given: &Given, without: Option<&str>, services: &[Service]) -> Result<(), WrongSetting> {
    let or = |url: &Option<String>, ours: &str| url.clone().unwrap_or_else(|| ours.to_owned());
    let database = or(
        &given.database_url,
        "postgres://postgres:x@127.0.0.1:1/unacked",
    );
    let redis = or(&given.redis_url, "redis://127.0.0.1:1/0");
    let amqp = or(&given.amqp_url, "amqp://127.0.0.1:1/%2f");
    for service in services.iter().copied() {
        let database = postgres::url_for(&database, service.role(), "x")
            .map_err(|_| WrongSetting::secret("DATABASE_URL", DATABASE))?;
        let mut flags = vec![
            format!("--node-name={}", service.name()),
            "--listen=127.0.0.1:0".to_owned(),
            "--ops-listen=127.0.0.1:0".to_owned(),
            format!("--database-url={database}"),
            format!("--redis-url={redis}"),
            format!("--amqp-url={amqp}"),
        ];
        flags.extend(without.map(|off| format!("--without={off}")));
        // unless the environment has one, ours signs tokens
        if std::env::var_os("SIGNUP_KEY").is_none() {
            flags.push("--signup-key=one of thirty-two bytes, or more".to_owned());
        }
        // unless it says where to, our catcher gets the mails
        if std::env::var_os("SMTP_URL").is_none() {
            flags.push("--smtp-url=smtp://127.0.0.1:1".to_owned());
        }
        match service {
            Service::Sender => read(service, flags, sender::Config::check),
            Service::Receiver => read(service, flags, receiver::Config::check),
            Service::Notes => read(service, flags, notes::api::Config::check),
            Service::NotesWorker => read(service, flags, notes::worker::Config::check),
            Service::Leases => read(service, flags, leases::Config::check),
            Service::Signup => read(service, flags, signup::api::Config::check),
            Service::SignupWelcome => read(service, flags, signup::welcome::Config::check),
        }?;
    }
    Ok(())
}

/// Reads those of the flags that the service has, and has it look at them.
fn read<C: Parser>(
    service: Service,
    flags: Vec<String>,
    check: impl Fn(&C) -> Result<(), WrongSetting>,
) -> Result<(), WrongSetting> {
    let command = C::command();
    let has = |flag: &String| {
        let name = flag.trim_start_matches('-').split('=').next();
        let mut arguments = command.get_arguments();
        arguments.any(|argument| argument.get_long() == name)
    };
    let flags = flags.into_iter().filter(has);
    let arguments: Vec<OsString> = std::iter::once(service.name().to_owned())
        .chain(flags)
        .map(OsString::from)
        .collect();
    let config = C::try_parse_from(&arguments);
    check(&config.map_err(|error| wrong(&error, C::command(), &arguments))?)
}

fn is_http(url: &str) -> bool {
    url.parse()
        .is_ok_and(|url: Url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// The servers' URLs have the same flags here as in the services, but other variables.
fn as_given_here(wrong: WrongSetting, arguments: &[OsString]) -> WrongSetting {
    let name = wrong.name().to_owned();
    let is_url = ["DATABASE_URL", "REDIS_URL", "AMQP_URL", "MANAGEMENT_URL"].contains(&&*name);
    let wrong = wrong.as_given(arguments);
    if is_url && wrong.name() == name {
        return wrong.called(format!("LAB_{name}"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(given: &Given, arguments: &[&str]) -> String {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        check(given, None, &Service::ALL, &arguments)
            .unwrap_err()
            .to_string()
    }

    fn given(name: &str, url: &str) -> Given {
        let url = Some(url.to_owned());
        let mut given = Given::default();
        match name {
            "DATABASE_URL" => given.database_url = url,
            "REDIS_URL" => given.redis_url = url,
            "AMQP_URL" => given.amqp_url = url,
            _ => given.management_url = url,
        }
        given
    }

    #[test]
    fn without_settings_nothing_is_wrong() {
        assert_eq!(check(&Given::default(), None, &Service::ALL, &[]), Ok(()));
    }

    #[test]
    fn right_urls_are_taken() {
        for (name, url) in [
            ("DATABASE_URL", "postgres://me:p%40ss@db.example:5432/lab"),
            ("REDIS_URL", "redis://:secret@cache.example:6379/3"),
            ("AMQP_URL", "amqp://me:secret@broker.example/%2f"),
            ("MANAGEMENT_URL", "http://me:secret@broker.example:15672"),
        ] {
            assert_eq!(
                check(&given(name, url), None, &Service::ALL, &[]),
                Ok(()),
                "{url}"
            );
        }
    }

    #[test]
    fn a_wrong_url_is_named_as_it_was_given_and_not_shown() {
        for (name, urls) in [
            (
                "DATABASE_URL",
                [
                    "secret",
                    "mysql://u:secret@h/d",
                    "postgres://u:secret@h",
                    "postgres:///secret",
                ],
            ),
            (
                "REDIS_URL",
                ["secret", "http://:secret@h", "redis://:secret@h:x", ""],
            ),
            (
                "AMQP_URL",
                ["secret", "http://u:secret@h", "amqp://u:secret@h:x", ""],
            ),
            (
                "MANAGEMENT_URL",
                ["secret", "amqp://u:secret@h", "http://", ""],
            ),
        ] {
            for url in urls {
                let said = refused(&given(name, url), &["lab", "up"]);
                let start = format!("wrong setting LAB_{name}: ");
                assert!(
                    said.starts_with(&start) && !said.contains("secret"),
                    "{url}: {said}"
                );
                assert!(!said.contains('\n'), "{url}: {said}");
                let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
                let said = refused(&given(name, url), &["lab", "up", &flag, url]);
                assert!(
                    said.starts_with(&format!("wrong setting {flag}: ")),
                    "{url}: {said}"
                );
            }
        }
    }
}
