//! How people say a command about the stack in a folder.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// `.lab` in the checkout that the current folder lies in, or in the current folder.
pub fn default_root() -> Result<PathBuf> {
    let here = std::env::current_dir().context("the current folder is gone")?;
    let checkout = here
        .ancestors()
        .find(|folder| folder.join("services/lab/Cargo.toml").is_file());
    Ok(checkout.unwrap_or(&here).join(".lab"))
}

/// The checkout that the current folder lies in.
///
/// # Errors
/// It lies in none.
pub fn checkout() -> Result<PathBuf> {
    let lab_dir = default_root()?;
    let root = lab_dir.parent().context("no checkout here")?;
    ensure!(
        root.join("Cargo.lock").is_file(),
        "{} is no checkout of the project: run it in one",
        root.display()
    );
    Ok(root.to_owned())
}

static CALLED: OnceLock<String> = OnceLock::new();

/// People say `lab` in another way than by cargo: as a service of Compose.
pub fn called(by: String) {
    let _ = CALLED.set(by);
}

/// Whether this program is a service of Compose, whose environment says which stack is meant.
pub fn is_service() -> bool {
    CALLED.get().is_some()
}

/// How to say a `lab` command about the stack in this folder, to be pasted into a shell.
pub fn command(root: &Path, rest: &str) -> String {
    if let Some(called) = CALLED.get() {
        return format!("{called} {rest}");
    }
    let root = real(root);
    if default_root().is_ok_and(|default| real(&default) == root) {
        return format!("cargo lab {rest}");
    }
    format!(
        "cargo lab --lab-dir {} {rest}",
        quoted(&root.to_string_lossy())
    )
}

/// The path that a process of the stack knows, also of a folder that is not there yet.
pub fn real(root: &Path) -> PathBuf {
    root.canonicalize()
        .or_else(|_| std::path::absolute(root))
        .unwrap_or_else(|_| root.to_owned())
}

/// As a shell reads it back.
pub fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.,+@:".contains(c);
    if path.chars().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_the_folder_unless_it_is_the_usual_one() {
        let usual = default_root().unwrap();
        assert_eq!(command(&usual, "down"), "cargo lab down");
        assert_eq!(
            command(Path::new("/nowhere/.lab"), "up"),
            "cargo lab --lab-dir /nowhere/.lab up"
        );
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
    }
}
