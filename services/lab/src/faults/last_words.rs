//! What a node said before it died. Nothing else tells of what it died: its counts went with it.

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::Look;

/// Whether a node's log has had a line with all these words since then. None: its log cannot be read from here.
pub async fn said(
    look: &dyn Look,
    node: &str,
    since: DateTime<Utc>,
    words: &[&str],
) -> Result<Option<bool>> {
    let log = look.log(node, since).await?;
    Ok(log.map(|log| has_line(&log, since, words)))
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
}
