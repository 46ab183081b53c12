//! Waiting for a message: no loop that asks again and again, but a bell and a timer.
//!
//! Who waits looks once, then asks once when the next lease ends, and sleeps until then or until the bell rings. Woken in vain,
//! because another one was faster, it does the same again. A client that leaves, or a process that stops, ends it.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use web::Error;

use crate::{app::App, bell::Next, lease::Ask, left::Left, message::Leased, numbers};

/// A message that is free and cannot be had is being leased by another node, which takes about this long ..
const PAUSE: Duration = Duration::from_millis(20);
/// .. unless it hangs.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Leases what there is; where there is nothing, what comes within so long.
pub(crate) async fn wait(
    app: &App,
    ask: Ask,
    wait: Duration,
    left: &Left,
) -> Result<Vec<Leased>, Error> {
    let until = Instant::now() + wait;
    // Listen first, then look: what comes in between rings.
    let mut rings = app.bell.listen(ask.queue_id);
    let mut pause = PAUSE;
    let mut waiting = None;
    loop {
        rings.mark_unchanged();
        let leased = app.lease(ask).await?;
        if !leased.is_empty() || Instant::now() >= until {
            return Ok(leased);
        }
        waiting.get_or_insert_with(Waiting::new);
        let timer = match app.clock.next(ask.queue_id).await? {
            Some(Next::In(time)) => Some(time),
            Some(Next::Now) => {
                app.floors.forget(ask.queue_id);
                let time = pause;
                pause = (pause * 2).min(PAUSE_MAX);
                Some(time)
            }
            None => None,
        };
        let lease_ends = async {
            match timer {
                Some(time) => sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = rings.changed() => {}
            () = lease_ends => {}
            () = sleep_until(until) => return Ok(Vec::new()),
            () = left.wait() => return Ok(Vec::new()),
            () = app.stopping.cancelled() => return Ok(Vec::new()),
        }
    }
}

/// Counts who waits, also when the waiting future is dropped.
struct Waiting;

impl Waiting {
    fn new() -> Self {
        metrics::gauge!(numbers::WAITING).increment(1);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::gauge!(numbers::WAITING).decrement(1);
    }
}
