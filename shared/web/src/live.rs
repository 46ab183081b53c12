//! A page that follows what happens, by server-sent events.
//!
//! Each event is the whole of what the page shows that may change: its rows, drawn by the template that draws the page, its
//! figures and its banners. So a gap needs no mending, a row is there once whatever is sent twice, and a reader that is slow
//! gets the newest state and none of those before. What is drawn was read from the database after somebody announced
//! something, or after a reader came; announcements themselves never become rows. All readers of a node share one drawing,
//! at most four in a second, and without readers nothing is drawn at all.
//!
//! What nodes announce comes over Redis. Without it the page says that it is not live, and stays as it is.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use askama::Template;
use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use chrono::DateTime;
use daemon::clock;
use futures::{StreamExt, stream};
use live::{Frame, Heard, Kind, Listener, listener::Hearing};
use serde::Serialize;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast::error::RecvError, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    chrome::Chrome,
    error::Error,
    show::{When, number},
};

/// Readers of one node; more are told to come later.
pub const READERS_MAX: usize = 256;
/// Between two drawings.
const REST: Duration = Duration::from_millis(250);
/// A browser that lost us asks again after this.
const RETRY: Duration = Duration::from_secs(1);
/// A reader that has gone is noticed by writing to it.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long is looked back for the rate.
const WINDOW: Duration = Duration::from_secs(2);
/// Above this many a second, the rows are not all there were.
const SAMPLE_ABOVE: u64 = 80;
/// Nodes whose figures are kept.
const NODES_MAX: usize = 256;

/// What a page shows that may change.
#[derive(Debug, Default)]
pub struct Drawn {
    /// The rows of its table; none while they cannot be read.
    pub rows: Option<String>,
    /// The content of elements, by their id.
    pub parts: BTreeMap<&'static str, String>,
    /// Its banners, see [`banners`].
    pub banners: String,
}

/// The banners of a page, drawn by themselves.
pub fn banners(chrome: &Chrome) -> Result<String, Error> {
    #[derive(Template)]
    #[template(path = "banners.html")]
    struct Banners<'a> {
        chrome: &'a Chrome,
    }
    Ok(Banners { chrome }.render()?)
}

/// The readers' end. Clones share everything.
#[derive(Clone)]
pub struct LivePage {
    told: watch::Sender<Option<Arc<str>>>,
    arrived: Arc<Notify>,
    places: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl LivePage {
    /// A page without readers yet.
    pub fn new(stopping: CancellationToken) -> Self {
        Self {
            told: watch::Sender::new(None),
            arrived: Arc::default(),
            places: Arc::new(Semaphore::new(READERS_MAX)),
            stopping,
        }
    }

    /// Answers a reader, until it leaves or the process stops.
    pub fn read(&self) -> Response {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Error::away("Too many readers follow this node just now.").into_response();
        };
        let mut told = self.told.subscribe();
        // What was drawn before it came may be old; it gets the next one.
        told.mark_unchanged();
        self.arrived.notify_one();
        let events = stream::unfold(
            (told, place, 0_u64),
            async |(mut told, place, id): (_, OwnedSemaphorePermit, u64)| {
                let event = next(&mut told, id).await?;
                Some((Ok::<_, Infallible>(event), (told, place, id + 1)))
            },
        );
        let events = events.take_until(self.stopping.clone().cancelled_owned());
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
        Sse::new(events).keep_alive(keep_alive).into_response()
    }

    /// Draws for the readers until the process stops. `kind` is what a row is about.
    pub async fn run<F: Future<Output = Drawn>>(
        self,
        listener: Listener,
        kind: Kind,
        draw: impl Fn() -> F,
    ) {
        let stopping = self.stopping.clone();
        let rounds = self.follow(&listener, kind, draw);
        stopping.run_until_cancelled(rounds).await;
    }

    async fn follow<F: Future<Output = Drawn>>(
        &self,
        listener: &Listener,
        kind: Kind,
        draw: impl Fn() -> F,
    ) {
        let (mut heard, mut hearing) = (listener.subscribe(), listener.hearing());
        let mut figures = Figures::default();
        let mut each = interval(Duration::from_secs(1));
        each.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut due, mut arrived, mut earliest) = (true, false, Instant::now());
        loop {
            let readers = self.told.receiver_count() > 0;
            tokio::select! {
                news = heard.recv() => match news {
                    Ok(Heard::Frame(frame)) => {
                        due |= !frame.counts.is_empty();
                        figures.note(&frame, kind);
                    }
                    Ok(Heard::Live | Heard::NotLive(_)) | Err(RecvError::Lagged(_)) => due = true,
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                _ = hearing.changed() => due = true,
                () = self.arrived.notified() => (due, arrived) = (true, true),
                // Banners and rates change without a word.
                _ = each.tick() => due = true,
                () = sleep_until(earliest), if due && readers => {
                    due = false;
                    let hears = hearing.borrow_and_update().clone();
                    let told = figures.told(draw().await, &hears);
                    if let Ok(told) = serde_json::to_string(&told) {
                        self.told.send_if_modified(|before| tell(before, &told, arrived));
                        arrived = false;
                    }
                    earliest = Instant::now() + REST;
                }
            }
        }
    }
}

