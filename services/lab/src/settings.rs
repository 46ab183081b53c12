//! The settings that `lab up` hands on to the services, looked at before anything starts.
//!
//! The services read them as they will later, in this process: with the environment as it is, and with flags for what
//! the stack itself says. So a flag is never wrong here unless it was given to `lab up`.

use std::ffi::OsString;

use clap::Parser;
use daemon::WrongSetting;
use daemon::settings::wrong;
use reqwest::Url;

use crate::stack::postgres;
use crate::stack::servers::Given;

const DATABASE: &str = "postgres://USER:PASSWORD@HOST:PORT/DATABASE";
const MANAGEMENT: &str = "http://USER:PASSWORD@HOST:PORT";

/// Finds what a service would refuse. `arguments` are those of this process.
pub fn check(
    given: &Given,
    without: Option<&str>,
    arguments: &[OsString],
) -> Result<(), WrongSetting> {
    services(given, without).map_err(|wrong| as_given_here(wrong, arguments))?;
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

fn services(given: &Given, without: Option<&str>) -> Result<(), WrongSetting> {
    let or = |url: &Option<String>, ours: &str| url.clone().unwrap_or_else(|| ours.to_owned());
    let database = or(
        &given.database_url,
        "postgres://postgres:x@127.0.0.1:1/unacked",
    );
    let redis = or(&given.redis_url, "redis://127.0.0.1:1/0");
    let amqp = or(&given.amqp_url, "amqp://127.0.0.1:1/%2f");
    let flags = |service: &str| -> Result<Vec<OsString>, WrongSetting> {
        let database = postgres::url_for(&database, service, "x")
            .map_err(|_| WrongSetting::secret("DATABASE_URL", DATABASE))?;
        let flags = [
            service.to_owned(),
            format!("--node-name={service}"),
            "--listen=127.0.0.1:0".to_owned(),
            "--ops-listen=127.0.0.1:0".to_owned(),
            format!("--database-url={database}"),
            format!("--redis-url={redis}"),
            format!("--amqp-url={amqp}"),
        ];
        let without = without.map(|off| format!("--without={off}"));
        Ok(flags
            .into_iter()
            .chain(without)
            .map(OsString::from)
            .collect())
    };
    read::<sender::Config>(&flags("sender")?)?.check()?;
    read::<receiver::Config>(&flags("receiver")?)?.check()
}

fn read<C: Parser>(arguments: &[OsString]) -> Result<C, WrongSetting> {
    C::try_parse_from(arguments).map_err(|error| wrong(&error, C::command(), arguments))
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
        check(given, None, &arguments).unwrap_err().to_string()
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
        assert_eq!(check(&Given::default(), None, &[]), Ok(()));
    }

    #[test]
    fn right_urls_are_taken() {
        for (name, url) in [
            ("DATABASE_URL", "postgres://me:p%40ss@db.example:5432/lab"),
            ("REDIS_URL", "redis://:secret@cache.example:6379/3"),
            ("AMQP_URL", "amqp://me:secret@broker.example/%2f"),
            ("MANAGEMENT_URL", "http://me:secret@broker.example:15672"),
        ] {
            assert_eq!(check(&given(name, url), None, &[]), Ok(()), "{url}");
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
