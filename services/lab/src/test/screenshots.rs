//! `lab screenshots`: pictures of every page, made by the tests that look at every page.
//!
//! They start stacks of their own, offer a load, break what runs, and fail where a page does not fit its window or
//! cannot be read; so there are no pictures of what is wrong.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};

use super::cargo::cargo;
use crate::say::{self, Steps};
use crate::stack::dir;
use crate::stack::install::{self, CHROMEDRIVER, CHROMIUM};

const FOLDER: &str = "docs/screenshots";
/// How the names of all pictures end.
const KINDS: [&str; 4] = [
    "-light-1440.png",
    "-dark-1440.png",
    "-light-390.png",
    "-dark-390.png",
];
const LOOKS: [&str; 2] = [
    "every_page::every_page_fits_can_be_read_and_has_no_failing_script",
    "others::their_pages_fit_can_be_read_and_have_no_failing_script",
];

/// Makes them, in place of those that are in the folder.
pub async fn run(folder: Option<PathBuf>) -> Result<ExitCode> {
    let root = dir::checkout()?;
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
    command.args(LOOKS).env("SCREENSHOTS", &new);
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

/// Copies all pictures into the folder, and removes those of pages that are no more; how many, and their bytes.
fn replace(new: &Path, folder: &Path) -> std::io::Result<(usize, u64)> {
    let made = pictures(new)?;
    if made.is_empty() {
        return Err(std::io::Error::other("no picture was made"));
    }
    std::fs::create_dir_all(folder)?;
    for old in pictures(folder)? {
        std::fs::remove_file(old)?;
    }
    let mut bytes = 0;
    for picture in &made {
        bytes += std::fs::copy(
            picture,
            folder.join(picture.file_name().unwrap_or_default()),
        )?;
    }
    Ok((made.len(), bytes))
}

/// Those that are ours, by their names; a folder of somebody's may have others.
fn pictures(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut ours = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if KINDS.iter().any(|kind| name.ends_with(kind)) {
            ours.push(path);
        }
    }
    Ok(ours)
}
