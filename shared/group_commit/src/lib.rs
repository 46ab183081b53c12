//! Many callers, one commit, or one query.
//!
//! Callers hand items over with [`Group::hand_in`] and wait for their own answer. One loop takes
//! everything that gathered while it was busy ([`Committer::next`]), does it in one transaction and
//! answers each caller. There is no artificial delay: a lone item is taken at once, and a group only
//! grows because the previous commit is still running.
//!
//! Between handing over and the answer a caller may be cancelled (its client hung up): the item is
//! still committed, and nobody reads the answer. If the loop ends, every waiting caller gets
//! [`Closed`], and cannot know whether its item was committed.
#![warn(missing_docs)]

use tokio::sync::{mpsc, oneshot};

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
    /// Taken, and too heavy for the group it was taken for: the first of the next.
    left_over: Option<Entry<T, R>>,
}

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
    /// Waits for at least one item and takes all that wait, `most` at a time. `None` when every
    /// [`Group`] is gone.
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
        let first = match self.left_over.take() {
            Some(entry) => entry,
            None => self.entries.recv().await?,
        };
        let mut weighs = weight(&first.item);
        let mut entries = vec![first];
        while weighs < most
            && let Ok(entry) = self.entries.try_recv()
        {
            weighs = weighs.saturating_add(weight(&entry.item));
            if weighs > most {
                self.left_over = Some(entry);
                break;
            }
            entries.push(entry);
        }
        let (items, answers) = entries.into_iter().map(|e| (e.item, e.answer)).unzip();
        Some((items, Answers(answers)))
    }
}

/// Makes the two sides; at most `capacity` items wait, further callers wait for room.
pub fn group_commit<T, R>(capacity: usize) -> (Group<T, R>, Committer<T, R>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let committer = Committer {
        entries: receiver,
        left_over: None,
    };
    (Group { entries: sender }, committer)
}

#[cfg(test)]
mod tests {
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
