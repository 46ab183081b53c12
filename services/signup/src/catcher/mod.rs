//! A mail catcher: a mail server that takes every mail, delivers none, and shows what it got.
//!
//! For tests, which tell it what to answer, and for the lab, which reads the file that it writes: one mail
//! a line, as JSON, in the order in which they came. What stands in a line is written before the yes, so a
//! mail that somebody was told yes about is in the file. It speaks no TLS and asks for no password.

mod mail;

use std::{
    collections::VecDeque,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use daemon::{
    http,
    lifecycle::{Lifecycle, run_process},
};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use mail::read;
pub use mail::{Caught, Part};

/// How long a client may say nothing.
const SILENCE: Duration = Duration::from_mins(1);
/// Largest mail.
const MAIL_MAX: usize = 4 * 1024 * 1024;
/// Read at once while the end of a line is looked for.
const CHUNK: u64 = 64 * 1024;
/// Mails kept in memory, the newest.
const KEPT: usize = 10_000;

/// Takes every mail and delivers none
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "signup catcher", version)]
pub struct Config {
    /// Address of the mail server
    #[arg(long, env = "CATCHER_LISTEN", default_value = "127.0.0.1:1025")]
    pub listen: String,
    /// The file to which each mail is added, as a line of JSON; none: they are only counted
    #[arg(long, env = "CATCHER_FILE")]
    pub file: Option<PathBuf>,
}

/// What is answered to one mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is taken.
    Yes,
    /// This, to who writes.
    ToSender(String),
    /// This, to whom it is for: such as `451 4.3.0 later`, `550 5.1.1 nobody of that name`.
    ToRecipient(String),
    /// This, to the whole mail.
    ToMail(String),
    /// It is taken, and nobody is told: the connection ends instead.
    SilentYes,
}

/// Where mails are caught. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Catcher {
    file: Option<Arc<PathBuf>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    caught: VecDeque<Caught>,
    /// For the next mails, one each; then it is always yes ..
    answers: VecDeque<Answer>,
    /// .. unless there is one for all.
    always: Option<Answer>,
}

