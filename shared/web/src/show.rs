//! How pages show nodes, times, numbers and texts that others wrote.

use askama::{Template, filters::HtmlSafe};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

/// A node's name in its colour.
#[derive(Debug, Clone, Template)]
#[template(path = "node.html")]
pub struct NodeName {
    name: String,
    colour: u8,
}

impl NodeName {
    /// The same colour for the same name, on every page.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            colour: daemon::node::colour(name),
        }
    }
}

// Safe inside other templates: it is made of escaped parts.
impl HtmlSafe for NodeName {}

/// A moment. The page says it in UTC; `time.js` turns it into the reader's own time.
#[derive(Debug, Clone, Template)]
#[template(path = "when.html")]
pub struct When {
    iso: String,
    utc: String,
    short: String,
}

impl When {
    /// The time of the day alone, where the moment is less than 12 hours from `now`.
    pub fn new(moment: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        let near = (now - moment).abs() < TimeDelta::hours(12);
        let short = if near { "%H:%M:%S" } else { "%-d %b %H:%M" };
        Self {
            iso: moment.to_rfc3339_opts(SecondsFormat::Millis, true),
            utc: moment.format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string(),
            short: moment.format(short).to_string(),
        }
    }

    /// In full, in UTC.
    pub fn utc(&self) -> &str {
        &self.utc
    }
}

impl HtmlSafe for When {}

/// A text that somebody wrote, in full; a long one folded.
#[derive(Debug, Clone, Template)]
#[template(path = "written.html")]
pub struct Written {
    text: String,
    /// How much of it is shown while it is folded.
    head: Option<String>,
    chars: String,
}

/// Texts up to this length are shown unfolded.
const UNFOLDED_MAX: usize = 280;
const HEAD: usize = 220;
const UNFOLDED_LINES: usize = 6;

impl Written {
    /// Any text.
    pub fn new(text: String) -> Self {
        let chars = text.chars().count();
        let lines = text.lines().count();
        let head = (chars > UNFOLDED_MAX || lines > UNFOLDED_LINES).then(|| {
            let lines: String = text
                .split_inclusive('\n')
                .take(UNFOLDED_LINES - 2)
                .collect();
            lines
                .chars()
                .take(HEAD)
                .collect::<String>()
                .trim_end()
                .to_owned()
        });
        Self {
            head,
            chars: number(i64::try_from(chars).unwrap_or(i64::MAX)),
            text,
        }
    }
}

impl HtmlSafe for Written {}

/// `1204` as `1,204`.
pub fn number(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        grouped.push('\u{2212}');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_threes() {
        let shown = [0, 999, 1_000, 1_204, 1_000_000, -12_345].map(number);
        assert_eq!(
            shown,
            ["0", "999", "1,000", "1,204", "1,000,000", "\u{2212}12,345"]
        );
    }

    #[test]
    fn a_moment_is_shown_with_its_date_when_it_is_long_past() {
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        let moment = at("2026-11-20T23:59:58.1234Z");
        let near = When::new(moment, at("2026-11-21T00:00:03Z")).to_string();
        assert!(near.contains(">23:59:58<"), "{near}");
        assert!(
            near.contains(r#"datetime="2026-11-20T23:59:58.123Z""#),
            "{near}"
        );
        assert!(near.contains("2026-11-20 23:59:58.123 UTC"), "{near}");
        let far = When::new(moment, at("2026-11-23T00:00:03Z")).to_string();
        assert!(far.contains(">20 Nov 23:59<"), "{far}");
    }

    #[test]
    fn what_others_wrote_is_text_and_never_markup() {
        let markup = "<script>alert('x')</script> & \"";
        let shown = Written::new(markup.to_owned()).to_string();
        assert!(!shown.contains("<script"), "{shown}");
        let shown = Written::new(markup.repeat(40)).to_string();
        assert!(
            !shown.contains("<script") && shown.contains("<details"),
            "{shown}"
        );
        let shown = NodeName::new("<b>\"").to_string();
        assert!(!shown.contains("<b>") && !shown.contains("\"\""), "{shown}");
    }
}
