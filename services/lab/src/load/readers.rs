//! Readers of notes, and how old what they are shown is at worst.
//!
//! Each asks of one note after the other whether it is saved, and reads the newest page of the list. What can be concluded from
//! a page is decided in `Book::judge`: a note whose answer said *saved* at a time, and that a page asked for later should
//! have and does not, was missing for at least the time between. The longest such time is the figure. It is never more than
//! the truth: a page may be older than it can be seen here.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::future::join_all;
use reqwest::{Client, StatusCode, header::ACCEPT};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::beside::Pace;

const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Between two turns of a reader.
const PAUSE: Duration = Duration::from_millis(40);
/// How long after the last answer they wait for what is not saved or not shown yet.
const LAST_LIMIT: Duration = Duration::from_secs(10);
/// Notes saved at times that differ by so much were saved in this order, whatever the clocks of two transactions do.
const APART: chrono::Duration = chrono::Duration::seconds(1);
/// Most notes that are remembered as saved, the newest ones.
const KEPT: usize = 10_000;

/// What readers were shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    pub lists: u64,
    pub states: u64,
    /// Answers that were none, or not the right ones.
    pub failed: u64,
    /// The longest time for which a note that was said to be saved was missing in the list; 0: none ever was.
    pub stale_ms: u64,
}

/// A note as its own page tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    state: String,
    #[serde(default)]
    saved_at: Option<DateTime<Utc>>,
}

/// A page of the list.
#[derive(Debug, Deserialize)]
struct Page {
    notes: Vec<Listed>,
    #[serde(default)]
    next: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    id: Uuid,
    #[serde(default)]
    saved_at: Option<DateTime<Utc>>,
}

/// A note that was said to be saved.
#[derive(Debug, Clone, Copy)]
struct Saved {
    id: Uuid,
    /// When that was said.
    told: Instant,
    /// By the database's clock.
    at: Option<DateTime<Utc>>,
}

/// What they know together.
#[derive(Debug, Default)]
struct Book {
    reads: Reads,
    /// Accepted, and not known as saved.
    waiting: VecDeque<Uuid>,
    asking: usize,
    /// In the order in which it was told.
    saved: BTreeMap<u64, Saved>,
    count: u64,
    /// The last page lacked something.
    lacks: bool,
}

impl Book {
    fn save(&mut self, saved: Saved) {
        self.saved.insert(self.count, saved);
        self.count += 1;
        if self.saved.len() > KEPT {
            self.saved.pop_first();
        }
    }

    /// A page that was asked for at this time. It is the newest notes without a gap, the last one saved first. So whatever was
    /// saved after the last one on it must be on it, and if it is the only page, everything must.
    fn judge(&mut self, page: &Page, asked: Instant) {
        let shown: HashSet<Uuid> = page.notes.iter().map(|note| note.id).collect();
        let only = page.next.is_none();
        let from = page.notes.iter().filter_map(|note| note.saved_at).min();
        let belongs = |saved: &Saved| {
            let after = saved.at.zip(from);
            only || after.is_some_and(|(at, from)| at - from > APART)
        };
        let missing = self
            .saved
            .values()
            .filter(|saved| saved.told <= asked && !shown.contains(&saved.id) && belongs(saved));
        let age = missing.map(|saved| asked - saved.told).max();
        self.lacks = age.is_some();
        let age = age.unwrap_or_default().as_millis();
        let stale = u64::try_from(age).unwrap_or(u64::MAX);
        self.reads.stale_ms = self.reads.stale_ms.max(stale);
        self.reads.lists += 1;
    }
}

/// Who reads.
pub(super) struct Readers {
    client: Client,
    list: String,
    count: usize,
    heard: UnboundedReceiver<Uuid>,
    book: Mutex<Book>,
}

impl Readers {
    pub(super) fn new(gateway: &str, count: usize, heard: UnboundedReceiver<Uuid>) -> Self {
        Self {
            client: Client::new(),
            list: format!("{gateway}/notes"),
            count,
            heard,
            book: Mutex::default(),
        }
    }

