//! How other `lab` commands talk to the one that runs the stack: a Unix socket in its folder, one JSON document a line.
//!
//! A client sends one request and reads lines of progress (`{"say": ".."}`) until `{"done": ..}` or `{"error": ".."}`.
//! Only the owner may connect. A path that is too long for a socket is replaced by a short one elsewhere, which the file
//! `control.path` names.

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, broadcast, mpsc};

use super::dir::{self, tag, write_secret};
use super::{Plan, Stack, process};
use crate::faults::over_socket::{self, Ask};
use crate::say::{self, Steps, Usage};

/// What can be asked of a running stack.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Request {
    Status,
    /// Of the nodes, what is known without asking them.
    Nodes,
    Scale {
        nodes: Plan,
    },
    Down,
    Fault {
        ask: Ask,
    },
}

/// One line of the answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Say(String),
    Done(Value),
    Error(String),
    /// It cannot be done as it was asked for.
    Refused(String),
}

/// The kernel's limit is 108 bytes with the closing zero.
const PATH_MAX: usize = 100;

/// The listening side; the socket's file goes with it.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    note: PathBuf,
}

impl Control {
    /// Listens. Only the holder of the folder's lock may call this: it replaces a socket that a killed one left.
    pub fn open(root: &Path) -> Result<Self> {
        let note = root.join("control.path");
        let _ = fs::remove_file(&note);
        let mut path = root.join("control.sock");
        if path.as_os_str().as_bytes().len() > PATH_MAX {
            path = short_folder()?.join(format!("unacked-{}.sock", tag(root)));
            write_secret(&note, &path.to_string_lossy())?;
        }
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path);
        let listener = listener.with_context(|| format!("cannot listen on {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            path,
            note,
        })
    }

    /// Answers one client after the other has asked; each in its own task.
    pub async fn serve(
        &self,
        stack: &Arc<Stack>,
        down: &Arc<Notify>,
        lines: &broadcast::Sender<String>,
    ) {
        let mut clients = tokio::task::JoinSet::new();
        loop {
            if let Ok((stream, _)) = self.listener.accept().await {
                let (stack, down) = (Arc::clone(stack), Arc::clone(down));
                let lines = lines.subscribe();
                clients.spawn(async move { drop(answer(stream, &stack, &down, lines).await) });
            }
            while clients.try_join_next().is_some() {}
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.note);
    }
}

/// A folder that only we can write to.
fn short_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
        && folder.is_dir()
        && folder.as_os_str().as_bytes().len() < PATH_MAX - 30
    {
        return Ok(folder);
    }
    let folder = PathBuf::from(format!("/tmp/unacked-{}", nix::unistd::geteuid()));
    dir::make_folder(&folder, 0o700)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o700))
        .with_context(|| format!("{} belongs to somebody else", folder.display()))?;
    Ok(folder)
}

async fn answer(
    stream: UnixStream,
    stack: &Arc<Stack>,
    down: &Notify,
    lines: broadcast::Receiver<String>,
) -> Result<()> {
    let (input, mut output) = stream.into_split();
    let mut input = BufReader::new(input).lines();
    let request = input.next_line().await?.unwrap_or_default();
    let request = match serde_json::from_str(&request) {
        Ok(request) => request,
        Err(error) => {
            return send(
                &mut output,
                &Answer::Error(format!("not understood: {error}")),
            )
            .await;
        }
    };
    match request {
        Request::Status => {
            let status = serde_json::to_value(Box::pin(stack.status()).await)?;
            send(&mut output, &Answer::Done(status)).await
        }
        Request::Nodes => {
            let nodes = serde_json::to_value(stack.conditions())?;
            send(&mut output, &Answer::Done(nodes)).await
        }
        Request::Scale { nodes } => {
            let work = async |steps: &Steps<'_>| {
                stack.scale(&nodes, steps).await?;
                Ok(json!({}))
            };
            tell_while(&mut output, work).await
        }
        Request::Fault { ask } => {
            // another line, or the end of the client, stops what takes its time
            let stop = async { drop(input.next_line().await) };
            let (injector, links) = (over_socket::injector(stack), stack.has_links());
            let work = async move |steps: &Steps<'_>| {
                over_socket::answer(&ask, &injector, links, steps, stop).await
            };
            tell_while(&mut output, work).await
        }
        Request::Down => {
            down.notify_one();
            relay(&mut output, lines).await
        }
    }
}

