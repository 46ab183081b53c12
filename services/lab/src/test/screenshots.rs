//! `lab screenshots`: pictures of every page, made by the test that looks at every page.
//!
//! That test starts a stack of its own, offers it a load, breaks it, and fails where a page does not fit its window or
//! cannot be read; so there are no pictures of what is wrong.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use super::cargo::cargo;
use crate::say::{self, Steps};
use crate::stack::dir;
use crate::stack::install::{self, CHROMEDRIVER, CHROMIUM};

const FOLDER: &str = "docs/screenshots";
const LOOKS: &str = "every_page::every_page_fits_can_be_read_and_has_no_failing_script";

/// Makes them, in place of those that are in the folder.
pub async fn run(folder: Option<PathBuf>) -> Result<ExitCode> {
    let lab_dir = dir::default_root()?;
    let root = lab_dir.parent().context("no checkout here")?.to_owned();
    ensure!(
        root.join("Cargo.lock").is_file(),
        "{} is no checkout of the project",
        root.display()
    );
    let folder = match folder {
        Some(folder) => std::path::absolute(folder)?,
        None => root.join(FOLDER),
    };
    let steps = Steps::new(&say::tell);
    install::ensure_installed(&[CHROMIUM, CHROMEDRIVER], true, &steps).await?;
    // Beside it first: a run that fails leaves the old ones.
    let new = root.join("target/screenshots");
    let _ = std::fs::remove_dir_all(&new);
    let arguments = ["test", "--workspace", "--test", "browser", "--", "--exact"];
    let mut command = cargo(&root, &arguments);
    command.arg(LOOKS).env("SCREENSHOTS", &new);
    let status = command.stdout(Stdio::inherit()).status().await;
    let status = status.context("cannot run cargo")?;
    if !status.success() {
        say::complain(format!(
            "a page is not as it should be; the pictures up to it are in {}",
            new.display()
        ));
        return Ok(ExitCode::FAILURE);
    }
    let (count, bytes) = replace(&new, &folder)
        .with_context(|| format!("cannot put the pictures into {}", folder.display()))?;
    say::line(format!(
        "{count} pictures, {} kB, in {}",
        bytes / 1000,
        folder.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Moves all pictures into the folder, and removes those that are no more; how many, and their bytes.
fn replace(new: &Path, folder: &Path) -> std::io::Result<(usize, u64)> {
    std::fs::create_dir_all(folder)?;
    for old in std::fs::read_dir(folder)? {
        let old = old?.path();
        if old.extension().is_some_and(|kind| kind == "png") {
            std::fs::remove_file(old)?;
        }
    }
    let (mut count, mut bytes) = (0, 0);
    for picture in std::fs::read_dir(new)? {
        let picture = picture?;
        bytes += std::fs::copy(picture.path(), folder.join(picture.file_name()))?;
        count += 1;
    }
    Ok((count, bytes))
}
