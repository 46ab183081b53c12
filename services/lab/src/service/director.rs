//! Does what is ordered, one run after the other, on a stage that stays open for the next one for a while.
//!
//! A run that did not come to its end leaves a stage that nobody should trust: it is healed and closed before the run counts
//! as over, and the next run gets a new one.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::FutureExt;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::book::Book;
use super::shelf;
use super::shown::{End, State};
use crate::experiment::file::Experiment;
use crate::experiment::runner::{Play, Played};
use crate::experiment::stage::Stage;
use crate::experiment::watch::Seen;
use crate::report;
use crate::run::RunId;
use crate::say::{self, Steps};

/// How long servers wait for the next run.
const IDLE: Duration = Duration::from_mins(2);

/// A run that is wanted; it stands in the book.
#[derive(Debug)]
pub struct Order {
    pub id: RunId,
    pub experiment: Arc<Experiment>,
    pub twin: bool,
    pub seed: u64,
}

/// Who does it.
pub struct Director {
    root: PathBuf,
    book: Arc<Book>,
    stage: Option<Stage>,
}

impl Director {
    /// Runs lie in `root`.
    pub fn new(root: PathBuf, book: Arc<Book>) -> Self {
        Self {
            root,
            book,
            stage: None,
        }
    }

    /// Does what is ordered, without end. May be dropped anywhere; then [`Director::close`] heals and stops.
    pub async fn direct(&mut self, orders: &mut Receiver<Order>) {
        loop {
            let order = if self.stage.is_some() {
                let Ok(order) = timeout(IDLE, orders.recv()).await else {
                    self.close().await;
                    continue;
                };
                order
            } else {
                orders.recv().await
            };
            match order {
                Some(order) => self.play(&order).await,
                None => std::future::pending().await,
            }
        }
    }

    async fn play(&mut self, order: &Order) {
        let (book, id) = (Arc::clone(&self.book), &order.id);
        let kind = if order.twin { " (twin)" } else { "" };
        say::line(format!(
            "\n{id}: {}{kind}: {}",
            order.experiment.name, order.experiment.title
        ));
        let tell = |text: &str| {
            say::line(text);
            book.tell(id, text);
        };
        let steps = Steps::new(&tell);
        let end = tokio::select! {
            played = AssertUnwindSafe(self.perform(order, &steps)).catch_unwind() => match played {
                Ok(Ok(played)) => Ok(end_of(played)),
                Ok(Err(error)) => Err(End::without(State::Failed, format!("{error:#}"))),
                Err(_) => Err(End::without(State::Failed, "a fault of the lab's own; its log says more")),
            },
            _ = book.until(id, |run| run.state == State::Stopping) => {
                Err(End::without(State::Interrupted, "it was stopped before its end"))
            }
        };
        let end = match end {
            Ok(end) => end,
            Err(end) => {
                // for whoever looks meanwhile
                book.stop(id);
                self.close().await;
                end
            }
        };
        say::line(format!("{id}: {} ({})", end.verdict, end.state.word()));
        for reason in &end.reasons {
            say::line(format!("         - {reason}"));
        }
        book.end(id, end);
    }

    async fn perform(&mut self, order: &Order, steps: &Steps<'_>) -> Result<Played> {
        if self.stage.is_none() {
            let stage = Stage::prepare(&self.root, None, true, steps).await?;
            // from here on there is something to close
            let stage = self.stage.insert(stage);
            self.book.set_injector(Some(stage.injector().clone()));
            stage
                .start(steps)
                .await
                .context("the stack did not start")?;
        }
        let stage = self.stage.as_ref().context("there is no stage")?;
        let experiment = &*order.experiment;
        let setup = if order.twin {
            experiment.twin.as_ref().context("it has no twin")?
        } else {
            &experiment.safe
        };
        let play = Play {
            experiment,
            setup,
            twin: order.twin,
            seed: order.seed,
        };
        let id = &order.id;
        let watch = |seen: Seen<'_>| self.book.see(id, seen);
        Box::pin(play.run_as(id.clone(), stage, &self.root, steps, &watch)).await
    }

    /// Whether there is something to close.
    pub fn is_on_stage(&self) -> bool {
        self.stage.is_some()
    }

    /// Heals what is active and stops everything.
    pub async fn close(&mut self) {
        if let Some(stage) = &self.stage {
            stage.close(&say::tell).await;
        }
        self.book.set_injector(None);
        self.stage = None;
    }

    /// Ends everything at once.
    pub async fn abort(&self) {
        if let Some(stage) = &self.stage {
            stage.abort().await;
        }
    }
}

fn end_of(played: Played) -> End {
    let journal = played.journal;
    let page = played.page.is_some();
    End {
        state: State::Done,
        verdict: played.verdict,
        outcome: journal.outcome,
        reasons: shelf::reasons(journal.audit.reasons, &journal.expectations),
        report: page.then(|| format!("/lab/runs/{}/{}", journal.run, report::PAGE)),
    }
}
