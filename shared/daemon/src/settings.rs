//! Settings that are wrong, and how to say so: one line that names the setting, exit code 2.

use std::{borrow::Cow, ffi::OsString, io::Write, process::ExitCode};

/// A setting with a value that cannot be used.
///
/// The value is shown so that the reader recognises it, but never for a setting that may hold a
/// password: those are made with [`WrongSetting::secret`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wrong setting {name}{shown}: {why}", shown = shown(self.value.as_deref()))]
pub struct WrongSetting {
    name: &'static str,
    value: Option<String>,
    why: String,
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| format!(" {value:?}"))
}

impl WrongSetting {
    /// The exit code of a process that was given a wrong setting.
    pub const EXIT_CODE: u8 = 2;

    /// `name` has this value, but should be what `right` says.
    pub fn new(
        name: &'static str,
        value: impl Into<String>,
        right: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            name,
            value: Some(value.into()),
            why: format!("right is {}", right.into()),
        }
    }

    /// As [`WrongSetting::new`], for a value that must not be printed.
    pub fn secret(name: &'static str, right: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name,
            value: None,
            why: format!("right is {}", right.into()),
        }
    }

    /// `name` does not do, because of this; for what shows only later, or needs a sentence.
    pub fn because(name: &'static str, why: impl Into<String>) -> Self {
        Self {
            name,
            value: None,
            why: why.into(),
        }
    }

    /// The setting's name as an environment variable.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Prints the line on standard error and gives the exit code.
    pub fn report(&self) -> ExitCode {
        complain(&self.to_string());
        ExitCode::from(Self::EXIT_CODE)
    }
}

/// Prints one line on standard error. For what must be said before or without a log.
pub(crate) fn complain(line: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Reads the settings of this process from its arguments and its environment.
///
/// # Errors
/// The exit code to end with, everything said: 0 for `--help` and `--version`, and 2 after one
/// line that names what is wrong.
pub fn parse<P: clap::Parser>() -> Result<P, ExitCode> {
    parse_from(std::env::args_os())
}

/// As [`parse`], from the arguments given.
pub fn parse_from<P: clap::Parser>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<P, ExitCode> {
    P::try_parse_from(arguments).map_err(|error| {
        if error.use_stderr() {
            complain(&one_line(&error));
            ExitCode::from(WrongSetting::EXIT_CODE)
        } else {
            let _ = error.print();
            ExitCode::SUCCESS
        }
    })
}

/// Clap's complaint without usage, hints and line breaks.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let complaint = text.split("\n\nUsage:").next().unwrap_or(&text);
    let complaint = complaint
        .split("\n\nFor more information")
        .next()
        .unwrap_or(complaint);
    complaint.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Settings {
        #[arg(long, env = "DAEMON_TEST_PREFETCH", default_value_t = 16)]
        prefetch: u16,
        #[arg(long, env = "DAEMON_TEST_URL")]
        url: String,
    }

    fn complaint(arguments: &[&str]) -> String {
        one_line(&Settings::try_parse_from(arguments).unwrap_err())
    }

    #[test]
    fn a_complaint_is_one_line_that_names_the_setting() {
        let missing = complaint(&["it"]);
        assert!(
            missing.contains("--url") && !missing.contains('\n'),
            "{missing}"
        );
        let wrong = complaint(&["it", "--url", "x", "--prefetch", "many"]);
        assert!(
            wrong.contains("--prefetch") && wrong.contains("many"),
            "{wrong}"
        );
        assert!(!wrong.contains('\n') && !wrong.contains("Usage"), "{wrong}");
    }

    #[test]
    fn right_settings_are_read() {
        let settings = Settings::try_parse_from(["it", "--url", "x"]).unwrap();
        assert_eq!((settings.prefetch, settings.url.as_str()), (16, "x"));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let shown = WrongSetting::new("LISTEN", "nowhere", "an address").to_string();
        assert_eq!(
            shown,
            r#"wrong setting LISTEN "nowhere": right is an address"#
        );
        let hidden = WrongSetting::secret("REDIS_URL", "redis://:PASSWORD@HOST/0").to_string();
        assert_eq!(
            hidden,
            "wrong setting REDIS_URL: right is redis://:PASSWORD@HOST/0"
        );
    }
}
