//! Many callers, one commit, or one query.
//!
//! Callers hand items over with [`Group::hand_in`] and wait for their own answer. One loop takes
//! everything that gathered while it was busy ([`Committer::next`]), does it in one transaction and
//! answers each caller. A lone item is taken at once. A group grows because the previous commit is
//! still running; and, where the loop asks for it ([`Committer::gathering`]), because those who were
//! answered a moment ago, or others like them, are likely to come again: a commit for four costs a
//! database nearly as much as one for forty.
//!
//! Between handing over and the answer a caller may be cancelled (its client hung up): the item is
//! still committed, and nobody reads the answer. If the loop ends, every waiting caller gets
//! [`Closed`], and cannot know whether its item was committed.
#![warn(missing_docs)]

use std::{pin::pin, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

/// The loop that commits is gone; whether the item was committed is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

struct Entry<T, R> {
    item: T,
    answer: oneshot::Sender<R>,
}

/// The callers' side. Clones share the same loop.
pub struct Group<T, R> {
    entries: mpsc::Sender<Entry<T, R>>,
}

impl<T, R> Clone for Group<T, R> {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
        }
    }
}

impl<T, R> Group<T, R> {
    /// Hands `item` over and waits for its answer. Waits for room first when as many items as the
    /// capacity are waiting already.
    pub async fn hand_in(&self, item: T) -> Result<R, Closed> {
        let (answer, answered) = oneshot::channel();
        self.entries
            .send(Entry { item, answer })
            .await
            .map_err(|_| Closed)?;
        answered.await.map_err(|_| Closed)
    }
}

/// The loop's side.
pub struct Committer<T, R> {
    entries: mpsc::Receiver<Entry<T, R>>,
    /// Taken, and of no group yet: too heavy for the last one, or gathered while nobody asked any more.
    taken: Vec<Entry<T, R>>,
    gap: Duration,
    last: Option<Last>,
}

/// The group before.
struct Last {
    taken_at: Instant,
    size: usize,
    /// As many as the next one waits for, once it began to.
    enough: Option<usize>,
}

/// So much at once is cheap for each: nobody waits for more.
const ENOUGH: usize = 32;

/// One answer slot for each item of a group, in the items' order.
pub struct Answers<R>(Vec<oneshot::Sender<R>>);

impl<R> Answers<R> {
    /// Answers every caller: `results[i]` goes to the caller of item `i`.
    ///
    /// # Panics
    /// When the numbers of results and items differ, which would give callers each other's answers.
    pub fn send(self, results: Vec<R>) {
        assert_eq!(results.len(), self.0.len(), "one answer for each item");
        for (answer, result) in self.0.into_iter().zip(results) {
            // A caller that stopped waiting needs no answer.
            let _ = answer.send(result);
        }
    }
}

impl<R: Clone> Answers<R> {
    /// Gives every caller the same answer.
    pub fn send_to_all(self, result: &R) {
        for answer in self.0 {
            let _ = answer.send(result.clone());
        }
    }
}

impl<T, R> Committer<T, R> {
    /// A group waits for as many callers as were answered with the last one and had come during it, but
    /// not when it weighs 32 or more, and not longer than until `gap` after the last one was taken. So
    /// one caller that comes again and again never waits, and eight wait for each other. Timers have
    /// steps of a millisecond, and so has the gap.
    #[must_use]
    pub fn gathering(mut self, gap: Duration) -> Self {
        self.gap = gap;
        self
    }

    /// Waits for at least one item and takes all that wait, `most` at a time. `None` when every
    /// [`Group`] is gone. What is taken is not lost when the future is dropped.
    pub async fn next(&mut self, most: usize) -> Option<(Vec<T>, Answers<R>)> {
        self.next_weighed(most, |_| 1).await
    }

