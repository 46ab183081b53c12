//! `lab down`: stops the stack of this checkout, also one that was left behind by a killed `lab up`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::say::{self, Steps};
use crate::stack::control::{self, Request};
use crate::stack::{clear_up, dir, process};

/// Longer than any stop takes.
const LIMIT: Duration = Duration::from_mins(2);

/// Comes back when no process of the stack is left.
pub async fn run(root: &Path) -> Result<()> {
    let root = &root.canonicalize().unwrap_or_else(|_| root.to_owned());
    if control::connect(root).await.is_some() {
        drop(control::ask(root, &Request::Down, &say::tell).await);
    } else if let Some(pid) = dir::holder(root) {
        say::line("Stopping a stack that is still starting.");
        process::signal(pid, Signal::SIGTERM);
    } else {
        return left_behind(root).await;
    }
    let begun = Instant::now();
    while dir::holder(root).is_some() {
        if begun.elapsed() > LIMIT {
            bail!("it did not stop within {} s", LIMIT.as_secs());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn left_behind(root: &Path) -> Result<()> {
    let begun = Instant::now();
    match clear_up(root).await {
        0 => say::line(format!("Nothing runs in {}.", root.display())),
        left => Steps::new(&say::tell).done(
            begun,
            format!(
                "ended {} of a stack whose `lab up` was killed",
                process::count(left)
            ),
        ),
    }
    Ok(())
}