    /// Until all that was accepted was seen to be saved and shown, for some seconds after the last answer at most, or until
    /// nobody wants to wait for that.
    pub(super) async fn run(mut self, pace: watch::Receiver<Pace>) -> Reads {
        let (done, over) = watch::channel(false);
        let mut heard =
            std::mem::replace(&mut self.heard, tokio::sync::mpsc::unbounded_channel().1);
        let this = &self;
        let hears = async {
            while let Some(id) = heard.recv().await {
                this.book().waiting.push_back(id);
            }
        };
        let stops = Pace::stopped(pace.clone());
        let ends = async {
            let mut pace = pace;
            // a load that is gone is over
            let now = pace.wait_for(|pace| *pace >= Pace::Over).await;
            let stopped = now.is_ok_and(|now| *now == Pace::Stopped);
            if !stopped {
                let settled = async {
                    while !this.settled() {
                        sleep(PAUSE).await;
                    }
                };
                let _ = timeout(LAST_LIMIT, settled).await;
            }
            done.send_replace(true);
        };
        let each = (0..self.count).map(|_| this.reader(over.clone()));
        let reads = async {
            tokio::join!(ends, join_all(each));
        };
        let ended = async {
            tokio::select! {
                () = reads => {}
                () = stops => {}
            }
        };
        tokio::join!(hears, ended);
        self.book().reads
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settled(&self) -> bool {
        let book = self.book();
        book.waiting.is_empty() && book.asking == 0 && !book.lacks && book.reads.lists > 0
    }

    async fn reader(&self, over: watch::Receiver<bool>) {
        while !*over.borrow() {
            let next = {
                let mut book = self.book();
                let next = book.waiting.pop_front();
                book.asking += usize::from(next.is_some());
                next
            };
            if let Some(id) = next {
                let said: Option<Note> = self.get(&format!("{}/{id}", self.list)).await;
                let mut book = self.book();
                book.asking -= 1;
                match said {
                    Some(note) if note.state == "saved" => {
                        book.reads.states += 1;
                        book.save(Saved {
                            id,
                            told: Instant::now(),
                            at: note.saved_at,
                        });
                    }
                    said => {
                        book.reads.states += u64::from(said.is_some());
                        book.reads.failed += u64::from(said.is_none());
                        book.waiting.push_back(id);
                    }
                }
            }
            let asked = Instant::now();
            let page: Option<Page> = self.get(&self.list).await;
            {
                let mut book = self.book();
                match page {
                    Some(page) => book.judge(&page, asked),
                    None => book.reads.failed += 1,
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Option<T> {
        let ask = self.client.get(url).header(ACCEPT, "application/json");
        let answer = ask.timeout(ASK_LIMIT).send().await.ok()?;
        if answer.status() == StatusCode::OK {
            answer.json().await.ok()
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000 + second, 0).unwrap()
    }

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    /// Notes 1 to 5, saved a second after each other and told at once.
    fn book(begin: Instant) -> Book {
        let mut book = Book::default();
        for n in 1..=5 {
            book.save(Saved {
                id: id(n),
                told: begin + Duration::from_secs(u64::try_from(n).unwrap()),
                at: Some(at(i64::try_from(n).unwrap())),
            });
        }
        book
    }

    fn page(ids: &[u128], more: bool) -> Page {
        let notes = ids.iter().map(|n| Listed {
            id: id(*n),
            saved_at: Some(at(i64::try_from(*n).unwrap())),
        });
        Page {
            notes: notes.collect(),
            next: more.then(|| 1.into()),
        }
    }

    fn stale(ids: &[u128], more: bool, second: u64) -> u64 {
        let begin = Instant::now();
        let mut book = book(begin);
        book.judge(&page(ids, more), begin + Duration::from_secs(second));
        assert_eq!(book.lacks, book.reads.stale_ms > 0);
        book.reads.stale_ms
    }

    #[test]
    fn a_page_is_as_old_as_the_first_saved_note_that_it_lacks() {
        assert_eq!(stale(&[5, 4, 3, 2, 1], false, 9), 0);
        assert_eq!(stale(&[2, 1], false, 9), 6_000);
        assert_eq!(stale(&[], false, 9), 8_000);
        // told after the page was asked for: it may have come too late for it
        assert_eq!(stale(&[2, 1], false, 2), 0);
        assert_eq!(stale(&[2, 1], false, 4), 1_000);
    }

    #[test]
    fn what_may_stand_on_the_next_page_is_not_missed() {
        assert_eq!(stale(&[5, 4, 3], true, 9), 0);
        // 5 was saved after 2, so it belongs before it
        assert_eq!(stale(&[4, 3, 2], true, 9), 4_000);
        // as good as at the same time as the last one of the page
        assert_eq!(stale(&[4], true, 9), 0);
        let unknown = Page {
            notes: vec![Listed {
                id: id(4),
                saved_at: None,
            }],
            next: Some(1.into()),
        };
        let begin = Instant::now();
        let mut book = book(begin);
        book.judge(&unknown, begin + Duration::from_secs(9));
        assert_eq!(book.reads.stale_ms, 0);
    }

    #[tokio::test]
    async fn nobody_waits_on_once_it_is_stopped() {
        let (heard, hears) = tokio::sync::mpsc::unbounded_channel();
        heard.send(id(1)).unwrap();
        drop(heard);
        // nobody listens there, so it is never said to be saved
        let readers = Readers::new("http://127.0.0.1:1", 2, hears);
        let (pace, paces) = watch::channel(Pace::Over);
        let stops = async {
            pace.send_replace(Pace::Stopped);
            pace.closed().await;
        };
        let both = async { tokio::join!(readers.run(paces), stops) };
        let (reads, ()) = timeout(LAST_LIMIT / 2, both).await.unwrap();
        assert_eq!(reads.lists, 0);
    }

    #[test]
    fn the_worst_page_counts() {
        let begin = Instant::now();
        let mut book = book(begin);
        let times = [(&[2, 1][..], 6), (&[1], 7), (&[5, 4, 3, 2, 1], 8)];
        for (ids, second) in times {
            book.judge(&page(ids, false), begin + Duration::from_secs(second));
        }
        assert_eq!((book.reads.stale_ms, book.reads.lists), (5_000, 3));
        assert!(!book.lacks);
    }
}