    /// As [`Committer::next`], where the weights of a group's items add up to `most` at most; an item
    /// that is heavier travels alone.
    pub async fn next_weighed(
        &mut self,
        most: usize,
        weight: impl Fn(&T) -> usize,
    ) -> Option<(Vec<T>, Answers<R>)> {
        let mut weighs = self.taken.iter().map(|entry| weight(&entry.item)).sum();
        self.take_waiting(most, &mut weighs, &weight);
        if let Some(last) = &mut self.last {
            let there_were = last.size + self.taken.len();
            last.enough.get_or_insert(there_were);
        }
        if self.taken.is_empty() {
            let first = self.entries.recv().await?;
            weighs = weight(&first.item);
            self.taken.push(first);
            self.take_waiting(most, &mut weighs, &weight);
        }
        if let Some(last) = &self.last {
            let mut gap = pin!(sleep_until(last.taken_at + self.gap));
            let enough = last.enough.unwrap_or(0);
            while self.taken.len() < enough && weighs < ENOUGH.min(most) {
                let entry = tokio::select! {
                    entry = self.entries.recv() => entry,
                    () = &mut gap => break,
                };
                // every Group is gone: what is there is the last
                let Some(entry) = entry else { break };
                weighs += weight(&entry.item);
                self.taken.push(entry);
            }
            self.take_waiting(most, &mut weighs, &weight);
        }
        let heavy = (weighs > most && self.taken.len() > 1)
            .then(|| self.taken.pop())
            .flatten();
        let group = std::mem::replace(&mut self.taken, heavy.into_iter().collect());
        self.last = (!self.gap.is_zero()).then(|| Last {
            taken_at: Instant::now(),
            size: group.len(),
            enough: None,
        });
        let (items, answers) = group.into_iter().map(|e| (e.item, e.answer)).unzip();
        Some((items, Answers(answers)))
    }

    /// The last one taken may be too heavy for the others.
    fn take_waiting(&mut self, most: usize, weighs: &mut usize, weight: impl Fn(&T) -> usize) {
        while *weighs < most
            && let Ok(entry) = self.entries.try_recv()
        {
            *weighs = weighs.saturating_add(weight(&entry.item));
            self.taken.push(entry);
        }
    }
}

