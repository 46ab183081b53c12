//! Settings that are wrong, and how to say so: one line that names the setting, exit code 2.
//!
//! A setting is named as it was given: by its flag where that is on the command line, and else by
//! its environment variable.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    error::Error,
    ffi::{OsStr, OsString},
    io::Write,
    num::{IntErrorKind, ParseIntError},
    process::ExitCode,
};

use clap::{
    Arg, ArgMatches, Command, FromArgMatches, Id,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// A setting with a value that cannot be used.
///
/// The value is shown so that the reader recognises it, but never for a setting that may hold a
/// password: those are made with [`WrongSetting::secret`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wrong setting {name}{shown}: {why}", shown = shown(self.value.as_deref()))]
pub struct WrongSetting {
    name: Cow<'static, str>,
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
            name: name.into(),
            value: Some(value.into()),
            why: format!("right is {}", right.into()),
        }
    }

    /// As [`WrongSetting::new`], for a value that must not be printed.
    pub fn secret(name: &'static str, right: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            value: None,
            why: format!("right is {}", right.into()),
        }
    }

    /// `name` does not do, because of this; for what shows only later, or needs a sentence.
    pub fn because(name: impl Into<Cow<'static, str>>, why: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: None,
            why: why.into(),
        }
    }

    /// The same, of a setting that people know by another name.
    #[must_use]
    pub fn called(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// The setting's name as an environment variable, or as a flag where it was given as one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names the flag where these arguments hold it: each variable has the flag of its name.
    #[must_use]
    pub fn as_given(self, arguments: &[OsString]) -> Self {
        let flag = self.name.to_lowercase().replace('_', "-");
        if given(&flag, arguments) {
            self.called(format!("--{flag}"))
        } else {
            self
        }
    }

    /// Prints the line on standard error and gives the exit code.
    pub fn report(&self) -> ExitCode {
        complain(&self.to_string());
        ExitCode::from(Self::EXIT_CODE)
    }
}

/// How the names of settings end that are told to nobody.
const SECRET: [&str; 4] = ["_url", "_token", "_key", "_key_old"];

/// All settings of this process as they were read, by their variables; no URL, token or key, since those are or hold secrets.
///
/// Flattened into the arguments of a service it adds none, and sees them all if it comes first: whoever reads an argument
/// takes it away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllSettings(pub BTreeMap<String, String>);

impl FromArgMatches for AllSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut all = BTreeMap::new();
        for id in matches.ids().map(Id::as_str) {
            // groups are listed too, and are no arguments
            if let Ok(Some(values)) = matches.try_get_raw(id)
                && !SECRET.iter().any(|end| id.ends_with(end))
                && id.starts_with(|first: char| first.is_ascii_lowercase())
            {
                let values: Vec<_> = values.map(OsStr::to_string_lossy).collect();
                all.insert(id.to_uppercase(), values.join(","));
            }
        }
        Ok(Self(all))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for AllSettings {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
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
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    P::try_parse_from(&arguments).map_err(|error| {
        if error.use_stderr() {
            wrong(&error, P::command(), &arguments).report()
        } else {
            let _ = error.print();
            ExitCode::SUCCESS
        }
    })
}

/// What clap complains about when it reads these arguments and the environment.
pub fn wrong(error: &clap::Error, mut command: Command, arguments: &[OsString]) -> WrongSetting {
    // Arguments know their names only then.
    command.build();
    let command = &command;
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(name)) => vec![name.clone()],
        Some(ContextValue::Strings(names)) => names.clone(),
        _ => Vec::new(),
    };
    let found = |name: &String| {
        find(command, name).map_or_else(|| name.clone(), |arg| name_of(arg, arguments))
    };
    let name = named.iter().map(found).collect::<Vec<_>>().join(", ");
    match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let mut about = named.iter().filter_map(|name| find(command, name));
            let hidden = about.any(Arg::is_hide_env_values_set);
            let value = match error.get(ContextKind::InvalidValue) {
                Some(ContextValue::String(value)) if !hidden => Some(value.clone()),
                _ => None,
            };
            WrongSetting {
                value,
                ..WrongSetting::because(name, why(error))
            }
        }
        ErrorKind::MissingRequiredArgument => WrongSetting::because(name, "not set"),
        ErrorKind::UnknownArgument => {
            WrongSetting::because(name, "there is no such setting; --help lists them")
        }
        ErrorKind::InvalidUtf8 => {
            let name = unreadable(command).unwrap_or_else(|| "of the command line".to_owned());
            WrongSetting::because(name, "right is text in UTF-8")
        }
        _ if name.is_empty() => WrongSetting::because("on the command line", one_line(error)),
        _ => WrongSetting::because(name, one_line(error)),
    }
}

/// Why a value does not do, for people who know no Rust.
fn why(error: &clap::Error) -> String {
    if let Some(ContextValue::Strings(values)) = error.get(ContextKind::ValidValue)
        && !values.is_empty()
    {
        return format!("right is {}", values.join(" or "));
    }
    let Some(source) = error.source() else {
        return "a value is missing".to_owned();
    };
    match source
        .downcast_ref::<ParseIntError>()
        .map(ParseIntError::kind)
    {
        Some(IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => {
            "the number is too large".to_owned()
        }
        Some(_) => "right is a whole number, not negative".to_owned(),
        None => source.to_string(),
    }
}

/// The argument that clap calls by this name, which is its flag with what stands behind it.
fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command
        .get_arguments()
        .find(|arg| arg.to_string() == name)
        .or_else(|| {
            command
                .get_subcommands()
                .find_map(|command| find(command, name))
        })
}

