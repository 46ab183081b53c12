//! The search of the console among many messages, asked as the page and as JSON: the first page and a far one, of texts that
//! are in one message, in some, in most and in none; and of what has no index.
//!
//! The messages are made by SQL, as those behind in `growth`, but no two are alike: each ends in its own hexadecimal digits,
//! so a text that is in one message is made of what is in many. The console copies them to its index as it does behind a
//! road. Then it is asked on one connection, a request at a time; all requests count, the first of all included.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::Full;
use hyper::header::{ACCEPT, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use serde::Deserialize;
use tokio::time::sleep;

use super::book::{Book, Texts};
use super::http::Connection;
use super::sheet::{Unit, real};
use super::stage::fast;
use super::{Course, Scenario, WAIT};
use crate::load::Latency;
use crate::say::grouped;
use crate::search::page::ROWS;

const LOOK_EVERY: Duration = Duration::from_millis(200);
const PAGE: &str = "/lab/messages";
const JSON: &str = "/lab/api/messages";

/// A text of which there are enough pages.
const MOST: &str = "text=common";
/// What is searched, and how many in a thousand have it; none: one message, the oldest.
const SEARCHES: [(&str, &str, Option<u64>); 6] = [
    ("everything", "", Some(1_000)),
    ("a text in 90 %", MOST, Some(900)),
    ("a text in 1 %", "text=needle", Some(10)),
    // of the hexadecimal digits of message 0
    ("a text in 1 message", "text=cfcd208495d5", None),
    ("a text in none", "text=cfcd208495d6", Some(0)),
    ("a state of none, without an index", "state=parked", Some(0)),
];

/// A page as programs get it.
#[derive(Debug, Deserialize)]
struct Found {
    messages: Vec<serde::de::IgnoredAny>,
    older: Option<String>,
    searched_to: Option<i64>,
    behind: i64,
}

/// Who asks.
struct Asker {
    connection: Connection,
}

/// All of it once.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let size = course.size;
    let begun = Instant::now();
    // both services make their tables
    let mut scene = course.stage.scene(1, 1, fast()).await?;
    let book = &mut scene.book;
    book.fill(size.searched, size.text, Texts::Searched).await?;
    course.said(begun, &format!("search: {} messages made", size.searched));
    let console = course.stage.console().await?;
    let mut asker = Asker {
        connection: Connection::to(console.address)?,
    };
    let begun = Instant::now();
    asker.until_copied(&mut scene.book).await?;
    let rate = real(size.searched) / begun.elapsed().as_secs_f64();
    let name = "messages copied to the index of texts";
    course
        .sheet
        .add(Scenario::Search, name, Unit::PerSecond, rate);
    scene.book.vacuum("lab.message_text").await?;
    course.said(begun, "search: messages copied to the index");
    for (what, asked, share) in SEARCHES {
        let begun = Instant::now();
        let right = share.map_or(1, |share| size.searched * share / 1_000);
        asker.search(course, what, asked, right).await?;
        course.said(begun, &format!("search: {what}"));
    }
    console.close().await
}

impl Asker {
    /// One answer, and how long it took.
    async fn ask(&mut self, uri: &str, kind: &'static str) -> Result<(Bytes, u64)> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = Uri::try_from(uri)?;
        let accept = HeaderValue::from_static(kind);
        request.headers_mut().insert(ACCEPT, accept);
        let begun = Instant::now();
        let answer = self.connection.ask(request).await?;
        let took = u64::try_from(begun.elapsed().as_micros())?;
        let status = answer.status;
        ensure!(status == StatusCode::OK, "{uri}: {status}");
        Ok((answer.body, took))
    }

    async fn json(&mut self, uri: &str) -> Result<(Found, u64)> {
        let (body, took) = self.ask(uri, "application/json").await?;
        let found = serde_json::from_slice(&body);
        Ok((found.with_context(|| uri.to_owned())?, took))
    }

    /// Waits until the index has all messages; one that has not grown for a while is an error.
    async fn until_copied(&mut self, book: &mut Book) -> Result<()> {
        let (mut moved, mut before) = (Instant::now(), i64::MAX);
        loop {
            // before there is one, nothing is behind
            if book.has_index_of_texts().await? {
                let (found, _) = self.json(JSON).await?;
                if found.behind == 0 {
                    return Ok(());
                }
                if found.behind < before {
                    (moved, before) = (Instant::now(), found.behind);
                }
            }
            if moved.elapsed() > WAIT {
                bail!("{before} messages are not in the index, and no more are copied");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The first page, all pages up to a far one, and that one.
    async fn search(
        &mut self,
        course: &mut Course<'_>,
        what: &str,
        asked: &str,
        right: u64,
    ) -> Result<()> {
        let pages = course.size.searched_pages;
        let (mut query, mut found, mut page) = (asked.to_owned(), 0, 1);
        let (mut times, mut cut_short) = (Histogram::new(3)?, 0);
        let name = format!("{what}, page 1");
        let first = self.both(course, &name, &query).await?;
        loop {
            let (this, took) = self.json(&format!("{JSON}?{query}")).await?;
            let _ = times.record(took);
            found += u64::try_from(this.messages.len())?;
            cut_short += u64::from(this.searched_to.is_some());
            let Some(older) = this.older.filter(|_| page < pages) else {
                break;
            };
            query = format!("{asked}&page={older}");
            page += 1;
        }
        let most = pages * u64::try_from(ROWS)?;
        ensure!(
            found == right.min(most),
            "{what}: {found} messages on {page} pages, and {right} are there"
        );
        if page > 1 {
            let name = format!("{what}, page {}", grouped(page));
            let far = self.both(course, &name, &query).await?;
            if asked == MOST {
                course.sheet.role("search-first", 0, real(first));
                course.sheet.role("search-far", 0, real(far));
            }
            let name = format!("{what}, each of {} pages in turn", grouped(page));
            let sheet = &mut *course.sheet;
            sheet.latency(Scenario::Search, &name, Latency::of(&times));
        }
        let name = format!("{what}, pages that were cut short");
        course
            .sheet
            .add(Scenario::Search, &name, Unit::Count, real(cut_short));
        Ok(())
    }

    /// Times of one page, as JSON and for people; gives the median of the first, in microseconds.
    async fn both(&mut self, course: &mut Course<'_>, what: &str, query: &str) -> Result<u64> {
        let mut medians = Vec::new();
        for (way, path, kind) in [
            ("JSON", JSON, "application/json"),
            ("page", PAGE, "text/html"),
        ] {
            let mut times = Histogram::new(3)?;
            for _ in 0..course.size.searches {
                let (_, took) = self.ask(&format!("{path}?{query}"), kind).await?;
                let _ = times.record(took);
            }
            medians.push(times.value_at_quantile(0.5));
            let name = format!("{what}, {way}");
            let sheet = &mut *course.sheet;
            sheet.latency(Scenario::Search, &name, Latency::of(&times));
        }
        medians.first().copied().context("nothing was asked")
    }
}
