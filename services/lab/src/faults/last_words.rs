//! What a node said before it died. Nothing else tells of what it died: its counts went with it.

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::Look;
use super::site::Identity;

/// Whether this process of a node wrote a line with all these words since then. None: its log cannot be read from here.
pub async fn said(
    look: &dyn Look,
    node: &str,
    process: &Identity,
    since: DateTime<Utc>,
    words: &[&str],
) -> Result<Option<bool>> {
    let since = later(process, since);
    let log = look.log(node, process, since).await?;
    Ok(log.map(|log| has_line(&log, since, words)))
}

/// Nor before it was started: where the system tells that, it does so by the clock that the lines have.
fn later(process: &Identity, since: DateTime<Utc>) -> DateTime<Utc> {
    let started = process.started.parse();
    started.map_or(since, |started| since.max(started))
}

/// Why a log does not tell, though it can be read: the node's `LOG` keeps such lines out. `log` is the least grave of what it
/// takes; older nodes do not say.
pub fn mute(log: Option<&str>, a_crash: bool) -> Option<&'static str> {
    match log {
        Some("off") => Some("its LOG keeps errors out of its log"),
        Some("error") if !a_crash => Some("its LOG keeps warnings out of its log"),
        _ => None,
    }
}

fn has_line(log: &str, since: DateTime<Utc>, words: &[&str]) -> bool {
    let mut lines = log.lines();
    lines.any(|line| {
        words.iter().all(|word| line.contains(word)) && at(line).is_some_and(|at| at >= since)
    })
}

/// The time that stands in a line, be it JSON or for people.
fn at(line: &str) -> Option<DateTime<Utc>> {
    let mut words = line.split(|c: char| c.is_whitespace() || c == '"');
    words.find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_since_then_with_all_the_words_counts() {
        let log = r#"{"node":"receiver-1","timestamp":"2026-11-21T09:00:00.5Z","message":"a fail point acts","fail_point":"settle.before_ack"}
2026-11-21T09:00:01.5Z  WARN receiver-1 a fail point acts fail_point="relay.after_publish"
a line without a time: a fail point acts at consumer.on_delivery"#;
        let says = |since: &str, point| {
            let since = format!("2026-11-21T09:00:{since}Z").parse().unwrap();
            has_line(log, since, &["a fail point acts", point])
        };
        assert!(says("00", "settle.before_ack"));
        assert!(!says("01", "settle.before_ack"), "it was before");
        assert!(says("01", "relay.after_publish"));
        assert!(!says("00", "relay.after_confirm"));
        assert!(!says("00", "consumer.on_delivery"));
    }

    #[test]
    fn what_was_written_before_the_process_was_started_is_of_an_older_one() {
        let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let since = time("2026-11-21T09:00:00Z");
        for (started, begin) in [
            ("2026-11-21T09:00:01.5Z", "2026-11-21T09:00:01.5Z"),
            ("2026-11-21T08:59:59Z", "2026-11-21T09:00:00Z"),
            // ticks after boot
            ("123456", "2026-11-21T09:00:00Z"),
        ] {
            let process = Identity {
                name: "pid 1".to_owned(),
                started: started.to_owned(),
            };
            assert_eq!(later(&process, since), time(begin), "{started}");
        }
    }

    #[test]
    fn a_log_without_errors_tells_of_nothing_and_one_without_warnings_of_a_crash() {
        let crash = [None, Some("warn"), Some("error"), Some("off")];
        assert_eq!(
            crash.map(|log| mute(log, true).is_some()),
            [false, false, false, true]
        );
        assert_eq!(
            crash.map(|log| mute(log, false).is_some()),
            [false, false, true, true]
        );
    }
}
