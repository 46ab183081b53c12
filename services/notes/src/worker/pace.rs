//! A steady rate: a worker saves no more than so many notes in a second, however many wait.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How fast a worker may go.
#[derive(Debug)]
pub struct Pace {
    /// From one note to the next; zero for no limit.
    step: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// So many in a second; 0 for any number.
    pub fn new(per_second: u32) -> Self {
        let step = Duration::from_secs(1).checked_div(per_second);
        Self {
            step: step.unwrap_or_default(),
            next: Mutex::new(None),
        }
    }

    /// Waits for the next turn. Turns that nobody took are not made up for.
    pub async fn turn(&self) {
        if self.step.is_zero() {
            return;
        }
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let at = next.map_or(now, |next| next.max(now));
            *next = Some(at + self.step);
            at
        };
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    async fn time_of(pace: &Pace, turns: usize) -> Duration {
        let began = Instant::now();
        join_all((0..turns).map(|_| pace.turn())).await;
        began.elapsed()
    }

    #[tokio::test]
    async fn turns_come_one_after_the_other_and_none_is_made_up_for() {
        let pace = Pace::new(200);
        for _ in 0..2 {
            let took = time_of(&pace, 21).await;
            assert!(took >= Duration::from_millis(95), "{took:?}");
        }
    }

    #[tokio::test]
    async fn without_a_limit_nobody_waits() {
        let took = time_of(&Pace::new(0), 10_000).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}
