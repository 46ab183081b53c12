//! A private Redis: loopback only, a password, data in its own folder.
//!
//! Nothing in Redis may be precious, so it is saved only now and then.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::dir::{LabDir, write_secret};
use super::postgres::decode;
use super::process::MARKER;
use super::supervisor::Program;

/// A Redis server to run.
#[derive(Debug)]
pub struct Redis {
    server: PathBuf,
    stack: PathBuf,
    home: PathBuf,
    log: PathBuf,
    port: u16,
    password: String,
}

impl Redis {
    /// Writes its settings.
    pub fn prepare(dir: &LabDir, server: PathBuf) -> Result<Self> {
        let home = dir.folder("redis")?;
        let (port, password) = (dir.port("redis")?, dir.secrets().redis.clone());
        let settings = format!(
            "bind 127.0.0.1\nport {port}\ndir \"{}\"\nrequirepass {password}\ndaemonize no\n\
             appendonly no\nsave 300 1000\nstop-writes-on-bgsave-error no\nmaxclients 4000\n",
            home.display()
        );
        write_secret(&home.join("redis.conf"), &settings)?;
        Ok(Self {
            server,
            stack: dir.root().to_owned(),
            home,
            log: dir.log("redis"),
            port,
            password,
        })
    }

    /// How services reach it.
    pub fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}/0", self.password, self.port)
    }
}

impl Program for Redis {
    fn name(&self) -> String {
        "Redis".to_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.server);
        command
            .arg(self.home.join("redis.conf"))
            .current_dir(&self.home);
        command.env(MARKER, &self.stack);
        command
    }

    async fn answers(&self) -> Result<()> {
        answers(&self.url()).await
    }

    fn log(&self) -> PathBuf {
        self.log.clone()
    }

    fn home(&self) -> Option<&Path> {
        Some(&self.home)
    }
}

/// Asks a Redis once whether it serves.
pub async fn answers(url: &str) -> Result<()> {
    let url: Url = url.parse().context("the URL cannot be read")?;
    let host = url.host_str().unwrap_or("127.0.0.1");
    let mut stream = TcpStream::connect((host, url.port().unwrap_or(6379)))
        .await
        .context("no connection")?;
    let (user, password) = (decode(url.username()), url.password().map(decode));
    let login = match (&password, user.as_str()) {
        (None, _) => String::new(),
        (Some(password), "") => command(&["AUTH", password]),
        (Some(password), user) => command(&["AUTH", user, password]),
    };
    let question = login + &command(&["PING"]);
    stream.write_all(question.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut part = [0; 256];
    while !answer.ends_with(b"+PONG\r\n") {
        let read = stream.read(&mut part).await?;
        ensure!(read > 0, "Redis closed the connection");
        answer.extend_from_slice(&part[..read]);
        if answer.starts_with(b"-") || answer.windows(2).any(|pair| pair == b"\n-") {
            bail!("{}", String::from_utf8_lossy(&answer).trim());
        }
    }
    Ok(())
}

/// As Redis reads it: words with their lengths, so that a password may hold anything.
fn command(words: &[&str]) -> String {
    let start = format!("*{}\r\n", words.len());
    let word = |text: String, word: &&str| text + &format!("${}\r\n{word}\r\n", word.len());
    words.iter().fold(start, word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_with_spaces_is_one_word() {
        assert_eq!(
            command(&["AUTH", "a ä"]),
            "*2\r\n$4\r\nAUTH\r\n$4\r\na ä\r\n"
        );
    }
}