/// The flag where it is on the command line, and else the variable.
fn name_of(arg: &Arg, arguments: &[OsString]) -> String {
    let flag = arg.get_long().unwrap_or_default();
    match arg.get_env() {
        Some(variable) if !given(flag, arguments) => variable.to_string_lossy().into_owned(),
        _ if flag.is_empty() => arg.to_string(),
        _ => format!("--{flag}"),
    }
}

fn given(flag: &str, arguments: &[OsString]) -> bool {
    let is_flag = |argument: &OsString| {
        let rest = argument.to_str().and_then(|text| text.strip_prefix("--"));
        rest.is_some_and(|rest| rest.split('=').next() == Some(flag))
    };
    arguments.iter().any(is_flag)
}

/// The first variable that is not UTF-8: clap does not tell which one it was.
fn unreadable(command: &Command) -> Option<String> {
    let wrong = |arg: &&Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.to_str().is_none())
    };
    let variable = command.get_arguments().find(wrong)?.get_env()?;
    Some(variable.to_string_lossy().into_owned())
}

/// Clap's complaint without usage, hints and line breaks.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let complaint = text.split("\n\nUsage:").next().unwrap_or(text);
    let complaint = complaint
        .split("\n\nFor more information")
        .next()
        .unwrap_or(complaint);
    complaint.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Settings {
        #[command(flatten)]
        all: AllSettings,
        /// PATH is a variable that is set wherever tests run, and no number anywhere.
        #[arg(long, env = "PATH", default_value_t = 16)]
        prefetch: u16,
        #[arg(long, env = "DAEMON_TEST_URL")]
        url: String,
        #[arg(long, env = "DAEMON_TEST_ROUNDS", default_value_t = 1,
              value_parser = clap::value_parser!(u16).range(1..=2000))]
        rounds: u16,
        #[arg(long, env = "DAEMON_TEST_SECURE", default_value_t = false, action = clap::ArgAction::Set)]
        secure: bool,
        #[arg(
            long,
            env = "DAEMON_TEST_SECRET",
            default_value_t = 1,
            hide_env_values = true
        )]
        secret: u16,
    }

    fn complaint(arguments: &[&str]) -> String {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let error = Settings::try_parse_from(&arguments).unwrap_err();
        wrong(&error, Settings::command(), &arguments).to_string()
    }

    #[test]
    fn a_flag_is_named_by_the_flag() {
        let good = ["it", "--url", "x", "--prefetch", "1"];
        for (more, said) in [
            (
                ["--rounds", "0"],
                "wrong setting --rounds \"0\": 0 is not in 1..=2000",
            ),
            (
                ["--rounds=many", ""],
                "wrong setting --rounds \"many\": right is a whole number, not negative",
            ),
            (
                ["--rounds=-1", ""],
                "wrong setting --rounds \"-1\": -1 is not in 1..=2000",
            ),
            (
                ["--secure", "yes"],
                "wrong setting --secure \"yes\": right is true or false",
            ),
            (
                ["--loud", "1"],
                "wrong setting --loud: there is no such setting; --help lists them",
            ),
            (
                ["--secret", "hunter2"],
                "wrong setting --secret: right is a whole number, not negative",
            ),
        ] {
            let more = more.into_iter().filter(|word| !word.is_empty());
            let arguments: Vec<&str> = good.into_iter().chain(more).collect();
            assert_eq!(complaint(&arguments), said);
        }
        assert_eq!(
            complaint(&["it", "--url", "x", "--prefetch"]),
            "wrong setting --prefetch \"\": a value is missing"
        );
    }

    #[test]
    fn a_variable_is_named_by_the_variable() {
        let said = complaint(&["it", "--url", "x"]);
        assert!(said.starts_with("wrong setting PATH \""), "{said}");
        let missing = complaint(&["it", "--prefetch", "1"]);
        assert_eq!(missing, "wrong setting DAEMON_TEST_URL: not set");
    }

    #[test]
    fn any_other_complaint_is_one_line_without_its_own_heading() {
        let twice = complaint(&["it", "--url", "x", "--prefetch", "1", "--url", "y"]);
        assert!(
            twice.starts_with("wrong setting --url: the argument '--url <URL>' cannot"),
            "{twice}"
        );
        assert!(!twice.contains('\n') && !twice.contains("Usage"), "{twice}");
    }

    #[test]
    fn right_settings_are_read() {
        let settings = Settings::try_parse_from(["it", "--url", "x", "--prefetch", "1"]).unwrap();
        assert_eq!(
            (settings.prefetch, settings.rounds, settings.secret),
            (1, 1, 1)
        );
        assert_eq!((settings.url.as_str(), settings.secure), ("x", false));
    }

    #[test]
    fn what_a_process_finds_wrong_later_is_named_as_it_was_given() {
        let wrong = WrongSetting::secret("REDIS_URL", "a URL");
        let by_flag = ["it", "--redis-url=x"].map(OsString::from);
        assert_eq!(wrong.clone().as_given(&by_flag).name(), "--redis-url");
        let by_variable = ["it", "--redis-url-prefix", "x"].map(OsString::from);
        assert_eq!(wrong.as_given(&by_variable).name(), "REDIS_URL");
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