/// Does the work, passes on what it says meanwhile, and then its result.
async fn tell_while(
    output: &mut OwnedWriteHalf,
    work: impl AsyncFnOnce(&Steps<'_>) -> Result<Value>,
) -> Result<()> {
    let (told, mut lines) = mpsc::unbounded_channel();
    let work = async move {
        let tell = |text: &str| {
            say::line(text);
            let _ = told.send(text.to_owned());
        };
        work(&Steps::new(&tell)).await
    };
    let pass_on = async {
        while let Some(text) = lines.recv().await {
            // a client that went away does not stop the work
            let _ = send(output, &Answer::Say(text)).await;
        }
    };
    let (result, ()) = tokio::join!(work, pass_on);
    let answer = match result {
        Ok(value) => Answer::Done(value),
        Err(error) if error.is::<Usage>() => Answer::Refused(format!("{error:#}")),
        Err(error) => Answer::Error(format!("{error:#}")),
    };
    send(output, &answer).await
}

/// Everything that the stack says until it ends.
async fn relay(output: &mut OwnedWriteHalf, mut lines: broadcast::Receiver<String>) -> Result<()> {
    while let Ok(text) = lines.recv().await {
        send(output, &Answer::Say(text)).await?;
    }
    send(output, &Answer::Done(json!({}))).await
}

async fn send(output: &mut OwnedWriteHalf, answer: &Answer) -> Result<()> {
    let mut line = serde_json::to_string(answer)?;
    line.push('\n');
    Ok(output.write_all(line.as_bytes()).await?)
}

/// Asks the stack of a folder, passing on what it says. Fails when none runs there.
pub async fn ask(root: &Path, request: &Request, tell: say::Tell<'_>) -> Result<Value> {
    ask_until(root, request, tell, std::future::pending()).await
}

/// The same; when `stop` comes first, the stack is told to stop what takes its time, and is listened to until it has.
pub async fn ask_until(
    root: &Path,
    request: &Request,
    tell: say::Tell<'_>,
    stop: impl Future<Output = ()>,
) -> Result<Value> {
    let Some(stream) = connect(root).await else {
        bail!("{}", absence(root));
    };
    match converse(stream, request, tell, stop).await? {
        Some(value) => Ok(value),
        // it ended before it could say so
        None if matches!(request, Request::Down) => Ok(Value::Null),
        None => bail!("{}", absence(root)),
    }
}

/// The answer, or nothing when the stack ends before it is complete.
async fn converse(
    stream: UnixStream,
    request: &Request,
    tell: say::Tell<'_>,
    stop: impl Future<Output = ()>,
) -> Result<Option<Value>> {
    let (input, mut output): (OwnedReadHalf, OwnedWriteHalf) = stream.into_split();
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    if output.write_all(line.as_bytes()).await.is_err() {
        return Ok(None);
    }
    let mut lines = BufReader::new(input).lines();
    tokio::pin!(stop);
    let mut stopped = false;
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line,
            () = &mut stop, if !stopped => {
                stopped = true;
                let _ = output.write_all(b"\n").await;
                continue;
            }
        };
        let Ok(Some(line)) = line else {
            return Ok(None);
        };
        match serde_json::from_str(&line)? {
            Answer::Say(text) => tell(&text),
            Answer::Done(value) => return Ok(Some(value)),
            Answer::Error(why) => bail!("{why}"),
            Answer::Refused(why) => return Err(Usage(why).into()),
        }
    }
}

/// Why nobody answers for the stack of a folder, and what to do.
pub fn absence(root: &Path) -> String {
    let root = dir::real(root);
    if let Some(pid) = dir::holder(&root) {
        let down = dir::command(&root, "down");
        return format!(
            "the stack in {} is starting or stopping (pid {pid}); `{down}` stops it",
            root.display()
        );
    }
    let left = super::left_over(&root).len();
    if left == 0 {
        let up = dir::command(&root, "up");
        return format!("no stack runs in {}; `{up}` starts one", root.display());
    }
    let (these, down) = (process::count(left), dir::command(&root, "down"));
    format!(
        "the `lab up` of {} was killed and left {these} running; `{down}` ends what it left",
        root.display()
    )
}

/// A connection to the stack of a folder, if one runs there.
pub async fn connect(root: &Path) -> Option<UnixStream> {
    let path = fs::read_to_string(root.join("control.path"))
        .map_or_else(|_| root.join("control.sock"), PathBuf::from);
    UnixStream::connect(path).await.ok()
}
