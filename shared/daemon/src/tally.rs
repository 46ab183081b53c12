//! What a process has done since it started, for its page.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use chrono::{DateTime, Utc};

/// How many, and when the last.
#[derive(Debug, Default)]
pub struct Tally {
    count: AtomicU64,
    last: Mutex<Option<DateTime<Utc>>>,
}

impl Tally {
    /// So many more, the last of them at this time.
    pub fn add(&self, more: usize, at: DateTime<Utc>) {
        self.count.fetch_add(more as u64, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (*last).max(Some(at));
    }

    /// How many, and when the last.
    pub fn read(&self) -> (u64, Option<DateTime<Utc>>) {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (self.count.load(Ordering::Relaxed), last)
    }
}
