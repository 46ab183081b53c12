//! Waiting for a condition, never for a time.

use std::{fmt::Debug, panic::Location, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

const EACH: Duration = Duration::from_millis(25);

/// What a look at the world gives: what was waited for, or what was seen instead.
pub trait Seen {
    /// What was waited for.
    type Good;

    /// The good, or a description of what was seen instead.
    fn judge(self) -> Result<Self::Good, String>;
}

impl Seen for bool {
    type Good = ();

    fn judge(self) -> Result<(), String> {
        if self {
            Ok(())
        } else {
            Err("false".to_owned())
        }
    }
}

impl<T> Seen for Option<T> {
    type Good = T;

    fn judge(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Debug> Seen for Result<T, E> {
    type Good = T;

    fn judge(self) -> Result<T, String> {
        self.map_err(|seen| format!("{seen:?}"))
    }
}

/// Looks again and again until it sees what it waits for, and gives that. The look returns a
/// `bool`, an `Option`, or a `Result` whose error is what was seen instead.
///
/// # Panics
/// After `limit`, saying what was waited for and what was seen last.
#[track_caller]
pub fn wait_until<S: Seen>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> S,
) -> impl Future<Output = S::Good> {
    let place = Location::caller();
    async move {
        let end = Instant::now() + limit;
        let mut last = "nothing yet: the first look did not return".to_owned();
        loop {
            match timeout_at(end, look()).await.map(Seen::judge) {
                Ok(Ok(good)) => return good,
                Ok(Err(seen)) => last = seen,
                Err(_elapsed) => {}
            }
            assert!(
                Instant::now() < end,
                "waited {limit:?} for: {what}; seen last: {last} ({place})"
            );
            sleep(EACH).await;
        }
    }
}

/// Looks again and again until it sees the wanted value.
///
/// # Panics
/// After `limit`, saying what was waited for, what was wanted and what was seen last.
#[track_caller]
pub fn wait_until_eq<T: Debug + PartialEq>(
    what: &str,
    limit: Duration,
    wanted: T,
    mut look: impl AsyncFnMut() -> T,
) -> impl Future<Output = ()> {
    wait_until(what, limit, async move || {
        let seen = look().await;
        if seen == wanted {
            Ok(())
        } else {
            Err(format!("{seen:?}, not {wanted:?}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_waited_for_is_given() {
        let mut looks = 0;
        let seen = wait_until("the third look", Duration::from_secs(5), async || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(looks) }
        });
        assert_eq!(seen.await, 3);
        wait_until("a truth", Duration::from_secs(5), async || true).await;
        assert_eq!(
            wait_until("a thing", Duration::from_secs(5), async || Some(7)).await,
            7
        );
    }

    #[tokio::test]
    #[should_panic(expected = "for: five messages; seen last: \"4, not 5\"")]
    async fn in_vain_it_says_what_was_seen_last() {
        wait_until_eq("five messages", Duration::from_millis(60), 5, async || 4).await;
    }

    #[tokio::test]
    #[should_panic(expected = "for: an answer")]
    async fn a_look_that_hangs_does_not_outlast_the_limit() {
        let hangs = async || std::future::pending::<bool>().await;
        wait_until("an answer", Duration::from_millis(60), hangs).await;
    }
}