impl Catcher {
    /// One that adds each mail to this file too.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self {
            file: file.map(Arc::new),
            state: Arc::default(),
        }
    }

    /// The mails that were taken, the oldest first.
    pub fn caught(&self) -> Vec<Caught> {
        self.state().caught.iter().cloned().collect()
    }

    /// Answers the next mails so, one after the other.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state().answers.extend(answers);
    }

    /// Answers all mails so, until told otherwise.
    pub fn always(&self, answer: Option<Answer>) {
        self.state().always = answer;
    }

    /// Takes mails until `stop`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
        if let Some(file) = &self.file {
            cut(file).with_context(|| format!("mending {}", file.display()))?;
        }
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => connections.push(self.serve(stream, peer)),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(ended) = connections.next() => ended?,
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn serve(&self, stream: TcpStream, peer: SocketAddr) -> anyhow::Result<()> {
        match self.converse(stream).await {
            Ok(()) => Ok(()),
            Err(End::File(error)) => Err(error),
            Err(End::Link(error)) => {
                tracing::debug!(%peer, %error, "a client left");
                Ok(())
            }
        }
    }

    async fn converse(&self, stream: TcpStream) -> Result<(), End> {
        let _ = stream.set_nodelay(true);
        let mut client = Client(BufReader::new(stream));
        let mut from = None;
        let mut to: Vec<String> = Vec::new();
        let mut answer = Answer::Yes;
        client.say("220 catcher").await?;
        loop {
            let line = client.line().await?;
            let verb = line
                .split([' ', ':'])
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" | "HELO" => client.say("250-catcher\r\n250 8BITMIME").await?,
                "MAIL" => {
                    answer = self.next_answer();
                    from = address(&line);
                    to.clear();
                    match &answer {
                        Answer::ToSender(no) => client.say(no).await?,
                        _ => client.say("250 go on").await?,
                    }
                }
                "RCPT" => match (&answer, address(&line)) {
                    (Answer::ToRecipient(no), _) => client.say(no).await?,
                    (_, Some(address)) => {
                        to.push(address);
                        client.say("250 go on").await?;
                    }
                    (_, None) => client.say("501 no address").await?,
                },
                "DATA" if to.is_empty() => client.say("503 to whom?").await?,
                "DATA" => {
                    client.say("354 end with a dot").await?;
                    let mail = client.mail().await?;
                    if let Answer::ToMail(no) = &answer {
                        client.say(no).await?;
                        continue;
                    }
                    let caught = read(&mail, from.clone().unwrap_or_default(), to.clone());
                    self.keep(caught).map_err(End::File)?;
                    if answer == Answer::SilentYes {
                        return Ok(());
                    }
                    client.say("250 taken").await?;
                }
                "RSET" | "NOOP" => client.say("250 well").await?,
                "QUIT" => return client.say("221 bye").await,
                _ => client.say("502 not here").await?,
            }
        }
    }

    fn next_answer(&self) -> Answer {
        let mut state = self.state();
        let next = state.answers.pop_front();
        next.or_else(|| state.always.clone()).unwrap_or(Answer::Yes)
    }

    fn keep(&self, caught: Caught) -> anyhow::Result<()> {
        let mut state = self.state();
        if let Some(file) = &self.file {
            let line = format!("{}\n", serde_json::to_string(&caught)?);
            let opened = File::options().create(true).append(true).open(&**file);
            let written = opened.and_then(|mut file| file.write_all(line.as_bytes()));
            written.with_context(|| format!("writing {}", file.display()))?;
        }
        state.caught.push_back(caught);
        if state.caught.len() > KEPT {
            state.caught.pop_front();
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Catches mails until a signal, and gives the exit code: 0 clean, 1 failed, 2 a wrong setting.
pub fn main_with(config: &Config) -> ExitCode {
    run_process(Duration::from_secs(2), |lifecycle| async move {
        run(
            config,
            http::bind("CATCHER_LISTEN", &config.listen)?,
            &lifecycle,
        );
        Ok(())
    })
}

/// Starts a catcher on the lifecycle.
pub fn run(config: &Config, listener: TcpListener, lifecycle: &Lifecycle) -> Catcher {
    let catcher = Catcher::new(config.file.clone());
    let stop = lifecycle.stopping();
    lifecycle.spawn("catcher", catcher.clone().run(listener, stop));
    catcher
}

/// Why a conversation ended that was not over.
enum End {
    Link(std::io::Error),
    File(anyhow::Error),
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self::Link(error)
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn say(&mut self, words: &str) -> Result<(), End> {
        let line = format!("{words}\r\n");
        timeout(SILENCE, self.0.write_all(line.as_bytes()))
            .await
            .map_err(late)??;
        Ok(())
    }

    async fn line(&mut self) -> Result<String, End> {
        Ok(String::from_utf8_lossy(&self.raw_line().await?).into_owned())
    }

    async fn raw_line(&mut self) -> Result<Vec<u8>, End> {
        let mut line = Vec::new();
        let read = timeout(SILENCE, self.0.read_until(b'\n', &mut line));
        if read.await.map_err(late)?? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        while line
            .last()
            .is_some_and(|byte| matches!(byte, b'\r' | b'\n'))
        {
            line.pop();
        }
        Ok(line)
    }

    /// Up to the lone dot; a dot that begins a line was doubled on its way.
    async fn mail(&mut self) -> Result<String, End> {
        let mut mail = Vec::new();
        loop {
            let line = self.raw_line().await?;
            if line == b"." {
                return Ok(String::from_utf8_lossy(&mail).into_owned());
            }
            if mail.len() + line.len() > MAIL_MAX {
                return Err(std::io::Error::other("the mail is too large").into());
            }
            mail.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            mail.extend_from_slice(b"\r\n");
        }
    }
}

/// Cuts off what is behind the last whole line: the disk was full, or the process died while it wrote. Of that mail nobody
/// was told yes.
fn cut(file: &Path) -> std::io::Result<()> {
    let mut file = match File::options().read(true).write(true).open(file) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let about = file.metadata()?;
    // A pipe or a terminal keeps nothing.
    if !about.is_file() {
        return Ok(());
    }
    let mut end = about.len();
    let mut chunk = Vec::new();
    while end > 0 {
        let from = end.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(from))?;
        chunk.clear();
        (&mut file).take(end - from).read_to_end(&mut chunk)?;
        end = from;
        if let Some(last) = chunk.iter().rposition(|byte| *byte == b'\n') {
            end += last as u64 + 1;
            break;
        }
    }
    if end < about.len() {
        tracing::warn!(bytes = about.len() - end, "half a mail is cut off");
        file.set_len(end)?;
    }
    Ok(())
}

fn late(_: tokio::time::error::Elapsed) -> End {
    End::Link(std::io::ErrorKind::TimedOut.into())
}

/// What stands between the angles.
fn address(line: &str) -> Option<String> {
    let (_, rest) = line.split_once('<')?;
    rest.split_once('>').map(|(address, _)| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_the_last_line_is_cut_off() {
        let path = std::env::temp_dir().join(format!("catcher-{}", uuid::Uuid::new_v4()));
        cut(&path).unwrap();
        assert!(!path.exists());
        let long = "x".repeat(3 * usize::try_from(CHUNK).unwrap());
        let line = format!("{long}\n");
        for (before, after) in [
            ("", ""),
            ("torn", ""),
            ("one\n", "one\n"),
            ("one\ntwo\nto", "one\ntwo\n"),
            (&format!("one\n{long}"), "one\n"),
            (&format!("{line}{{"), &line),
        ] {
            std::fs::write(&path, before).unwrap();
            cut(&path).unwrap();
            assert!(std::fs::read_to_string(&path).unwrap() == after);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
