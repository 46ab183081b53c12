//! The Chaos Toolkit, which drives the lab in tests: a Python program, in an environment of its own under `target/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use crate::say;
use crate::stack::install;

/// What is installed, with versions: as the example's reader is told.
const REQUIREMENTS: &str = include_str!("../../../../docs/chaos-toolkit/requirements.txt");
/// Beside what was installed: what that was. Written last.
const MARK: &str = "installed.txt";
const PACKAGE: &str = "python3-venv";
const LIMIT: Duration = Duration::from_mins(5);

/// Where the program `chaos` is; installs it if it is not there.
pub async fn ensure(checkout: &Path) -> Result<PathBuf> {
    let folder = checkout.join("target/chaos-toolkit");
    let (chaos, mark) = (folder.join("bin/chaos"), folder.join(MARK));
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == REQUIREMENTS) {
        return Ok(chaos);
    }
    say::line("installing the Chaos Toolkit");
    let _ = fs::remove_dir_all(&folder);
    let python = python().await?;
    let requirements = checkout.join("docs/chaos-toolkit/requirements.txt");
    let mut make = Command::new(python);
    run(make.args(["-m", "venv"]).arg(&folder)).await?;
    let mut pip = Command::new(folder.join("bin/pip"));
    let quietly = [
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-input",
        "-r",
    ];
    run(pip.args(quietly).arg(requirements)).await?;
    run(Command::new(&chaos).arg("--version")).await?;
    fs::write(mark, REQUIREMENTS)?;
    Ok(chaos)
}

/// A Python that can make environments.
async fn python() -> Result<PathBuf> {
    if let Some(python) = able().await {
        return Ok(python);
    }
    install::add(PACKAGE).await?;
    let still = "there is no Python with venv, although its package is installed";
    able().await.context(still)
}

/// The first one on the PATH may be another one than the package's.
async fn able() -> Option<PathBuf> {
    for python in [install::find("python3"), Some("/usr/bin/python3".into())] {
        let Some(python) = python else { continue };
        let mut look = Command::new(&python);
        if run(look.args(["-c", "import venv, ensurepip"]))
            .await
            .is_ok()
        {
            return Some(python);
        }
    }
    None
}

async fn run(command: &mut Command) -> Result<()> {
    let what = format!("{:?}", command.as_std());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(LIMIT, output).await;
    let output = output.with_context(|| format!("{what} takes too long"))?;
    let output = output.with_context(|| format!("cannot run {what}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let last = said.trim().lines().last().unwrap_or_default();
    ensure!(output.status.success(), "{what} failed: {last}");
    Ok(())
}
