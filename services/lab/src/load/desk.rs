//! What is due and what has come back: the counts of a load, and the lines that are yet to be put on record.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use super::clerk::Note;
use super::client::Ended;
use super::{Counts, Progress, rate};
use crate::run::requests::{Answer, Answered, Line, Named, Offered};

/// What is due and what has come back.
pub(super) struct Desk {
    began: Instant,
    pub(super) notes: mpsc::Sender<Note>,
    patience: Duration,
    waiting: VecDeque<Offered>,
    /// Answers that are not on record yet.
    lines: Vec<Line>,
    counts: Counts,
    times: Histogram<u64>,
    last: Duration,
    /// When `accepted` was how many, some ticks ago.
    marks: VecDeque<(Duration, u64)>,
}

impl Desk {
    pub(super) fn new(
        began: Instant,
        notes: mpsc::Sender<Note>,
        patience: Duration,
    ) -> Result<Self> {
        Ok(Self {
            began,
            notes,
            patience,
            waiting: VecDeque::new(),
            lines: Vec::new(),
            counts: Counts::default(),
            times: Histogram::new(3)?,
            last: Duration::ZERO,
            marks: VecDeque::new(),
        })
    }

    pub(super) fn offer(&mut self, batch: &[Offered]) {
        self.counts.offered += batch.len() as u64;
        self.waiting.extend(batch);
    }

    /// The next that still has patience.
    pub(super) fn next(&mut self) -> Option<Offered> {
        self.give_up_waiting();
        self.waiting.pop_front()
    }

    pub(super) fn give_up_waiting(&mut self) {
        let Some(front) = self.waiting.front() else {
            return;
        };
        let now = self.began.elapsed();
        let mut front = Some(*front);
        while let Some(offered) = front
            && now.saturating_sub(Duration::from_micros(offered.due_us)) > self.patience
        {
            self.never_sent(offered);
            self.waiting.pop_front();
            front = self.waiting.front().copied();
        }
    }

    pub(super) fn send_nothing_more(&mut self) {
        for offered in std::mem::take(&mut self.waiting) {
            self.never_sent(offered);
        }
    }

    fn never_sent(&mut self, offered: Offered) {
        self.counts.never_sent += 1;
        self.settle(&Ended {
            offered,
            id: None,
            answer: Answer::Refused,
            tries: 0,
            at: Instant::now(),
        });
    }

    pub(super) fn settle(&mut self, ended: &Ended) {
        let done = ended.at.saturating_duration_since(self.began);
        let done_us = micros(done);
        match ended.answer {
            Answer::Accepted => {
                self.counts.accepted += 1;
                // a histogram that grows by itself takes any value
                let _ = self
                    .times
                    .record(done_us.saturating_sub(ended.offered.due_us));
            }
            Answer::Refused => self.counts.refused += 1,
            Answer::Unknown => self.counts.unknown += 1,
        }
        self.counts.retries += u64::from(ended.tries.saturating_sub(1));
        self.last = self.last.max(done);
        let number = ended.offered.number;
        // before its answer: what is known as accepted has its name
        let named = ended.id.map(|id| Line::Named(Named { number, id }));
        self.lines.extend(named);
        self.lines.push(Line::Answered(Answered {
            number,
            answer: ended.answer,
            tries: ended.tries,
            done_us,
        }));
    }

    pub(super) fn write(&mut self) {
        if !self.lines.is_empty() {
            // a clerk that is gone says why at the end
            let _ = self
                .notes
                .send(Note::Answered(std::mem::take(&mut self.lines)));
        }
    }

    pub(super) fn progress(&mut self, length: Duration, in_flight: usize) -> Progress {
        let elapsed = self.began.elapsed();
        self.marks.push_back((elapsed, self.counts.accepted));
        if self.marks.len() > 11 {
            self.marks.pop_front();
        }
        let (then, before) = self.marks.front().copied().unwrap_or_default();
        Progress {
            elapsed,
            length,
            counts: self.counts,
            waiting: self.waiting.len(),
            in_flight,
            accepted_rate: rate(self.counts.accepted - before, elapsed.saturating_sub(then)),
        }
    }

    pub(super) fn end(self) -> (Counts, Duration, Histogram<u64>) {
        (self.counts, self.last, self.times)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
