//! The scripts of the pages: their tests by Node's own runner, and a linter.
//!
//! Neither is needed to build or to run anything: without Node both are skipped, without the registry the linter is.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use super::Tally;
use super::stages::skip;
use crate::say;
use crate::stack::install;

/// The linter, with its version: another one would find other things.
const LINTER: (&str, &str) = ("oxlint", "1.94.0");
const INSTALL_LIMIT: Duration = Duration::from_mins(5);
const SCRIPTS: &str = "shared/web/static";
const TESTS: &str = "shared/web/tests/scripts";
const RULES: &str = "shared/web/oxlint.json";

/// Tests, then lints.
pub async fn run(root: &Path) -> Result<Tally> {
    let Some(node) = install::find("node") else {
        return Ok(skip("scripts", "there is no Node.js (the program node)"));
    };
    let mut tally = test(root, &node).await?;
    tally += match linter(root).await {
        Ok(linter) => lint(root, &linter).await?,
        Err(why) => skip("scripts", &format!("{} cannot be had: {why:#}", LINTER.0)),
    };
    Ok(tally)
}

async fn test(root: &Path, node: &Path) -> Result<Tally> {
    let mut command = Command::new(node);
    command
        .args(["--test", "--test-reporter=tap"])
        .current_dir(root.join(TESTS))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.context("cannot run node")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut tally = count(&said);
    // A file that cannot be read is no test that failed; no test at all is no success either.
    if tally.failed == 0 && (!output.status.success() || tally.passed == 0) {
        tally += Tally::FAILED;
    }
    if tally.failed > 0 {
        say::line(said.trim());
        say::line(String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(tally)
}

/// The sums at the end of what Node's runner says: `# pass 36`.
fn count(said: &str) -> Tally {
    let sum = |word: &str| {
        let start = format!("# {word} ");
        let figure = said
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(&start));
        figure
            .and_then(|figure| figure.trim().parse().ok())
            .unwrap_or(0)
    };
    Tally {
        passed: sum("pass"),
        failed: sum("fail") + sum("cancelled"),
        skipped: sum("skipped") + sum("todo"),
    }
}

async fn lint(root: &Path, linter: &Path) -> Result<Tally> {
    let mut command = Command::new(linter);
    command
        .args(["--config", RULES, "--deny-warnings", SCRIPTS, TESTS])
        .current_dir(root);
    super::cargo::check(command).await
}

/// Where the linter is; installs it under `target/` if this version is not there.
async fn linter(root: &Path) -> Result<PathBuf> {
    let (name, version) = LINTER;
    let folder = root.join("target").join(format!("{name}-{version}"));
    let program = folder.join("node_modules/.bin").join(name);
    if works(&program).await {
        return Ok(program);
    }
    let npm = install::find("npm").context("there is no npm")?;
    say::line(format!("installing {name} {version}"));
    let mut command = Command::new(npm);
    command
        .args([
            "install",
            "--no-save",
            "--no-audit",
            "--no-fund",
            "--prefix",
        ])
        .arg(&folder)
        .arg(format!("{name}@{version}"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(INSTALL_LIMIT, command.output())
        .await
        .context("npm takes too long")?
        .context("cannot run npm")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().lines().last().unwrap_or_default();
    ensure!(output.status.success(), "npm failed: {last}");
    ensure!(works(&program).await, "it does not run");
    Ok(program)
}

/// An installation that was broken off has a file that does not run.
async fn works(program: &Path) -> bool {
    let mut look = Command::new(program);
    look.arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    look.status().await.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_from_nodes_runner() {
        let said = "ok 1 - # pass 99\n1..4\n# tests 4\n# pass 2\n# fail 1\n# cancelled 0\n# skipped 1\n# todo 0\n";
        let expected = Tally {
            passed: 2,
            failed: 1,
            skipped: 1,
        };
        assert_eq!(count(said), expected);
        assert_eq!(count("nothing was run"), Tally::default());
    }
}
