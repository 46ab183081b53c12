//! Where and with what it was measured: the machine, the versions, the settings, the commit.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use tokio::process::Command;

use super::stage::{Stage, fast};
use crate::run::sight::Sight;
use crate::stack::install::{self, NGINX, REDIS};

/// What a reader must know to compare.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    pub machine: Vec<(&'static str, String)>,
    pub versions: Vec<(&'static str, String)>,
    pub settings: Vec<(String, String)>,
    /// None: no git, or no checkout.
    pub commit: Option<String>,
    pub debug_build: bool,
}

impl Facts {
    /// The servers must run.
    pub(super) async fn gather(stage: &Stage, checkout: Option<&Path>) -> Result<Self> {
        let mut scene = stage.scene(0, 0, fast()).await?;
        let postgres = scene.book.shows("server_version").await?;
        let broker = Sight::facts(&scene.sight()?).await.broker_version;
        let mut settings: Vec<(String, String)> = fast().into_iter().collect();
        settings.push((
            "PostgreSQL's fsync".to_owned(),
            scene.book.shows("fsync").await?,
        ));
        settings.push((
            "PostgreSQL's synchronous_commit".to_owned(),
            scene.book.shows("synchronous_commit").await?,
        ));
        settings.push((
            "PostgreSQL's shared_buffers".to_owned(),
            scene.book.shows("shared_buffers").await?,
        ));
        let unknown = || "unknown".to_owned();
        let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        let redis = says(install::path(&REDIS)?, &["--version"]).await;
        let redis = redis.and_then(|text| {
            let version = text.split("v=").nth(1)?;
            Some(version.split_whitespace().next()?.to_owned())
        });
        let nginx = says(install::path(&NGINX)?, &["-v"]).await;
        let nginx = nginx.and_then(|text| Some(text.split('/').nth(1)?.trim().to_owned()));
        let rustc = says("rustc", &["--version"]).await.map(first_line);
        Ok(Self {
            machine: machine(),
            versions: vec![
                ("lab", env!("CARGO_PKG_VERSION").to_owned()),
                ("rustc", rustc.unwrap_or_else(unknown)),
                ("PostgreSQL", postgres),
                ("RabbitMQ", broker.unwrap_or_else(unknown)),
                ("Redis", redis.unwrap_or_else(unknown)),
                ("nginx", nginx.unwrap_or_else(unknown)),
            ],
            settings,
            commit: match checkout {
                Some(checkout) => commit(checkout).await,
                None => None,
            },
            debug_build: cfg!(debug_assertions),
        })
    }
}

/// How many there are to work with.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Processes that want to run, over the last minute.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn machine() -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = field(&read("/proc/cpuinfo"), "model name", ':');
    let memory = field(&read("/proc/meminfo"), "MemTotal", ':');
    let system = field(&read("/etc/os-release"), "PRETTY_NAME", '=');
    vec![
        ("CPU", cpu.unwrap_or_default()),
        ("cores", cores().to_string()),
        ("memory", memory.unwrap_or_default()),
        ("system", system.unwrap_or_default()),
        (
            "kernel",
            read("/proc/sys/kernel/osrelease").trim().to_owned(),
        ),
    ]
}

/// The value after a name and a sign.
fn field(text: &str, name: &str, sign: char) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let value = line.split_once(sign)?.1.trim();
    Some(value.trim_matches('"').to_owned())
}

/// The short name of what is checked out, and whether something was changed since.
async fn commit(checkout: &Path) -> Option<String> {
    let checkout = checkout.to_str()?;
    let name = says("git", &["-C", checkout, "rev-parse", "--short", "HEAD"]).await?;
    let changed = says("git", &["-C", checkout, "status", "--porcelain"]).await?;
    let mut name = name.trim().to_owned();
    // the page that this command writes is no change
    let change = |line: &&str| !line.ends_with("docs/benchmarks.md");
    if changed.lines().any(|line| change(&line)) {
        name.push_str(" with changes");
    }
    Some(name)
}

async fn says(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).kill_on_drop(true).output().await;
    let output = output.ok().filter(|output| output.status.success())?;
    // nginx tells its version as a complaint
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_name() {
        let text = "NAME=\"x\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n";
        let found = field(text, "PRETTY_NAME", '=');
        assert_eq!(found.as_deref(), Some("Debian GNU/Linux 12"));
        assert_eq!(
            field("MemTotal:   8 kB", "MemTotal", ':').as_deref(),
            Some("8 kB")
        );
        assert_eq!(field(text, "x", '='), None);
    }
}
