//! `lab reset`: removes the data of the stack: messages, queues, sessions, logs, passwords.

use std::fs;
use std::io::{IsTerminal, stdin};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::say;
use crate::stack::{clear_up, dir, postgres};

/// Asks first, unless told not to.
pub async fn run(root: &Path, yes: bool) -> Result<()> {
    let Ok(root) = root.canonicalize() else {
        say::line("There is nothing to remove.");
        return Ok(());
    };
    ensure!(
        dir::made_here(&root),
        "{} was not made by lab",
        root.display()
    );
    let Some(_lock) = dir::lock(&root)? else {
        let down = dir::command(&root, "down");
        bail!("a stack runs in {}; `{down}` stops it", root.display());
    };
    let experiments = root.join("experiments");
    let _theirs = if experiments.is_dir() {
        let lock = dir::lock(&experiments)?;
        Some(lock.with_context(|| format!("experiments run in {}", experiments.display()))?)
    } else {
        None
    };
    if !yes {
        ensure!(
            stdin().is_terminal(),
            "nobody can answer here; say --yes to remove {}",
            root.display()
        );
        let question = format!("Remove all data in {}?", root.display());
        if !say::confirm(&question)? {
            say::line("Nothing was removed.");
            return Ok(());
        }
    }
    // one stack lies inside the other
    clear_up(&experiments).await;
    clear_up(&root).await;
    let outside = [&experiments, &root].map(|folder| postgres::outside(folder));
    for folder in outside.into_iter().chain([root.clone()]) {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            _ => {}
        }
    }
    say::line(format!("Removed {}.", root.display()));
    Ok(())
}
