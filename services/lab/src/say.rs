//! What the program tells the person in front of it.
//!
//! Results and progress go to standard output, complaints to standard error. Nobody reading (a closed pipe) is not
//! an error: `lab up | head` must not take the stack down.

use std::fmt::{self, Display, Formatter};
use std::io::{Write, stderr, stdout};
use std::time::{Duration, Instant};

/// One line of result or progress.
pub fn line(text: impl Display) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// One line about something that went wrong.
pub fn complain(text: impl Display) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// A text of somebody else's in one line: without what a terminal obeys, or what makes one line look like another.
pub fn plain(text: &str) -> String {
    let hides = |c: char| {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        c.is_control() || turns || matches!(c, '\u{200b}'..='\u{200f}')
    };
    text.chars()
        .map(|c| if hides(c) { ' ' } else { c })
        .collect()
}

/// What cannot be done as it was asked for: one line, and exit code 2, before anything was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage(pub String);

impl Usage {
    /// The exit code.
    pub const EXIT_CODE: u8 = 2;
}

impl Display for Usage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Asks a question with the answer no as default.
pub fn confirm(question: &str) -> std::io::Result<bool> {
    let mut out = stdout().lock();
    write!(out, "{question} [y/N] ")?;
    out.flush()?;
    drop(out);
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Where the lines of progress of one piece of work go: the terminal, or a client of the control socket.
pub type Tell<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Progress on the terminal.
pub fn tell(text: &str) {
    line(text);
}

/// Puts in front of each step how long it took.
pub struct Steps<'a> {
    tell: Tell<'a>,
    begun: Instant,
}

impl<'a> Steps<'a> {
    /// Starts the clock.
    pub fn new(tell: Tell<'a>) -> Self {
        Self {
            tell,
            begun: Instant::now(),
        }
    }

    /// A step that started at `since` is done.
    pub fn done(&self, since: Instant, what: impl Display) {
        (self.tell)(&format!("{:>7}  {what}", seconds(since.elapsed())));
    }

    /// Something worth knowing that took no time.
    pub fn note(&self, what: impl Display) {
        (self.tell)(&format!("{:>7}  {what}", ""));
    }

    /// The time since the clock was started.
    pub fn total(&self) -> String {
        seconds(self.begun.elapsed())
    }
}

/// `0.3 s`
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Three digits at least, in the unit that suits.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub fn time(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..100_000 => format!("{:.1} ms", us as f64 / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// `1,234,567`
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_obeys_no_terminal_and_keeps_its_quotes() {
        assert_eq!(plain("say \"x\"\n\u{1b}[2J"), "say \"x\"  [2J");
        assert_eq!(plain("a\u{202e}b\u{200b}c"), "a b c");
    }

    #[test]
    fn large_numbers_can_be_read() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(count), text);
        }
    }
}
