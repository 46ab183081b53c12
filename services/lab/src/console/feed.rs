//! What readers of `/lab/live` get: events with running numbers, the last of which are kept for those who come back.
//!
//! Memory is bounded, whoever reads how slowly: so many events are kept, so many bytes, so many readers. A reader that is too
//! slow misses events, and the next state tells it how things stand.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use daemon::clock;
use futures::Stream;
use futures::stream::unfold;
use tokio::sync::broadcast::{self, Receiver, error::RecvError};

const KEPT: usize = 4_000;
const BYTES: usize = 8_000_000;
/// How many a reader may be behind; a power of two, as the channel has it.
const BEHIND: usize = 1_024;
/// How many readers there may be.
pub const READERS: usize = 256;
/// What came so long before the last that a reader has is sent to it again.
const OVERLAP: Duration = Duration::from_secs(2);

/// One event.
#[derive(Debug)]
pub struct Event {
    number: u64,
    at: Instant,
    pub kind: &'static str,
    pub data: String,
    /// As a browser names it when it comes back.
    pub id: String,
}

/// All events. Clones share them.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

struct Inner {
    /// Tells the events of this process from those of the one before.
    epoch: i64,
    ring: Mutex<Ring>,
    sender: broadcast::Sender<Arc<Event>>,
    readers: AtomicUsize,
}

#[derive(Default)]
struct Ring {
    last: u64,
    bytes: usize,
    kept: VecDeque<Arc<Event>>,
}

impl Default for Feed {
    fn default() -> Self {
        Self(Arc::new(Inner {
            epoch: clock::now().timestamp_millis(),
            ring: Mutex::default(),
            sender: broadcast::Sender::new(BEHIND),
            readers: AtomicUsize::new(0),
        }))
    }
}

impl Feed {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is kept for those who come back.
    pub fn tell(&self, kind: &'static str, data: String) {
        let mut ring = self.ring();
        ring.last += 1;
        let event = self.event(ring.last, kind, data);
        ring.bytes += event.data.len();
        ring.kept.push_back(Arc::clone(&event));
        while (ring.kept.len() > KEPT || ring.bytes > BYTES)
            && let Some(oldest) = ring.kept.pop_front()
        {
            ring.bytes -= oldest.data.len();
        }
        // nobody needs to read
        let _ = self.0.sender.send(event);
    }

    /// One that the next of its kind replaces: it is sent to those who are here.
    pub fn show(&self, kind: &'static str, data: String) {
        let ring = self.ring();
        let _ = self.0.sender.send(self.event(ring.last, kind, data));
    }

    fn event(&self, number: u64, kind: &'static str, data: String) -> Arc<Event> {
        Arc::new(Event {
            number,
            at: Instant::now(),
            kind,
            data,
            id: format!("{}-{number}", self.0.epoch),
        })
    }

    /// Whether anybody reads.
    pub fn is_read(&self) -> bool {
        self.0.readers.load(Ordering::Relaxed) > 0
    }

    /// For a reader that had this one last; first it gets `state`. None: there are too many readers.
    pub fn read(
        &self,
        after: Option<&str>,
        state: String,
    ) -> Option<impl Stream<Item = Arc<Event>> + use<>> {
        let place = Place::take(self)?;
        let ring = self.ring();
        // before the lock is given back: nothing comes between what is kept and what is heard
        let heard = self.0.sender.subscribe();
        let after = after.and_then(|id| {
            let (epoch, number) = id.split_once('-')?;
            let ours = epoch.parse() == Ok(self.0.epoch);
            ours.then(|| number.parse::<u64>().ok()).flatten()
        });
        let mut first = VecDeque::from([self.event(ring.last, "state", state)]);
        if let Some(after) = after {
            let had = ring.kept.iter().rev().find(|event| event.number <= after);
            let from = had.and_then(|event| event.at.checked_sub(OVERLAP));
            let missed = ring
                .kept
                .iter()
                .filter(|event| event.number > after || from.is_some_and(|from| event.at >= from));
            first.extend(missed.cloned());
        }
        drop(ring);
        let reader = Reader {
            first,
            heard,
            _place: place,
        };
        Some(unfold(reader, |mut reader| async move {
            let event = reader.next().await?;
            Some((event, reader))
        }))
    }
}

struct Reader {
    first: VecDeque<Arc<Event>>,
    heard: Receiver<Arc<Event>>,
    _place: Place,
}

impl Reader {
    async fn next(&mut self) -> Option<Arc<Event>> {
        if let Some(event) = self.first.pop_front() {
            return Some(event);
        }
        loop {
            match self.heard.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// One of the readers that there may be.
struct Place(Feed);

impl Place {
    fn take(feed: &Feed) -> Option<Self> {
        let more = |now| (now < READERS).then_some(now + 1);
        let taken = feed
            .0
            .readers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Self(feed.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt, StreamExt};
    use tokio::task::unconstrained;

    use super::*;

    fn now(stream: &mut (impl Stream<Item = Arc<Event>> + Unpin)) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(Some(event)) = unconstrained(stream.next()).now_or_never() {
            all.push(event.data.clone());
        }
        all
    }

    #[tokio::test]
    async fn whoever_comes_back_gets_what_it_missed_and_the_state_first() {
        let feed = Feed::default();
        feed.tell("frame", "1".to_owned());
        let mut reader = pin!(feed.read(None, "a".to_owned()).unwrap());
        feed.tell("frame", "2".to_owned());
        let first = reader.next().await.unwrap();
        assert_eq!((first.kind, &*first.data), ("state", "a"));
        let second = reader.next().await.unwrap();
        assert_eq!(second.data, "2");
        feed.tell("frame", "3".to_owned());
        // what the reader had not long ago comes again
        let again = feed.read(Some(&second.id), "b".to_owned()).unwrap();
        assert_eq!(now(&mut pin!(again)), ["b", "1", "2", "3"]);
        for unknown in ["1-2", "x", "", "-"] {
            let other = feed.read(Some(unknown), "c".to_owned()).unwrap();
            assert_eq!(now(&mut pin!(other)), ["c"], "{unknown}");
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_and_so_are_those_who_read() {
        let feed = Feed::default();
        for _ in 0..KEPT + 10 {
            feed.tell("frame", "x".to_owned());
        }
        let (kept, bytes) = {
            let ring = feed.ring();
            (ring.kept.len(), ring.bytes)
        };
        assert_eq!((kept, bytes), (KEPT, KEPT));
        for _ in 0..20 {
            feed.tell("frame", "x".repeat(BYTES / 10));
        }
        assert!(feed.ring().bytes <= BYTES);
        let readers: Vec<_> = (0..READERS)
            .map(|_| feed.read(None, String::new()).unwrap())
            .collect();
        assert!(feed.read(None, String::new()).is_none());
        drop(readers);
        assert!(!feed.is_read());
        // a slow one loses, and goes on
        let mut slow = pin!(feed.read(None, "s".to_owned()).unwrap());
        for n in 0..2 * BEHIND {
            feed.tell("frame", n.to_string());
        }
        assert_eq!(now(&mut slow).len(), BEHIND + 1);
    }
}
