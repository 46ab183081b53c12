//! What the lessees of a load were told: `leases.log`, a line per fact, all times in microseconds after the run's start and
//! by this machine's own clock, which is never set.
//!
//! ```text
//! l LEASE LESSEE ID NUMBER COUNT MS ASKED_US TOLD_US  leased for MS milliseconds, for the COUNTth time
//! c LEASE intime|late ASKED_US                       a confirm is about to be sent
//! r LEASE STATUS TOLD_US                             what it was answered; 0: nothing
//! e dry|stopped|tired TOLD_US                        the lessees went: the queue was empty; they were told to; they gave up
//! ```
//!
//! A confirm is on record before anything of it is sent. One without an answer is unknown. The work of a lessee that is
//! late is rolled back by then, so what its confirm is answered is nobody's effect.

use std::io::{self, Write};

use uuid::Uuid;

use super::record;

/// Why lessees went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    /// Nothing was left in the queue.
    Dry,
    Stopped,
    /// Something was left, and for long nobody got it.
    Tired,
}

impl Went {
    const ALL: [Self; 3] = [Self::Dry, Self::Stopped, Self::Tired];

    fn word(self) -> &'static str {
        match self {
            Self::Dry => "dry",
            Self::Stopped => "stopped",
            Self::Tired => "tired",
        }
    }
}

/// A lease that somebody got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased {
    /// Which, counted from 0.
    pub lease: u64,
    pub lessee: u32,
    pub id: Uuid,
    /// The request that the message says it is of; none: it says nothing that can be read.
    pub number: Option<u64>,
    /// How often it was leased by then.
    pub count: u32,
    pub ms: u64,
    pub asked_us: u64,
    pub told_us: u64,
}

/// One fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Leased(Leased),
    Confirms {
        lease: u64,
        late: bool,
        asked_us: u64,
    },
    Answered {
        lease: u64,
        status: u16,
        told_us: u64,
    },
    Went {
        why: Went,
        told_us: u64,
    },
}

impl record::Line for Line {
    const FILE: &'static str = "leases.log";
    const WHAT: &'static str = "the record of leases";

    fn write(&self, text: &mut Vec<u8>) -> io::Result<()> {
        match *self {
            Self::Leased(Leased {
                lease,
                lessee,
                id,
                number,
                count,
                ms,
                asked_us,
                told_us,
            }) => {
                let number = number.map_or_else(|| "-".to_owned(), |number| number.to_string());
                writeln!(
                    text,
                    "l {lease} {lessee} {id} {number} {count} {ms} {asked_us} {told_us}"
                )
            }
            Self::Confirms {
                lease,
                late,
                asked_us,
            } => {
                let how = if late { "late" } else { "intime" };
                writeln!(text, "c {lease} {how} {asked_us}")
            }
            Self::Answered {
                lease,
                status,
                told_us,
            } => writeln!(text, "r {lease} {status} {told_us}"),
            Self::Went { why, told_us } => writeln!(text, "e {} {told_us}", why.word()),
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let line = match words.next()? {
            "l" => Self::Leased(Leased {
                lease: words.next()?.parse().ok()?,
                lessee: words.next()?.parse().ok()?,
                id: words.next()?.parse().ok()?,
                number: match words.next()? {
                    "-" => None,
                    number => Some(number.parse().ok()?),
                },
                count: words.next()?.parse().ok()?,
                ms: words.next()?.parse().ok()?,
                asked_us: words.next()?.parse().ok()?,
                told_us: words.next()?.parse().ok()?,
            }),
            "c" => Self::Confirms {
                lease: words.next()?.parse().ok()?,
                late: match words.next()? {
                    "late" => true,
                    "intime" => false,
                    _ => return None,
                },
                asked_us: words.next()?.parse().ok()?,
            },
            "r" => Self::Answered {
                lease: words.next()?.parse().ok()?,
                status: words.next()?.parse().ok()?,
                told_us: words.next()?.parse().ok()?,
            },
            "e" => {
                let why = words.next()?;
                Self::Went {
                    why: Went::ALL.into_iter().find(|one| one.word() == why)?,
                    told_us: words.next()?.parse().ok()?,
                }
            }
            _ => return None,
        };
        words.next().is_none().then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::record::{Recorder, read};
    use crate::run::tests::Root;

    #[test]
    fn lines_come_back_as_they_were_written_and_a_damaged_one_is_an_error() {
        let root = Root::new();
        let run = root.run("r1");
        let leased = Leased {
            lease: 3,
            lessee: 1,
            id: Uuid::from_u128(7),
            number: Some(12),
            count: 2,
            ms: 500,
            asked_us: 10,
            told_us: 20,
        };
        let mut lines = vec![
            Line::Leased(leased),
            Line::Leased(Leased {
                number: None,
                ..leased
            }),
            Line::Answered {
                lease: 3,
                status: 204,
                told_us: 40,
            },
        ];
        lines.extend([false, true].map(|late| Line::Confirms {
            lease: 3,
            late,
            asked_us: 30,
        }));
        lines.extend(Went::ALL.map(|why| Line::Went { why, told_us: 50 }));
        let mut recorder = Recorder::create(&run).unwrap();
        recorder.append(&lines).unwrap();
        let path = run.path("leases.log");
        let again: io::Result<Vec<Line>> = read(&path).unwrap().collect();
        assert_eq!(again.unwrap(), lines);
        for damaged in ["e why 1", "c 1 perhaps 2", "r 1 204", "r 1 2 3 4", ""] {
            std::fs::write(&path, format!("{damaged}\n")).unwrap();
            let read: Vec<io::Result<Line>> = read(&path).unwrap().collect();
            let error = read[0].as_ref().unwrap_err().to_string();
            assert!(error.contains("line 1 of the record of leases"), "{error}");
        }
    }
}
