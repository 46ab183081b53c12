//! A stack that one command has to itself: a folder below the laboratory's, servers and ports that nobody else uses.

use std::path::Path;

use anyhow::Result;
use tokio::sync::mpsc;

use super::dir::{self, LabDir, Lock};
use super::install::{self, NGINX};
use super::servers::Given;
use super::{Options, Stack, clear_up, ports};
use crate::say::{Steps, Usage};

/// Keeps others from the folder and the port, for as long as it lives.
pub struct Held {
    _lock: Lock,
    _port: ports::Reserved,
}

/// Takes the folder `name`, ends what a killed predecessor left there, and writes settings; nothing runs yet.
/// `busy` is said of one that is taken: `experiments already run`.
pub async fn prepare(
    root: &Path,
    name: &str,
    busy: &str,
    options: Options,
    yes: bool,
    steps: &Steps<'_>,
) -> Result<(Stack, Held)> {
    let root = root.join(name);
    dir::make_folder(&root, 0o711)?;
    let root = root.canonicalize()?;
    let Some(lock) = dir::lock(&root)? else {
        let by = dir::holder(&root)
            .map(|pid| format!(" (pid {pid})"))
            .unwrap_or_default();
        return Err(Usage(format!("{busy} in {}{by}", root.display())).into());
    };
    clear_up(&root).await;
    let given = Given::default();
    let mut needed = given.needed();
    needed.push(NGINX);
    install::ensure_installed(&needed, yes, steps).await?;
    let (port, reserved) = ports::free()?;
    // what ends by itself here, the command sees by itself: nobody needs to be told
    let (news, _) = mpsc::unbounded_channel();
    let stack = Stack::prepare(LabDir::open(&root)?, &given, port, options, news).await?;
    let held = Held {
        _lock: lock,
        _port: reserved,
    };
    Ok((stack, held))
}
