//! How a process speaks: lines for people on a terminal, JSON otherwise, on standard error.
//!
//! Every line names the node. A panic is a log line too, so that no line breaks the format.

use std::{fmt, io::IsTerminal};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields, Layer,
        format::{JsonFields, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{WrongSetting, node::Node};

/// The settings of the log.
#[derive(Debug, Clone, clap::Args)]
pub struct TelemetryArgs {
    /// What is logged, as a tracing filter: a level, or for example "info,sqlx=debug"
    #[arg(long, env = "LOG", default_value = "info")]
    pub log: String,
    /// How it is logged: auto is human on a terminal and JSON otherwise
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Libraries that say at length what we say ourselves, once. A filter that names them has the last
/// word.
const QUIET: &str =
    "sqlx::postgres::notice=warn,tower_sessions=off,tower_sessions_core=off,fred=off,lapin=off";

pub(crate) fn filter(args: &TelemetryArgs) -> Result<EnvFilter, WrongSetting> {
    EnvFilter::try_new(format!("{QUIET},{}", args.log)).map_err(|_| {
        WrongSetting::new(
            "LOG",
            &args.log,
            "a tracing filter, for example info,sqlx=debug",
        )
    })
}

/// Starts logging. Where a log is already set up, as in tests, that one stays.
pub fn init(args: &TelemetryArgs, node: &Node) -> Result<(), WrongSetting> {
    let filter = filter(args)?;
    let terminal = std::io::stderr().is_terminal();
    let json = match args.log_format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let started = if json {
        let format = tracing_subscriber::fmt::format()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(true);
        let layer = Layer::new()
            .with_writer(std::io::stderr)
            .fmt_fields(JsonFields::new())
            .event_format(NamesTheNode::json(format, node));
        registry.with(layer).try_init()
    } else {
        let format = tracing_subscriber::fmt::format()
            .with_ansi(terminal)
            .compact();
        let layer = Layer::new()
            .with_writer(std::io::stderr)
            .with_ansi(terminal)
            .event_format(NamesTheNode::human(format, node));
        registry.with(layer).try_init()
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let what = panic.payload_as_str().unwrap_or("a panic without words");
    let place = panic.location().map(ToString::to_string);
    tracing::error!(place, "panic: {what}");
}

/// Puts the node into each line that the format inside writes.
struct NamesTheNode<F> {
    inside: F,
    prefix: String,
    /// How many characters of the inner line the prefix replaces.
    replaces: usize,
}

impl<F> NamesTheNode<F> {
    /// Names and services hold nothing that JSON would escape.
    fn json(inside: F, node: &Node) -> Self {
        let prefix = format!(r#"{{"service":"{}","node":"{}","#, node.service, node.name);
        Self {
            inside,
            prefix,
            replaces: 1,
        }
    }

    fn human(inside: F, node: &Node) -> Self {
        Self {
            inside,
            prefix: format!("{} ", node.name),
            replaces: 0,
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for NamesTheNode<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(256);
        let inner = Writer::new(&mut line);
        self.inside.format_event(context, inner, event)?;
        writer.write_str(&self.prefix)?;
        writer.write_str(line.get(self.replaces..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::node::NodeArgs;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_names_the_node_and_is_json() {
        let node = NodeArgs {
            node_name: Some("sender-1".to_owned()),
        }
        .node("sender")
        .unwrap();
        let page = Page::default();
        let sink = page.clone();
        let format = tracing_subscriber::fmt::format().json().flatten_event(true);
        let layer = Layer::new()
            .with_writer(move || sink.clone())
            .fmt_fields(JsonFields::new())
            .event_format(NamesTheNode::json(format, &node));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(message.id = 7, "accepted");
        });
        let line = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["node"], "sender-1");
        assert_eq!(line["service"], "sender");
        assert_eq!(line["message.id"], 7);
    }

    #[test]
    fn a_wrong_filter_is_a_wrong_setting() {
        let node = NodeArgs::default().node("sender").unwrap();
        let args = TelemetryArgs {
            log: "info=loud=x".to_owned(),
            log_format: LogFormat::Auto,
        };
        assert_eq!(init(&args, &node).unwrap_err().name(), "LOG");
    }
}
