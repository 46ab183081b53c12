//! The lock of a folder: who has it may run there what only one may.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// Held while a stack runs in the folder; released with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock of a folder, or says that another process has it.
pub fn lock(root: &Path) -> Result<Option<Lock>> {
    let path = root.join("lock");
    let file = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {
            // who has it, for `lab down` while the control socket is not there yet
            file.set_len(0)?;
            write!(file, "{}", std::process::id())?;
            Ok(Some(Lock { _file: file }))
        }
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock the folder"),
    }
}

/// Whether a process holds the lock, wherever it runs: in another container its number means nothing here. Where that
/// cannot be asked, it may be held.
pub fn is_held(root: &Path) -> bool {
    match File::open(root.join("lock")) {
        Ok(file) => file.try_lock_shared().is_err(),
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

/// The process that holds the lock, if one does.
pub fn holder(root: &Path) -> Option<i32> {
    if !root.is_dir() || lock(root).ok()?.is_some() {
        return None;
    }
    fs::read_to_string(root.join("lock"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::super::LabDir;
    use super::super::tests::fresh;
    use super::*;

    #[test]
    fn one_stack_at_a_time() {
        let root = fresh();
        LabDir::open(&root).unwrap();
        let held = lock(&root).unwrap();
        assert!(held.is_some());
        assert!(lock(&root).unwrap().is_none());
        assert!(is_held(&root));
        drop(held);
        assert!(!is_held(&root));
        assert!(lock(&root).unwrap().is_some());
        fs::remove_dir_all(root).unwrap();
    }
}
