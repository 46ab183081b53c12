//! Faults of a stack whose `lab up` was killed: what can be undone without it.
//!
//! Proxies went with it, and what was held dead is nobody's to start. Processes that were stopped still are: they go on.
//! What is in the broker's data is undone by the next `lab up`, before its nodes start.

use std::path::Path;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::active::Notes;
use super::find;
use crate::say;
use crate::stack::{clear_up, dir, left_over, process};

/// Undoes what it can, and says what is left.
pub fn heal(root: &Path, id: Option<&str>) -> Result<()> {
    let notes = Notes::of(root);
    let mut all = notes.all()?;
    if let Some(id) = id {
        all.retain(|one| one.id == id);
        if all.is_empty() {
            return Err(say::Usage(format!("no fault {id} is active")).into());
        }
    }
    if all.is_empty() {
        say::line("no fault is active");
        return Ok(());
    }
    for one in left_over(root) {
        if process::state(one.pid) == Some('T') {
            process::signal(one.pid, Signal::SIGCONT);
        }
    }
    for active in all {
        let what = active.describe();
        if find(&active.order.fault).is_ok_and(|entry| entry.lasting) {
            let up = dir::command(root, "up");
            say::line(format!(
                "{what}: in the broker's data; `{up}` heals it at its start"
            ));
        } else {
            notes.remove(&active.id)?;
            say::line(format!("{what}: over with the `lab up` that was killed"));
        }
    }
    Ok(())
}

/// Ends what experiments left that were killed. Their stack is nobody's, so all of it goes.
pub async fn heal_experiments(root: &Path) -> Result<()> {
    let root = dir::real(root).join("experiments");
    let notes = Notes::of(&root);
    let all = notes.all()?;
    if all.is_empty() {
        return Ok(());
    }
    // else they run, and heal their faults themselves
    let Some(_lock) = dir::lock(&root)? else {
        return Ok(());
    };
    clear_up(&root).await;
    for active in all {
        let what = active.describe();
        if find(&active.order.fault).is_ok_and(|entry| entry.lasting) {
            say::line(format!(
                "{what}: in the data of experiments; the next one heals it before it starts"
            ));
        } else {
            notes.remove(&active.id)?;
            say::line(format!("{what}: over with the experiment that was killed"));
        }
    }
    Ok(())
}