/// Makes the two sides; at most `capacity` items wait, further callers wait for room.
pub fn group_commit<T, R>(capacity: usize) -> (Group<T, R>, Committer<T, R>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let committer = Committer {
        entries: receiver,
        taken: Vec::new(),
        gap: Duration::ZERO,
        last: None,
    };
    (Group { entries: sender }, committer)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn items_that_gather_during_a_commit_travel_together() {
        let (group, mut committer) = group_commit::<u32, u32>(16);
        let callers = futures::future::join_all((0..5).map(|n| group.hand_in(n)));
        let commits = async {
            let (items, answers) = committer.next(3).await.unwrap();
            assert_eq!(items, [0, 1, 2], "no more than `most`");
            answers.send(items.iter().map(|n| n * 10).collect());
            let (items, answers) = committer.next(3).await.unwrap();
            assert_eq!(items, [3, 4]);
            answers.send(items.iter().map(|n| n * 10).collect());
        };
        let (answers, ()) = tokio::join!(callers, commits);
        assert_eq!(answers, [Ok(0), Ok(10), Ok(20), Ok(30), Ok(40)]);
    }

    /// Longer than any test.
    const LONG: Duration = Duration::from_hours(1);

    /// Hands in `count` items and does not wait for the answers.
    async fn hand_in(group: &Group<u32, u32>, count: u32) {
        for item in 0..count {
            let (answer, _) = oneshot::channel();
            assert!(group.entries.send(Entry { item, answer }).await.is_ok());
        }
    }

    /// The size of the next group, unless it waits for more.
    fn taken_at_once(committer: &mut Committer<u32, u32>) -> Option<usize> {
        let (items, _) = committer.next(100).now_or_never()??;
        Some(items.len())
    }

    #[tokio::test]
    async fn a_group_waits_for_as_many_as_there_were_and_a_lone_caller_for_nobody() {
        let (group, committer) = group_commit::<u32, u32>(100);
        let mut committer = committer.gathering(LONG);
        for _ in 0..3 {
            assert_eq!(taken_at_once(&mut committer), None);
            hand_in(&group, 1).await;
            assert_eq!(taken_at_once(&mut committer), Some(1));
        }
        // two came while one was committed: three there were
        hand_in(&group, 2).await;
        assert_eq!(taken_at_once(&mut committer), None);
        // what had been taken is not lost, though nobody asked any more
        hand_in(&group, 1).await;
        assert_eq!(taken_at_once(&mut committer), Some(3));
        assert_eq!(taken_at_once(&mut committer), None);
        hand_in(&group, 3).await;
        assert_eq!(taken_at_once(&mut committer), Some(3));
        // nobody waits for more than enough
        hand_in(&group, 99).await;
        assert_eq!(taken_at_once(&mut committer), Some(99));
        hand_in(&group, 32).await;
        assert_eq!(taken_at_once(&mut committer), Some(32));
        // nor for those who cannot come
        hand_in(&group, 2).await;
        drop(group);
        assert_eq!(taken_at_once(&mut committer), Some(2));
        assert!(committer.next(100).await.is_none());
    }

    #[tokio::test]
    async fn callers_are_waited_for_and_not_the_weight_of_what_they_brought() {
        let (group, committer) = group_commit::<u32, u32>(100);
        let mut committer = committer.gathering(LONG);
        let hand = async |item: u32| {
            let (answer, _) = oneshot::channel();
            assert!(group.entries.send(Entry { item, answer }).await.is_ok());
        };
        let mut taken = || {
            let weight = |item: &u32| usize::try_from(*item).unwrap();
            let (items, _) = committer.next_weighed(100, weight).now_or_never()??;
            Some(items)
        };
        // a lone caller, who brings much and then little
        for item in [20, 1, 20] {
            assert_eq!(taken(), None);
            hand(item).await;
            assert_eq!(taken(), Some(vec![item]));
        }
        // of three callers two bring enough
        hand(1).await;
        hand(1).await;
        assert_eq!(taken(), None);
        hand(1).await;
        assert_eq!(taken(), Some(vec![1, 1, 1]));
        hand(16).await;
        assert_eq!(taken(), None);
        hand(16).await;
        assert_eq!(taken(), Some(vec![16, 16]));
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_the_gap() {
        let gap = Duration::from_millis(20);
        let (group, committer) = group_commit::<u32, u32>(100);
        let mut committer = committer.gathering(gap);
        hand_in(&group, 2).await;
        let begun = Instant::now();
        assert_eq!(taken_at_once(&mut committer), Some(2));
        hand_in(&group, 1).await;
        let (items, _) = committer.next(100).await.unwrap();
        let waited = begun.elapsed();
        assert!(
            items.len() == 1 && waited >= gap && waited < 100 * gap,
            "{waited:?}"
        );
        // a commit that takes as long leaves nothing of it
        hand_in(&group, 2).await;
        committer.next(100).await.unwrap();
        hand_in(&group, 1).await;
        let end = Instant::now() + gap;
        while Instant::now() < end {
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        let (items, _) = committer.next(100).await.unwrap();
        assert!(items.len() == 1 && begun.elapsed() < gap);
    }

    #[tokio::test]
    async fn a_caller_learns_that_the_loop_is_gone() {
        let (group, committer) = group_commit::<u32, u32>(1);
        drop(committer);
        assert_eq!(group.hand_in(1).await, Err(Closed));
    }

    #[tokio::test]
    async fn an_item_of_a_cancelled_caller_is_still_taken() {
        let (group, mut committer) = group_commit::<u32, u32>(1);
        let caller = group.hand_in(7);
        tokio::select! { biased; _ = caller => unreachable!(), () = std::future::ready(()) => {} }
        let (items, answers) = committer.next(1).await.unwrap();
        answers.send(vec![0]);
        assert_eq!(items, [7]);
    }

    #[tokio::test]
    #[should_panic(expected = "one answer for each item")]
    async fn a_missing_answer_is_a_bug() {
        let (group, mut committer) = group_commit::<u32, u32>(1);
        let commit = async {
            let (_, answers) = committer.next(1).await.unwrap();
            answers.send(vec![]);
        };
        let _ = tokio::join!(group.hand_in(1), commit);
    }

    #[tokio::test]
    async fn a_group_is_not_heavier_than_it_may_be_and_nothing_is_left_behind() {
        let (group, mut committer) = group_commit::<usize, usize>(16);
        let callers =
            futures::future::join_all([3, 4, 9, 50, 1, 1].map(|weight| group.hand_in(weight)));
        let commits = async {
            for expected in [vec![3, 4], vec![9], vec![50], vec![1, 1]] {
                let (items, answers) = committer.next_weighed(10, |weight| *weight).await.unwrap();
                assert_eq!(items, expected);
                answers.send(items);
            }
        };
        let (answers, ()) = tokio::join!(callers, commits);
        assert_eq!(answers, [Ok(3), Ok(4), Ok(9), Ok(50), Ok(1), Ok(1)]);
    }
}