/// The same again only where somebody has come who has not seen it.
fn tell(before: &mut Option<Arc<str>>, told: &str, arrived: bool) -> bool {
    let is_new = arrived || before.as_deref() != Some(told);
    if is_new {
        *before = Some(told.into());
    }
    is_new
}

async fn next(told: &mut watch::Receiver<Option<Arc<str>>>, id: u64) -> Option<Event> {
    loop {
        told.changed().await.ok()?;
        let state = told.borrow_and_update().clone();
        if let Some(state) = state {
            let event = Event::default().event("state").id(id.to_string());
            return Some(event.retry(RETRY).data(&*state));
        }
    }
}

/// What a reader is told.
#[derive(Debug, Serialize)]
struct Told {
    live: bool,
    /// Why it is not.
    why: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<String>,
    parts: BTreeMap<&'static str, String>,
    banners: String,
    /// How many a second, where that is worth saying.
    rate: Option<String>,
    /// Whether there were more than the rows can show.
    sample: bool,
    /// What each node has done.
    nodes: BTreeMap<String, Done>,
}

/// A node's figures, as its page shows them.
#[derive(Debug, Clone, Default, Serialize)]
struct Done {
    done: String,
    last: Option<String>,
}

/// What the frames have told.
#[derive(Default)]
struct Figures {
    nodes: BTreeMap<String, (u64, Option<i64>)>,
    recent: VecDeque<(Instant, u64)>,
}

impl Figures {
    fn note(&mut self, frame: &Frame, kind: Kind) {
        let count = frame.count(kind);
        if count > 0 {
            self.recent.push_back((Instant::now(), count));
        }
        self.forget();
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&frame.node) {
            return;
        }
        let node = self.nodes.entry(frame.node.clone()).or_default();
        node.0 = frame.totals.get(&kind).copied().unwrap_or(0);
        let of_kind = |event: &&live::Event| event.kind == kind;
        let last = frame.sample.iter().filter(of_kind).map(|event| event.at);
        node.1 = last.max().max(node.1);
    }

    fn forget(&mut self) {
        let old = |(at, _): &(Instant, u64)| at.elapsed() > WINDOW;
        while self.recent.front().is_some_and(old) {
            self.recent.pop_front();
        }
    }

    fn told(&mut self, drawn: Drawn, hears: &Hearing) -> Told {
        self.forget();
        let recent: u64 = self.recent.iter().map(|(_, count)| count).sum();
        let rate = recent / WINDOW.as_secs();
        let why = match hears {
            Hearing::Live => None,
            Hearing::NotLive(why) => Some(Arc::clone(why)),
        };
        let now = clock::now();
        let done = |(node, (done, last)): (&String, &(u64, Option<i64>))| {
            let last = last.and_then(DateTime::from_timestamp_millis);
            let last = last.and_then(|at| When::new(at, now).render().ok());
            let done = number(i64::try_from(*done).unwrap_or(i64::MAX));
            (node.clone(), Done { done, last })
        };
        Told {
            live: why.is_none(),
            why,
            rows: drawn.rows,
            parts: drawn.parts,
            banners: drawn.banners,
            rate: (rate > 0).then(|| number(i64::try_from(rate).unwrap_or(i64::MAX))),
            sample: rate > SAMPLE_ABOVE,
            nodes: self.nodes.iter().map(done).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::StatusCode};
    use http_body_util::BodyExt;

    use super::*;

    async fn text(body: &mut Body) -> String {
        let frame = body.frame().await.unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn one_reader_too_many_is_told_to_come_later_and_a_place_is_given_back() {
        let page = LivePage::new(CancellationToken::new());
        let mut readers: Vec<_> = (0..READERS_MAX).map(|_| page.read()).collect();
        assert_eq!(readers[0].status(), StatusCode::OK);
        assert_eq!(page.read().status(), StatusCode::SERVICE_UNAVAILABLE);
        readers.pop();
        assert_eq!(page.read().status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_slow_reader_gets_the_newest_state_only() {
        let page = LivePage::new(CancellationToken::new());
        let mut body = page.read().into_body();
        for n in 0..100_000 {
            page.told.send_replace(Some(format!("state-{n}").into()));
        }
        let said = text(&mut body).await;
        assert!(said.contains("data: state-99999\n"), "{said}");
    }

    #[tokio::test]
    async fn a_stop_ends_every_reader_at_once() {
        let stopping = CancellationToken::new();
        let page = LivePage::new(stopping.clone());
        let body = page.read().into_body();
        stopping.cancel();
        let limit = Duration::from_secs(5);
        let all = tokio::time::timeout(limit, body.collect()).await;
        assert!(all.unwrap().unwrap().to_bytes().is_empty());
    }

    #[tokio::test]
    async fn a_page_without_redis_says_so_and_is_drawn_all_the_same() {
        let stopping = CancellationToken::new();
        let page = LivePage::new(stopping.clone());
        let mut body = page.read().into_body();
        let drawn = async || Drawn {
            rows: Some("<tr></tr>".to_owned()),
            ..Drawn::default()
        };
        let run = page
            .clone()
            .run(Listener::silent("gone"), Kind::Accepted, drawn);
        let look = async {
            let said = text(&mut body).await;
            assert!(said.contains(r#""live":false,"why":"gone""#), "{said}");
            assert!(said.contains(r#""rows":"<tr></tr>""#), "{said}");
            stopping.cancel();
        };
        tokio::join!(run, look);
    }
}
