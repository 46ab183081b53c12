//! Runs cargo, shows what it says, and counts the tests it ran.
//!
//! Always the whole workspace: one package alone has other features, and most of the tree would be built again.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::Tally;
use crate::say;

/// A cargo command in the checkout.
pub fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// One check: passed or failed as cargo says.
pub async fn check(mut command: Command) -> Result<Tally> {
    let status = command.status().await.context("cannot run cargo")?;
    Ok(if status.success() {
        Tally::PASSED
    } else {
        Tally::FAILED
    })
}

/// Whether a cargo command like `fmt` is installed; says how to get it if not.
pub async fn has(root: &Path, command: &str, component: &str) -> bool {
    let mut probe = cargo(root, &[command, "--version"]);
    probe.stdout(Stdio::null()).stderr(Stdio::null());
    let there = probe.status().await.is_ok_and(|status| status.success());
    if !there {
        say::complain(format!(
            "{component} is missing: rustup component add {component}"
        ));
    }
    there
}

/// The sum of all tests that the command runs.
pub async fn count(mut command: Command) -> Result<Tally> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut lines = BufReader::new(output).split(b'\n');
    let (mut sum, mut broken) = (Tally::default(), Vec::new());
    while let Some(line) = lines.next_segment().await? {
        let line = String::from_utf8_lossy(&line);
        say::line(&line);
        if let Some(tally) = result(&line) {
            sum += tally;
        }
        if line.starts_with("test ") && line.ends_with("... FAILED") {
            broken.push(line.into_owned());
        }
    }
    let status = child.wait().await?;
    if !status.success() && sum.failed == 0 {
        // it did not build, or a test process died before it could say so
        sum += Tally::FAILED;
    }
    for line in broken {
        say::line(line);
    }
    Ok(sum)
}

/// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn result(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut tally = Tally::default();
    for part in counts.split("; ") {
        let (number, word) = part.split_once(' ')?;
        match word {
            "passed" => tally.passed = number.parse().ok()?,
            "failed" => tally.failed = number.parse().ok()?,
            "ignored" => tally.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_the_harness() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        assert_eq!(
            result(line),
            Some(Tally {
                passed: 5,
                failed: 2,
                skipped: 1
            })
        );
        assert_eq!(result("test some::thing ... ok"), None);
    }
}
