//! The load's own record of its requests: `requests.log`, append-only text, a line per fact.
//!
//! ```text
//! o NUMBER DUE_US MESSAGES POISON     offered: when it was due, microseconds after the run's start
//! a NUMBER ANSWER TRIES DONE_US       answered for good: accepted, refused or unknown
//! i NUMBER ID                         the id that the yes told, where the ledger does not know the number
//! ```
//!
//! A request is on record before anything of it is sent, so no message of a run can be one that the record does not
//! know. An offered request without an answer is unknown.

use std::io::{self, Write};
use std::path::Path;

use uuid::Uuid;

use super::record;

/// The record's name in the folder of a run.
pub const FILE: &str = "requests.log";

/// What a client was told in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Accepted,
    /// Definitely: nothing was stored.
    Refused,
    Unknown,
}

impl Answer {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Accepted, Self::Refused, Self::Unknown]
            .into_iter()
            .find(|answer| answer.word() == word)
    }
}

/// A request that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered {
    pub number: u64,
    pub due_us: u64,
    pub messages: u32,
    /// The work of its messages fails at every attempt.
    pub poison: bool,
}

/// The end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    pub number: u64,
    pub answer: Answer,
    /// 0: it was never sent.
    pub tries: u32,
    pub done_us: u64,
}

/// As what a request was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    pub number: u64,
    pub id: Uuid,
}

/// One fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Offered(Offered),
    Answered(Answered),
    Named(Named),
}

impl record::Line for Line {
    const FILE: &'static str = FILE;
    const WHAT: &'static str = "the record of requests";

    fn write(&self, text: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Offered(Offered {
                number,
                due_us,
                messages,
                poison,
            }) => {
                let poison = u8::from(*poison);
                writeln!(text, "o {number} {due_us} {messages} {poison}")
            }
            Self::Answered(Answered {
                number,
                answer,
                tries,
                done_us,
            }) => {
                let answer = answer.word();
                writeln!(text, "a {number} {answer} {tries} {done_us}")
            }
            Self::Named(Named { number, id }) => writeln!(text, "i {number} {id}"),
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let kind = words.next()?;
        let number = words.next()?.parse().ok()?;
        let line = match kind {
            "o" => Self::Offered(Offered {
                number,
                due_us: words.next()?.parse().ok()?,
                messages: words.next()?.parse().ok()?,
                poison: match words.next()? {
                    "0" => false,
                    "1" => true,
                    _ => return None,
                },
            }),
            "a" => Self::Answered(Answered {
                number,
                answer: Answer::of(words.next()?)?,
                tries: words.next()?.parse().ok()?,
                done_us: words.next()?.parse().ok()?,
            }),
            "i" => Self::Named(Named {
                number,
                id: words.next()?.parse().ok()?,
            }),
            _ => return None,
        };
        words.next().is_none().then_some(line)
    }
}

/// The writing end.
pub type Recorder = record::Recorder<Line>;

/// Reads a record line by line, in memory that does not grow.
pub fn read(path: &Path) -> io::Result<impl Iterator<Item = io::Result<Line>> + use<>> {
    record::read(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::run::RunDir;
    use crate::run::tests::Root;

    fn offered(number: u64) -> Line {
        Line::Offered(Offered {
            number,
            due_us: number * 20_000,
            messages: 3,
            poison: number % 2 == 1,
        })
    }

    fn answered(number: u64, answer: Answer) -> Line {
        Line::Answered(Answered {
            number,
            answer,
            tries: 2,
            done_us: 1_234_567,
        })
    }

    fn all(run: &RunDir) -> Vec<Line> {
        let lines = read(&run.path(FILE)).unwrap();
        lines.collect::<io::Result<_>>().unwrap()
    }

    #[test]
    fn lines_come_back_in_the_order_of_writing() {
        let root = Root::new();
        let run = root.run("r1");
        let mut recorder = Recorder::create(&run).unwrap();
        let lines = [
            offered(0),
            offered(1),
            answered(1, Answer::Accepted),
            offered(2),
            answered(0, Answer::Unknown),
            answered(2, Answer::Refused),
            Line::Named(Named {
                number: 1,
                id: Uuid::from_u128(7),
            }),
        ];
        recorder.append(&lines[..2]).unwrap();
        recorder.append(&[]).unwrap();
        recorder.append(&lines[2..]).unwrap();
        assert_eq!(all(&run), lines);
        let text = fs::read_to_string(run.path(FILE)).unwrap();
        assert!(text.starts_with("o 0 0 3 0\no 1 20000 3 1\na 1 accepted 2 1234567\n"));
    }

    #[test]
    fn a_torn_last_line_is_not_a_line_wherever_it_is_torn() {
        let root = Root::new();
        let run = root.run("r1");
        let lines = [offered(0), answered(0, Answer::Accepted)];
        Recorder::create(&run).unwrap().append(&lines).unwrap();
        let text = fs::read(run.path(FILE)).unwrap();
        let first = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for end in first..text.len() {
            fs::write(run.path(FILE), &text[..end]).unwrap();
            assert_eq!(all(&run), lines[..1], "torn at {end}");
        }
    }

    #[test]
    fn a_damaged_line_is_an_error_that_says_where() {
        let root = Root::new();
        let run = root.run("r1");
        for damaged in [
            "o 1 2 3",
            "o 1 2 3 2",
            "o 1 2 3 1 4",
            "a 1 perhaps 1 1",
            "a -1 accepted 1 1",
            "i 1 7",
            "x 1",
            "",
        ] {
            fs::write(run.path(FILE), format!("o 0 0 1 0\n{damaged}\no 2 0 1 0\n")).unwrap();
            let read: Vec<io::Result<Line>> = read(&run.path(FILE)).unwrap().collect();
            assert!(read[0].is_ok() && read[2].is_ok());
            let error = read[1].as_ref().unwrap_err().to_string();
            assert!(error.contains("line 2"), "{damaged}: {error}");
        }
    }

    #[test]
    fn a_run_has_one_record() {
        let root = Root::new();
        let run = root.run("r1");
        let _first = Recorder::create(&run).unwrap();
        assert!(Recorder::create(&run).is_err());
    }
}
