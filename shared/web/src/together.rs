//! Reading for pages: whoever asks while a query runs shares the next one.
//!
//! What a reader gets was read after it asked, so nothing is ever old. Many readers cost the database what a few cost.

use std::time::Duration;

use daemon::database::within;
use group_commit::{Committer, Group, group_commit};
use tokio::time::timeout;

use crate::error::Error;

/// Readers that wait for the next query; further ones wait for room.
const WAITING: usize = 1_024;
/// How long a query may take. A page waits for one, and before that for the end of another.
const LIMIT: Duration = Duration::from_secs(3);

/// Where pages ask. Clones share the loop.
pub struct Together<T>(Group<(), Result<T, Error>>);

/// The loop that asks the database.
pub struct Reader<T>(Committer<(), Result<T, Error>>);

/// Both ends.
pub fn together<T>() -> (Together<T>, Reader<T>) {
    let (group, committer) = group_commit(WAITING);
    (Together(group), Reader(committer))
}

impl<T> Together<T> {
    /// What a query gives that begins after this call.
    ///
    /// # Errors
    /// The database's; that it is away after 6 s, or when the process is stopping.
    pub async fn read(&self) -> Result<T, Error> {
        match timeout(2 * LIMIT, self.0.hand_in(())).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) | Err(_) => Err(Error::database_away()),
        }
    }
}

impl<T: Clone> Reader<T> {
    /// Asks until every [`Together`] is gone.
    pub async fn run<Q>(mut self, query: impl Fn() -> Q)
    where
        Q: Future<Output = Result<T, sqlx::Error>>,
    {
        while let Some((_, answers)) = self.0.next(WAITING).await {
            answers.send_to_all(&within(LIMIT, query()).await.map_err(Error::from));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending};

    use tokio::{sync::Notify, task::yield_now, time::sleep};

    use super::*;

    /// One asks, and while its query runs two more do; what they get, in this order. Each query gives its number, after
    /// it did `what` with that and with the word that all three have asked.
    async fn one_then_two(what: impl AsyncFn(u32, &Notify)) -> [Result<u32, String>; 3] {
        let (together, reader) = together();
        let (begun, asked) = (Cell::new(0), Notify::new());
        let queries = reader.run(|| async {
            begun.set(begun.get() + 1);
            let number = begun.get();
            what(number, &asked).await;
            Ok(number)
        });
        let read = async || {
            let read = together.read().await;
            read.map_err(|error| error.detail().to_owned())
        };
        let later = async {
            while begun.get() == 0 {
                yield_now().await;
            }
            tokio::join!(read(), read(), async { asked.notify_one() })
        };
        tokio::select! {
            () = queries => unreachable!("somebody may still ask"),
            (one, (two, three, ())) = async { tokio::join!(read(), later) } => [one, two, three],
        }
    }

    #[tokio::test]
    async fn those_who_ask_while_a_query_runs_share_the_next_one() {
        let first_waits = async |number, asked: &Notify| {
            if number == 1 {
                asked.notified().await;
            }
        };
        assert_eq!(one_then_two(first_waits).await, [Ok(1), Ok(2), Ok(2)]);
    }

    #[tokio::test]
    async fn a_reader_waits_for_two_queries_that_are_both_slow() {
        let slow = async |_, _: &Notify| sleep(LIMIT.mul_f64(0.6)).await;
        assert_eq!(one_then_two(slow).await, [Ok(1), Ok(2), Ok(2)]);
    }

    #[tokio::test]
    async fn a_query_that_hangs_is_given_up_and_the_next_one_answers() {
        let first_hangs = async |number, _: &Notify| {
            if number == 1 {
                pending::<()>().await;
            }
        };
        let away = Err(Error::database_away().detail().to_owned());
        assert_eq!(one_then_two(first_hangs).await, [away, Ok(2), Ok(2)]);
    }
}
