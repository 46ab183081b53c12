//! What to do when the database does not do what we asked: a fault of the infrastructure is waited
//! out with the delivery in hand; a fault of the message itself is a failure of its work.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::connection::Backoff;

/// Why the database did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// Trying the same again later may succeed, whatever the message holds.
    #[error("{0}")]
    Infrastructure(String),
    /// What we asked for cannot be done with this message.
    #[error("{0}")]
    Message(String),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let code = match &error {
            sqlx::Error::Database(error) => error.code().unwrap_or_default().into_owned(),
            // The link, the pool, or a protocol error of either; a row that we cannot decode is a
            // bug of ours, and not a reason to give a message up either.
            _ => String::new(),
        };
        // 22 wrong data, 23 a broken constraint, 42 a statement that does not fit: as wrong next time.
        // 42501 (no privilege) and 42P01 (no table) are wrong setup, which a person mends.
        let message = matches!(code.get(..2), Some("22" | "23" | "42"))
            && !matches!(&*code, "42501" | "42P01");
        if message {
            Self::Message(error.to_string())
        } else {
            Self::Infrastructure(error.to_string())
        }
    }
}

/// How many deliveries are held because of the infrastructure, and so whether the consumer pauses.
#[derive(Debug, Clone)]
pub struct Holding(watch::Sender<Held>);

/// Deliveries held at this moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// How many.
    pub count: usize,
    /// What the database said last.
    pub why: Option<String>,
}

impl Default for Holding {
    fn default() -> Self {
        Self(watch::channel(Held::default()).0)
    }
}

impl Holding {
    /// To watch it.
    pub fn subscribe(&self) -> watch::Receiver<Held> {
        self.0.subscribe()
    }

    /// Repeats `deed` until the database does it: the delivery stays in hand, unsettled.
    ///
    /// # Errors
    /// The message itself is at fault, or `stop` came first (`None`).
    pub async fn until_done<T, F, E>(
        &self,
        what: &'static str,
        stop: &CancellationToken,
        mut deed: impl FnMut() -> F,
    ) -> Result<T, Option<String>>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<Fault>,
    {
        let mut backoff = Backoff::default();
        let mut hold = None;
        loop {
            let why = match deed().await.map_err(Into::into) {
                Ok(done) => return Ok(done),
                Err(Fault::Message(why)) => return Err(Some(why)),
                Err(Fault::Infrastructure(why)) => why,
            };
            warn!(
                what,
                why, "the database does not do it; the delivery is held"
            );
            hold.get_or_insert_with(|| Hold::new(&self.0)).because(why);
            let pause = backoff.next_pause().min(Duration::from_secs(2));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return Err(None),
            }
        }
    }
}

/// Counts one held delivery for as long as it lives, also when its future is dropped.
struct Hold<'a>(&'a watch::Sender<Held>);

impl<'a> Hold<'a> {
    fn new(held: &'a watch::Sender<Held>) -> Self {
        held.send_modify(|held| held.count += 1);
        Self(held)
    }

    fn because(&self, why: String) {
        self.0.send_modify(|held| held.why = Some(why));
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|held| {
            held.count -= 1;
            if held.count == 0 {
                held.why = None;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_delivery_is_held_until_the_database_is_back() {
        let holding = Holding::default();
        let held = holding.subscribe();
        let tries = Cell::new(0);
        let done = holding
            .until_done("test", &CancellationToken::new(), || async {
                tries.set(tries.get() + 1);
                if tries.get() == 2 {
                    assert_eq!(held.borrow().count, 1);
                }
                if tries.get() < 3 {
                    Err(sqlx::Error::PoolTimedOut)
                } else {
                    Ok(7)
                }
            })
            .await;
        assert!(matches!(done, Ok(7)));
        assert_eq!(*held.borrow(), Held::default());
    }

    #[tokio::test]
    async fn a_stop_ends_the_hold() {
        let holding = Holding::default();
        let stop = CancellationToken::new();
        stop.cancel();
        let outcome: Result<(), _> = holding
            .until_done("test", &stop, || async { Err(sqlx::Error::PoolTimedOut) })
            .await;
        assert!(matches!(outcome, Err(None)));
        assert_eq!(holding.subscribe().borrow().count, 0);
    }
}
