//! `lab test`: every check of the project, in order of cheapness, on real servers.
//!
//! All stages run even when one fails; the exit code tells whether any did. The last line is the sum of all. A stage that
//! cannot run here (no Docker, say) is one skipped check and says why.

pub mod cargo;
pub mod chaos_toolkit;
pub mod docker;
pub mod screenshots;
pub mod scripts;
pub mod stages;
pub mod test_servers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::say;
use crate::stack::dir;
use docker::Docker;
use stages::Stage;
use test_servers::TestServers;

/// What a stage found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Tally {
    pub const PASSED: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    pub const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };
    pub const SKIPPED: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// What the stages of one run share.
#[derive(Debug)]
pub struct Run {
    /// The checkout.
    root: PathBuf,
    /// Started by the first stage that needs them.
    servers: Option<TestServers>,
    /// Looked for by the first stage that needs it.
    docker: Option<Result<Docker, String>>,
}

/// Runs the stages asked for, or all of them.
pub async fn run(fast: bool, wanted: &[Stage]) -> Result<ExitCode> {
    let root = dir::checkout()?;
    let mut run = Run {
        root,
        servers: None,
        docker: None,
    };
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut ended = signal(SignalKind::terminate())?;
    let code = tokio::select! {
        code = all(&mut run, fast, wanted) => code,
        _ = interrupted.recv() => ExitCode::from(130),
        _ = ended.recv() => ExitCode::from(143),
    };
    if let Some(servers) = run.servers {
        servers.stop().await;
    }
    Ok(code)
}

async fn all(run: &mut Run, fast: bool, wanted: &[Stage]) -> ExitCode {
    let mut rows: Vec<(&str, Tally, Duration)> = Vec::new();
    for stage in Stage::ALL {
        let chosen = if wanted.is_empty() {
            !fast || stage.is_fast()
        } else {
            wanted.contains(&stage)
        };
        if !chosen {
            continue;
        }
        if stage.needs_servers() && run.servers.is_none() {
            let begun = Instant::now();
            let tally = start_servers(run).await;
            rows.push(("servers", tally, begun.elapsed()));
        }
        say::line(format!("== {}: {}", stage.name(), stage.what()));
        let begun = Instant::now();
        let tally = stage.run(run).await.unwrap_or_else(|error| {
            say::complain(format!("{}: {error:#}", stage.name()));
            Tally::FAILED
        });
        say::line(format!(
            "== {}: {tally} in {}\n",
            stage.name(),
            minutes(begun.elapsed())
        ));
        rows.push((stage.name(), tally, begun.elapsed()));
    }
    let mut sum = Tally::default();
    for (name, tally, time) in &rows {
        say::line(format!("{name:<11} {:>9}  {tally}", minutes(*time)));
        sum += *tally;
    }
    say::line(sum);
    if sum.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Servers that do not start are one failed check; those that do are not worth counting.
async fn start_servers(run: &mut Run) -> Tally {
    say::line("== servers: private PostgreSQL, Redis and RabbitMQ for the tests");
    match TestServers::start(&run.root).await {
        Ok(servers) => {
            run.servers = Some(servers);
            Tally::default()
        }
        Err(error) => {
            say::complain(format!("servers: {error:#}"));
            Tally::FAILED
        }
    }
}

fn minutes(time: Duration) -> String {
    format!("{:.1} min", time.as_secs_f64() / 60.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_sum() {
        let mut sum = Tally::PASSED;
        sum += Tally {
            passed: 3,
            failed: 0,
            skipped: 2,
        };
        sum += Tally::FAILED;
        assert_eq!(sum.to_string(), "4 passed, 1 failed, 2 skipped");
    }
}
