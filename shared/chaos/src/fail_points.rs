//! The fail points of one process: counted always, armed seldom.
//!
//! A passage first counts itself, then looks whether anything at all is armed; only then does it
//! take the lock. Arming or disarming wakes everyone who is parked, and each looks again: who is
//! still meant by the same arming goes on waiting.

use std::{
    fmt,
    process::abort,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;
use tracing::Level;

use crate::{
    Action, FAIL_POINTS, Plan, TARGET, WrongFailPoint,
    plan::{index_of, parse_list},
};

/// What the log says when a fail point does what it is armed with.
///
/// The fields `fail_point`, `action` and `pid` say which, how and whose. Nothing else tells of a process that
/// crashed there, so a crash is an error.
pub const ACTS: &str = "a fail point acts";

/// The error of a passage at a point armed with `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an error was injected at {0}")]
pub struct Injected(
    /// The fail point.
    pub &'static str,
);

/// The fail points of this process. Clones share everything.
#[derive(Clone)]
pub struct FailPoints {
    inner: Arc<Inner>,
}

struct Inner {
    /// How many points are armed; 0 is the near-free path.
    armed: AtomicUsize,
    points: Vec<Point>,
    /// Bumped at every arming and disarming. Who is parked waits for it.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Point {
    passages: AtomicU64,
    acted: AtomicU64,
    parked: AtomicUsize,
    arming: Mutex<Option<Arming>>,
}

struct Arming {
    plan: Plan,
    /// Tells one arming from the next, so that re-arming releases who was parked by the last.
    number: u64,
    passages: u64,
}

/// One fail point as the operations port shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct FailPointStatus {
    /// Its name.
    pub name: &'static str,
    /// The moment it stands for.
    pub what: &'static str,
    /// What it is armed with.
    pub armed: Option<String>,
    /// How often it was passed since the process started.
    pub passages: u64,
    /// How many of those passages met what was armed: they waited, failed or stood still.
    pub acted: u64,
    /// How many stand there now.
    pub parked: usize,
    /// The least grave of what the log of this process would say of it: `warn`, `error` (of a crash only), or
    /// `off`.
    pub log: &'static str,
}

impl Default for FailPoints {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                armed: AtomicUsize::new(0),
                points: FAIL_POINTS.iter().map(|_| Point::default()).collect(),
                changed: watch::Sender::new(0),
            }),
        }
    }
}

impl FailPoints {
    /// Fail points armed as the text says, for example
    /// `relay.after_publish=crash@3, submit.after_commit=delay:500@1, settle.before_ack=error%10`.
    /// The empty text arms nothing.
    pub fn parse(spec: &str) -> Result<Self, WrongFailPoint> {
        let points = Self::default();
        points.arm(spec)?;
        Ok(points)
    }

    /// Passes the point. Does what is armed there, which may be: never to return.
    ///
    /// # Errors
    /// [`Injected`] when the point is armed with `error`.
    pub async fn hit(&self, name: &'static str) -> Result<(), Injected> {
        let Ok(index) = index_of(name) else {
            debug_assert!(false, "{name} is missing in chaos::FAIL_POINTS");
            return Ok(());
        };
        let point = &self.inner.points[index];
        point.passages.fetch_add(1, Ordering::Relaxed);
        if self.inner.armed.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let Some((action, number)) = point.pass() else {
            return Ok(());
        };
        point.acted.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        if action == Action::Crash {
            tracing::error!(target: TARGET, fail_point = name, ?action, pid, "{ACTS}");
        } else {
            tracing::warn!(target: TARGET, fail_point = name, ?action, pid, "{ACTS}");
        }
        match action {
            Action::Crash => abort(),
            Action::Delay(time) => tokio::time::sleep(time).await,
            Action::Error => return Err(Injected(name)),
            Action::Park => self.park(point, number).await,
        }
        Ok(())
    }

    /// Arms the points that the text names (see [`FailPoints::parse`]) and leaves the others. Either all or,
    /// if something is wrong with the text, none.
    pub fn arm(&self, spec: &str) -> Result<(), WrongFailPoint> {
        for (index, plan) in parse_list(spec)? {
            self.set(index, Some(plan));
        }
        Ok(())
    }

    /// Disarms one point and lets go who is parked there.
    pub fn disarm(&self, name: &str) -> Result<(), WrongFailPoint> {
        self.set(index_of(name)?, None);
        Ok(())
    }

    /// Arms exactly what the text names and disarms all others; the empty text disarms everything.
    pub fn replace(&self, spec: &str) -> Result<(), WrongFailPoint> {
        let wanted = parse_list(spec)?;
        for index in 0..self.inner.points.len() {
            let plan = wanted
                .iter()
                .rev()
                .find(|(at, _)| *at == index)
                .map(|(_, plan)| *plan);
            self.set(index, plan);
        }
        Ok(())
    }

    /// How often the point was passed since the process started, armed or not. 0 for an unknown
    /// name.
    pub fn passages(&self, name: &str) -> u64 {
        self.point(name)
            .map_or(0, |point| point.passages.load(Ordering::Relaxed))
    }

    /// How many stand at the point now. 0 for an unknown name.
    pub fn parked(&self, name: &str) -> usize {
        self.point(name)
            .map_or(0, |point| point.parked.load(Ordering::Relaxed))
    }

