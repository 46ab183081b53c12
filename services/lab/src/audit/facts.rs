//! What the records say of every request, gathered by its number in memory that does not grow.
//!
//! Records come in any order: the load's in the order of time, the ledger's in the order of ids. They are scattered into
//! two files, and read back in the order of numbers:
//!
//! - a *head* per request: what the client was told, how many messages it had, where their places begin
//! - a *place* per message: how many rows, how many effects, whether it was parked

use std::io;
use std::path::Path;

use super::pages::Pages;
use super::verdict::{Effects, Facts, Rows, Told};
use crate::run::requests::{Answer, Line, Offered};

/// 8 MiB in memory for each file.
const HELD: usize = 2_048;
/// The highest number that a key can hold.
const HIGHEST: u64 = 9_999_999_999;
/// The memory of a file in tests can be this small.
#[cfg(test)]
const FEW: usize = 2;

/// What is known of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Head {
    first_place: u64,
    messages: u32,
    offered: bool,
    poison: bool,
    stored: bool,
    answer: Option<Answer>,
}

impl Head {
    fn read(bytes: [u8; 16]) -> Self {
        let [flags, answer] = [bytes[12], bytes[13]];
        Self {
            first_place: u64::from_le_bytes(part(&bytes, 0)),
            messages: u32::from_le_bytes(part(&bytes, 8)),
            offered: flags & 1 > 0,
            poison: flags & 2 > 0,
            stored: flags & 4 > 0,
            answer: match answer {
                1 => Some(Answer::Accepted),
                2 => Some(Answer::Refused),
                3 => Some(Answer::Unknown),
                _ => None,
            },
        }
    }

    fn write(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.first_place.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.messages.to_le_bytes());
        let flags = [self.offered, self.poison, self.stored];
        bytes[12] = flags
            .iter()
            .rev()
            .fold(0, |all, flag| all << 1 | u8::from(*flag));
        bytes[13] = match self.answer {
            None => 0,
            Some(Answer::Accepted) => 1,
            Some(Answer::Refused) => 2,
            Some(Answer::Unknown) => 3,
        };
        bytes
    }
}

fn part<const N: usize>(bytes: &[u8; 16], from: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[from..from + N]);
    part
}

/// What the ledger has of one message id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    pub effects: u32,
    pub parked: bool,
}

/// The requests of a run by what the clients were told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Requests {
    pub offered: u64,
    /// Messages in them.
    pub messages: u64,
    pub accepted: u64,
    pub refused: u64,
    pub unknown: u64,
}

/// One message of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub number: u64,
    pub position: u32,
}

/// The two files.
#[derive(Debug)]
pub struct Scatter {
    heads: Pages<16>,
    places: Pages<4>,
    /// One more than the highest number.
    end: u64,
    places_end: u64,
    damaged: u64,
}

impl Scatter {
    /// Empty, in files without a name in this folder.
    pub fn new(folder: &Path) -> io::Result<Self> {
        Self::holding(folder, HELD)
    }

    #[cfg(test)]
    pub(super) fn small(folder: &Path) -> io::Result<Self> {
        Self::holding(folder, FEW)
    }

    fn holding(folder: &Path, pages: usize) -> io::Result<Self> {
        Ok(Self {
            heads: Pages::new(folder, pages)?,
            places: Pages::new(folder, pages)?,
            end: 0,
            places_end: 0,
            damaged: 0,
        })
    }

    /// A line of the load's record.
    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        match line {
            Line::Offered(offered) => self.offer(offered),
            // for whoever reads the ledger
            Line::Named(_) => Ok(()),
            Line::Answered(answered) if answered.number > HIGHEST => {
                self.damaged += 1;
                Ok(())
            }
            Line::Answered(answered) => {
                let mut head = Head::read(self.heads.get(answered.number)?);
                if head.answer.is_some() {
                    self.damaged += 1;
                    return Ok(());
                }
                head.answer = Some(answered.answer);
                self.end = self.end.max(answered.number + 1);
                self.heads.set(answered.number, head.write())
            }
        }
    }

    /// A request on the load's record.
    pub fn offer(&mut self, offered: &Offered) -> io::Result<()> {
        if offered.number > HIGHEST {
            self.damaged += 1;
            return Ok(());
        }
        let mut head = Head::read(self.heads.get(offered.number)?);
        if head.offered {
            self.damaged += 1;
            return Ok(());
        }
        head.offered = true;
        head.poison = offered.poison;
        head.messages = offered.messages;
        head.first_place = self.places_end;
        self.places_end += u64::from(offered.messages);
        self.end = self.end.max(offered.number + 1);
        self.heads.set(offered.number, head.write())
    }

    /// A message that the sender stored, with all that came of its id. False: nobody offered it.
    pub fn store(&mut self, number: u64, position: i32, seen: Seen) -> io::Result<bool> {
        if number >= self.end {
            return Ok(false);
        }
        let mut head = Head::read(self.heads.get(number)?);
        let position = u32::try_from(position).ok();
        let Some(position) = position.filter(|at| head.offered && *at < head.messages) else {
            return Ok(false);
        };
        if !head.stored {
            head.stored = true;
            self.heads.set(number, head.write())?;
        }
        let place = head.first_place + u64::from(position);
        let [rows, effects, parked, _] = self.places.get(place)?;
        let more = u8::try_from(seen.effects).unwrap_or(u8::MAX);
        let now = [
            rows.saturating_add(1),
            effects.saturating_add(more),
            parked | u8::from(seen.parked),
            0,
        ];
        self.places.set(place, now)?;
        Ok(true)
    }

    /// Every message of every request on the load's record, in order; `last` marks the end of a request.
    pub fn each(
        &mut self,
        mut deed: impl FnMut(Place, Facts, /* last */ bool),
    ) -> io::Result<Requests> {
        let mut requests = Requests::default();
        for number in 0..self.end {
            let head = Head::read(self.heads.get(number)?);
            if !head.offered {
                // an answer to nothing, or a number that was left out
                self.damaged += u64::from(head.answer.is_some());
                continue;
            }
            requests.offered += 1;
            requests.messages += u64::from(head.messages);
            let answer = head.answer.unwrap_or(Answer::Unknown);
            match answer {
                Answer::Accepted => requests.accepted += 1,
                Answer::Refused => requests.refused += 1,
                Answer::Unknown => requests.unknown += 1,
            }
            for position in 0..head.messages {
                let place = head.first_place + u64::from(position);
                let [rows, effects, parked, _] = self.places.get(place)?;
                let facts = Facts {
                    told: Told::from(answer),
                    rows: match (rows, head.stored) {
                        (0, false) => Rows::None,
                        (0, true) => Rows::Others,
                        (1, _) => Rows::One,
                        (_, _) => Rows::Many,
                    },
                    effects: Effects::of(u32::from(effects)),
                    parked: parked > 0,
                    poison: head.poison,
                };
                deed(
                    Place { number, position },
                    facts,
                    position + 1 == head.messages,
                );
            }
        }
        Ok(requests)
    }

    /// Lines of the load's record that contradict others.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_what_was_written() {
        for bits in 0..32_u8 {
            let head = Head {
                first_place: 0x0102_0304_0506_0708,
                messages: 0x0a0b_0c0d,
                offered: bits & 1 > 0,
                poison: bits & 2 > 0,
                stored: bits & 4 > 0,
                answer: [
                    None,
                    Some(Answer::Accepted),
                    Some(Answer::Refused),
                    Some(Answer::Unknown),
                ][usize::from(bits >> 3)],
            };
            assert_eq!(Head::read(head.write()), head);
        }
    }
}
