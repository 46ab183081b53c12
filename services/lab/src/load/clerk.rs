//! The thread that keeps time and the record: it puts each request on record when it is due, then hands it on.
//!
//! A thread of its own, for two reasons. The timers of the runtime tick in milliseconds, and what they are late would
//! count as latency of the system. And a write to a busy disk may take long; here it holds nothing but the record.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::poison::Poison;
use super::schedule::Schedule;
use crate::run::requests::{Line, Offered, Recorder};

/// Those due within this time travel together: waking up for each would cost more than sending it.
const TOGETHER: Duration = Duration::from_micros(500);
/// Most lines in one write.
const LINES_MAX: usize = 1_000;

/// What the clerk is told.
#[derive(Debug)]
pub(super) enum Note {
    /// To be put on record.
    Answered(Vec<Line>),
    /// Offer no more.
    Stop,
}

pub(super) struct Clerk {
    pub(super) recorder: Recorder,
    pub(super) schedule: Schedule,
    pub(super) poison: Poison,
    pub(super) messages: u32,
    pub(super) began: Instant,
}

impl Clerk {
    /// Until nobody has anything to put on record any more. `due` ends with the last request.
    pub(super) fn run(
        mut self,
        due: UnboundedSender<Vec<Offered>>,
        notes: &Receiver<Note>,
    ) -> io::Result<()> {
        let mut next = 0;
        let mut due = Some(due);
        loop {
            let mut wait = None;
            if let Some(way) = &due {
                let batch = self.due_now(&mut next);
                // on record first, sent then
                if !batch.is_empty() {
                    let lines: Vec<Line> = batch.iter().copied().map(Line::Offered).collect();
                    self.recorder.append(&lines)?;
                }
                if (!batch.is_empty() && way.send(batch).is_err()) || next == self.schedule.count()
                {
                    due = None;
                } else {
                    let until = Duration::from_micros(self.schedule.due_us(next));
                    let until = until.saturating_sub(self.began.elapsed());
                    wait = Some(if until.is_zero() {
                        until
                    } else {
                        until.max(TOGETHER)
                    });
                }
            }
            match receive(notes, wait) {
                Ok(Note::Answered(lines)) => self.recorder.append(&lines)?,
                Ok(Note::Stop) => due = None,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn due_now(&mut self, next: &mut u64) -> Vec<Offered> {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut batch = Vec::new();
        while *next < self.schedule.count() && batch.len() < LINES_MAX {
            let due_us = self.schedule.due_us(*next);
            if due_us > now {
                break;
            }
            batch.push(Offered {
                number: *next,
                due_us,
                messages: self.messages,
                poison: self.poison.takes_next(),
            });
            *next += 1;
        }
        batch
    }
}

fn receive(notes: &Receiver<Note>, wait: Option<Duration>) -> Result<Note, RecvTimeoutError> {
    match wait {
        Some(wait) => notes.recv_timeout(wait),
        None => notes.recv().map_err(RecvTimeoutError::from),
    }
}