    /// All points as they are now, in the order of the road.
    pub fn status(&self) -> Vec<FailPointStatus> {
        let log = logged();
        let status = |(point, &(name, what)): (&Point, &(&'static str, &'static str))| {
            let armed = point
                .arming()
                .as_ref()
                .map(|arming| arming.plan.to_string());
            FailPointStatus {
                name,
                what,
                armed,
                passages: point.passages.load(Ordering::Relaxed),
                acted: point.acted.load(Ordering::Relaxed),
                parked: point.parked.load(Ordering::Relaxed),
                log,
            }
        };
        self.inner
            .points
            .iter()
            .zip(FAIL_POINTS)
            .map(status)
            .collect()
    }

    fn point(&self, name: &str) -> Option<&Point> {
        index_of(name).ok().map(|index| &self.inner.points[index])
    }

    fn set(&self, index: usize, plan: Option<Plan>) {
        let mut arming = self.inner.points[index].arming();
        let was_armed = arming.is_some();
        self.inner.changed.send_modify(|number| *number += 1);
        let number = *self.inner.changed.borrow();
        *arming = plan.map(|plan| Arming {
            plan,
            number,
            passages: 0,
        });
        match (was_armed, arming.is_some()) {
            (false, true) => {
                self.inner.armed.fetch_add(1, Ordering::Relaxed);
            }
            (true, false) => {
                self.inner.armed.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    async fn park(&self, point: &Point, number: u64) {
        let mut changed = self.inner.changed.subscribe();
        let _standing = Standing::at(&point.parked);
        while point
            .arming()
            .as_ref()
            .is_some_and(|arming| arming.number == number)
        {
            // The sender lives in `self`, so this never errs.
            let _ = changed.changed().await;
        }
    }
}

fn logged() -> &'static str {
    if tracing::enabled!(target: TARGET, Level::WARN) {
        "warn"
    } else if tracing::enabled!(target: TARGET, Level::ERROR) {
        "error"
    } else {
        "off"
    }
}

impl fmt::Debug for FailPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.status().iter().filter(|point| point.armed.is_some()))
            .finish()
    }
}

impl Point {
    /// Counts a passage of an armed point; what is to be done, if this passage is meant.
    fn pass(&self) -> Option<(Action, u64)> {
        let mut arming = self.arming();
        let arming = arming.as_mut()?;
        arming.passages += 1;
        arming
            .plan
            .applies_to(arming.passages)
            .then_some((arming.plan.action, arming.number))
    }

    fn arming(&self) -> MutexGuard<'_, Option<Arming>> {
        self.arming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts who is parked, also when the waiting future is dropped.
struct Standing<'a>(&'a AtomicUsize);

impl<'a> Standing<'a> {
    fn at(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const POINT: &str = "relay.after_publish";

    #[tokio::test]
    async fn a_point_that_is_not_armed_only_counts() {
        let points = FailPoints::parse("").unwrap();
        for _ in 0..3 {
            points.hit(POINT).await.unwrap();
        }
        assert_eq!(points.passages(POINT), 3);
        assert_eq!(points.passages("settle.before_ack"), 0);
    }

    #[tokio::test]
    async fn only_the_named_passage_errs() {
        let points = FailPoints::parse("relay.after_publish=error@2").unwrap();
        let mut outcomes = Vec::new();
        for _ in 0..4 {
            outcomes.push(points.hit(POINT).await.is_ok());
        }
        assert_eq!(outcomes, [true, false, true, true]);
        points.replace("").unwrap();
        points.hit(POINT).await.unwrap();
        let status = points.status();
        let point = status.iter().find(|point| point.name == POINT).unwrap();
        assert_eq!((point.passages, point.acted), (5, 1));
    }

    #[tokio::test]
    async fn a_delay_takes_its_time() {
        let points = FailPoints::parse("relay.after_publish=delay:50").unwrap();
        let start = tokio::time::Instant::now();
        points.hit(POINT).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(50));
    }

    #[tokio::test]
    async fn who_is_parked_goes_on_when_the_point_is_disarmed() {
        let points = FailPoints::parse("relay.after_publish=park").unwrap();
        let release = async {
            while points.parked(POINT) == 0 {
                tokio::task::yield_now().await;
            }
            points.arm("settle.before_ack=error").unwrap();
            tokio::task::yield_now().await;
            assert_eq!(
                points.parked(POINT),
                1,
                "arming another point released this one"
            );
            points.disarm(POINT).unwrap();
        };
        let (passed, ()) = tokio::join!(points.hit(POINT), release);
        passed.unwrap();
        assert_eq!(points.parked(POINT), 0);
    }

    #[tokio::test]
    async fn arming_anew_lets_go_who_was_parked() {
        let points = FailPoints::parse("relay.after_publish=park@1").unwrap();
        let rearm = async {
            while points.parked(POINT) == 0 {
                tokio::task::yield_now().await;
            }
            points.arm("relay.after_publish=park@1").unwrap();
        };
        let (passed, ()) = tokio::join!(points.hit(POINT), rearm);
        passed.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_passage_is_no_longer_parked() {
        let points = FailPoints::parse("relay.after_publish=park").unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(10), points.hit(POINT)).await;
        assert!(waited.is_err());
        assert_eq!(points.parked(POINT), 0);
    }

    #[test]
    fn a_wrong_list_arms_nothing() {
        let points = FailPoints::default();
        points
            .arm("relay.after_publish=crash, nowhere=crash")
            .unwrap_err();
        assert!(points.status().iter().all(|point| point.armed.is_none()));
    }

    #[test]
    fn replacing_disarms_what_is_not_named() {
        let points = FailPoints::parse("relay.after_publish=crash").unwrap();
        points.replace("settle.before_ack=error%10").unwrap();
        let armed: Vec<_> = points
            .status()
            .into_iter()
            .filter_map(|point| Some((point.name, point.armed?)))
            .collect();
        assert_eq!(armed, [("settle.before_ack", "error%10".to_owned())]);
    }
}
