//! The runs of this process: the one that is going on, and what became of the last ones.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use daemon::clock;
use tokio::sync::watch;

use super::shown::{End, Shown, State};
use crate::experiment::watch::Seen;
use crate::faults::Injector;
use crate::run::RunId;

/// So many are kept in memory. Those that came to their end are in their folders too.
const KEPT: usize = 50;
/// So many lines are kept of one run.
const STEPS_MAX: usize = 500;

/// Why no run can begin.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// This one is going on.
    Busy(Box<Shown>),
    /// A run of this name is known.
    Exists,
    /// The service stops.
    Closed,
}

/// All of them. Everybody shares one.
#[derive(Default)]
pub struct Book {
    pages: Mutex<Pages>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Pages {
    /// Oldest first; at most the last one is going on.
    runs: VecDeque<Shown>,
    closed: bool,
    /// Of the stage, while there is one.
    injector: Option<Injector>,
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run that is about to begin, if none is going on.
    pub fn begin(&self, run: Shown) -> Result<(), Refused> {
        let mut pages = self.pages();
        if pages.closed {
            return Err(Refused::Closed);
        }
        if pages.runs.iter().any(|one| one.run == run.run) {
            return Err(Refused::Exists);
        }
        if let Some(last) = pages.runs.back().filter(|last| !last.state.is_over()) {
            return Err(Refused::Busy(Box::new(last.clone())));
        }
        pages.runs.push_back(run);
        if pages.runs.len() > KEPT {
            pages.runs.pop_front();
        }
        Ok(())
    }

    /// It did not begin after all.
    pub fn forget(&self, id: &RunId) {
        self.pages().runs.retain(|run| run.run != *id);
        self.changes.send_replace(());
    }

    /// The run of this name.
    pub fn get(&self, id: &RunId) -> Option<Shown> {
        self.pages().runs.iter().find(|run| run.run == *id).cloned()
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Shown> {
        self.pages().runs.iter().cloned().collect()
    }

    /// Changes one that is not over.
    fn change(&self, id: &RunId, change: impl FnOnce(&mut Shown)) {
        let mut pages = self.pages();
        let run = pages.runs.iter_mut().find(|run| run.run == *id);
        if let Some(run) = run.filter(|run| !run.state.is_over()) {
            change(run);
        }
        drop(pages);
        self.changes.send_replace(());
    }

    /// It told something in a line.
    pub fn tell(&self, id: &RunId, text: &str) {
        self.change(id, |run| {
            let lines = text.lines().map(|line| line.trim().to_owned());
            run.steps.extend(lines.filter(|line| !line.is_empty()));
            run.steps.truncate(STEPS_MAX);
        });
    }

    /// It was seen to be at something.
    pub fn see(&self, id: &RunId, seen: Seen<'_>) {
        self.change(id, |run| match seen {
            Seen::Sample(sample) => run.counts = Some(*sample),
            Seen::Phase(_) if run.state == State::Stopping => {}
            Seen::Phase(phase) => run.state = phase.into(),
        });
    }

    /// It is to stop. One that is over stays as it is.
    pub fn stop(&self, id: &RunId) {
        self.change(id, |run| run.state = State::Stopping);
    }

    /// It is over.
    pub fn end(&self, id: &RunId, end: End) {
        self.change(id, |run| {
            run.state = end.state;
            run.ended_at = Some(clock::now());
            run.verdict = Some(end.verdict);
            run.outcome = Some(end.outcome);
            run.reasons = end.reasons;
            run.report = end.report;
        });
    }

    /// Nothing begins any more, and what is going on is being stopped.
    pub fn close(&self) {
        self.pages().closed = true;
        for run in self.all() {
            self.stop(&run.run);
        }
    }

    /// What is going on is over, for this reason.
    pub fn interrupt(&self, why: &str) {
        for run in self.all() {
            self.end(&run.run, End::without(State::Interrupted, why));
        }
    }

    /// Waits until the run is so; none: there is no such run.
    pub async fn until(&self, id: &RunId, is: impl Fn(&Shown) -> bool) -> Option<Shown> {
        let mut changes = self.changes.subscribe();
        loop {
            let run = self.get(id)?;
            if is(&run) {
                return Some(run);
            }
            changes.changed().await.ok()?;
        }
    }

    /// Who breaks things on the stage, while there is one.
    pub fn set_injector(&self, injector: Option<Injector>) {
        self.pages().injector = injector;
    }

    /// The same.
    pub fn injector(&self) -> Option<Injector> {
        self.pages().injector.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::audit::Verdict;
    use crate::experiment::journal::Outcome;
    use crate::experiment::watch::Phase;

    fn run(id: &str) -> Shown {
        Shown::new(id.parse().unwrap(), "x", "X", false, 7)
    }

    fn done() -> End {
        End {
            state: State::Done,
            verdict: Verdict::Pass,
            outcome: Outcome::AsExpected,
            reasons: Vec::new(),
            report: None,
        }
    }

    #[test]
    fn one_runs_at_a_time_and_a_name_is_used_once() {
        let book = Book::default();
        let (first, second) = (run("r1"), run("r2"));
        book.begin(first.clone()).unwrap();
        assert_eq!(book.begin(first.clone()), Err(Refused::Exists));
        assert_eq!(
            book.begin(second.clone()),
            Err(Refused::Busy(Box::new(first.clone())))
        );
        book.end(&first.run, done());
        book.begin(second.clone()).unwrap();
        book.forget(&second.run);
        book.begin(second).unwrap();
        assert_eq!(book.begin(first), Err(Refused::Exists));
        book.close();
        assert_eq!(book.begin(run("r3")), Err(Refused::Closed));
    }

    #[test]
    fn what_is_over_stays_as_it_is() {
        let book = Book::default();
        let first = run("r1");
        book.begin(first.clone()).unwrap();
        book.see(&first.run, Seen::Phase(Phase::Loading));
        book.end(&first.run, done());
        book.stop(&first.run);
        book.see(&first.run, Seen::Phase(Phase::Judging));
        book.interrupt("too late");
        let shown = book.get(&first.run).unwrap();
        assert_eq!(
            (shown.state, shown.verdict),
            (State::Done, Some(Verdict::Pass))
        );
        assert!(
            shown.reasons.is_empty() && shown.ended_at.is_some(),
            "{shown:?}"
        );
    }

    #[test]
    fn what_is_told_to_stop_does_not_go_on() {
        let book = Book::default();
        let first = run("r1");
        book.begin(first.clone()).unwrap();
        book.stop(&first.run);
        book.see(&first.run, Seen::Phase(Phase::Loading));
        assert_eq!(book.get(&first.run).unwrap().state, State::Stopping);
        book.interrupt("stopped");
        let shown = book.get(&first.run).unwrap();
        assert_eq!(shown.verdict, Some(Verdict::Inconclusive));
        assert_eq!(shown.reasons, ["stopped"]);
    }

    #[tokio::test]
    async fn who_waits_hears_of_it() {
        let book = Arc::new(Book::default());
        let first = run("r1");
        book.begin(first.clone()).unwrap();
        let wait = book.until(&first.run, |run| run.state.is_over());
        let end = async {
            book.tell(&first.run, "   1.0 s  something\n\n");
            tokio::task::yield_now().await;
            book.end(&first.run, done());
        };
        let (ended, ()) = tokio::join!(wait, end);
        assert_eq!(ended.unwrap().steps, ["1.0 s  something"]);
        assert_eq!(book.until(&"r2".parse().unwrap(), |_| true).await, None);
    }

    #[test]
    fn memory_does_not_grow_with_runs() {
        let book = Book::default();
        for number in 0..KEPT + 10 {
            let run = run(&format!("r{number}"));
            book.begin(run.clone()).unwrap();
            book.end(&run.run, done());
        }
        assert_eq!(book.all().len(), KEPT);
        assert_eq!(book.get(&"r0".parse().unwrap()), None);
    }
}
