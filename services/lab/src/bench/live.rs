//! What live events and the console cost: all that the system takes while nobody watches, while three do, while the console
//! hears, counts and copies texts to its index, and with nodes that announce nothing.
//!
//! The readers are those of the two pages, through the gateway like the load. All of it is measured in turn (A B C C B A), on
//! the same nodes. A reader that heard nothing would cost nothing, so it is an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::header::ACCEPT;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::pipeline::{SINGLE, Taken, overload};
use super::sheet::Unit;
use super::stage::{Scene, fast};
use super::{Course, Scenario};

/// What is watched, each by one.
const WATCHED: [&str; 3] = ["/live", "/received/live", "/received/live"];
/// A page that does not begin to answer is no page.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Who looks on meanwhile.
#[derive(Debug, Clone, Copy)]
enum Beside {
    Nobody,
    Three,
    Console,
}

impl Beside {
    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody watches",
            Self::Three => "three watch",
            Self::Console => "beside the console",
        }
    }
}

/// Nodes that announce, watched and not; then such that do not, or the other way round in every second round.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let begun = Instant::now();
    if course.round.is_multiple_of(2) {
        announcing(course).await?;
        silent(course).await?;
    } else {
        silent(course).await?;
        announcing(course).await?;
    }
    course.said(begun, "live");
    Ok(())
}

async fn announcing(course: &mut Course<'_>) -> Result<()> {
    let mut scene = course.stage.scene(1, 1, fast()).await?;
    let mut sums = [0.0; 3];
    let turn = [Beside::Nobody, Beside::Three, Beside::Console];
    for beside in turn.into_iter().chain(turn.into_iter().rev()) {
        let rate = match beside {
            Beside::Nobody => measure(course, &mut scene, beside.name()).await?,
            Beside::Three => {
                let readers = Readers::open(&scene).await?;
                let rate = measure(course, &mut scene, beside.name()).await?;
                readers.close()?;
                rate
            }
            Beside::Console => {
                let console = course.stage.console().await?;
                let rate = measure(course, &mut scene, beside.name()).await?;
                console.close().await?;
                rate
            }
        };
        sums[beside as usize] += rate;
    }
    let roles = ["unwatched", "watched", "beside-console"];
    for (role, sum) in roles.into_iter().zip(sums) {
        course.sheet.role(role, course.round, sum / 2.0);
    }
    Ok(())
}

async fn silent(course: &mut Course<'_>) -> Result<()> {
    let mut settings = fast();
    settings.insert("LIVE".to_owned(), "false".to_owned());
    let mut scene = course.stage.scene(1, 1, settings).await?;
    // as many loads as with those that announce, since each leaves its rows: the first and the last count there too
    let mut rates = Vec::new();
    for _ in 0..6 {
        rates.push(measure(course, &mut scene, "nodes announce nothing").await?);
    }
    course
        .sheet
        .role("silent", course.round, f64::midpoint(rates[0], rates[5]));
    Ok(())
}

/// Effects a second.
async fn measure(course: &mut Course<'_>, scene: &mut Scene<'_>, name: &str) -> Result<f64> {
    let (length, text) = (course.size.overload, course.size.text);
    let Taken { rate, split } = overload(scene, SINGLE, length, text).await?;
    course
        .sheet
        .add(Scenario::Live, name, Unit::PerSecond, rate);
    course.sheet.budget(&format!("live, {name}"), &split);
    Ok(rate)
}

/// Those who watch, until they are closed or dropped.
struct Readers {
    reading: JoinSet<()>,
    heard: Vec<Arc<AtomicU64>>,
}

impl Readers {
    /// Comes back when all are being answered.
    async fn open(scene: &Scene<'_>) -> Result<Self> {
        let client = reqwest::Client::new();
        let (mut reading, mut heard) = (JoinSet::new(), Vec::new());
        for path in WATCHED {
            let url = format!("{}{path}", scene.status.gateway);
            let request = client.get(&url).header(ACCEPT, "text/event-stream").send();
            let answer = timeout(ANSWER_LIMIT, request).await;
            let answer = answer.with_context(|| format!("{path} does not answer"))??;
            let mut answer = answer.error_for_status()?;
            let bytes = Arc::new(AtomicU64::new(0));
            heard.push(Arc::clone(&bytes));
            reading.spawn(async move {
                // it ends with its task, or when the node closes it
                while let Ok(Some(chunk)) = answer.chunk().await {
                    bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                }
            });
        }
        Ok(Self { reading, heard })
    }

    /// Fails if one of them ended early, or heard nothing.
    fn close(mut self) -> Result<()> {
        ensure!(
            self.reading.try_join_next().is_none(),
            "a reader's connection ended"
        );
        for (path, bytes) in WATCHED.iter().zip(&self.heard) {
            let heard = bytes.load(Ordering::Relaxed);
            ensure!(heard > 0, "a reader of {path} heard nothing");
        }
        Ok(())
    }
}
