//! Finds the server programs and, on Debian and Ubuntu as root, installs those that are missing.
//!
//! Promises: the packages start no service and enable none. While apt works, a policy-rc.d that refuses every start
//! stands in place (what was there comes back afterwards, also when apt fails), PostgreSQL's package is told to make no
//! cluster, and the units that came new are disabled again.

use std::fs::{self, Permissions};
use std::io::{IsTerminal, stdin};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;
use tokio::process::Command;

use super::process::{self, Process};
use crate::say::{self, Steps};

/// A program, the package that has it, and the system services that the package would enable.
#[derive(Debug)]
pub struct Needed {
    pub program: &'static str,
    pub package: &'static str,
    units: &'static [&'static str],
}

pub const INITDB: Needed = Needed {
    program: "initdb",
    package: "postgresql",
    units: &["postgresql"],
};
pub const PSQL: Needed = Needed {
    program: "psql",
    package: "postgresql",
    units: &[],
};
pub const REDIS: Needed = Needed {
    program: "redis-server",
    package: "redis-server",
    units: &["redis-server"],
};
pub const RABBITMQ: Needed = Needed {
    program: "rabbitmq-server",
    package: "rabbitmq-server",
    units: &["rabbitmq-server", "epmd.service", "epmd.socket"],
};
pub const EPMD: Needed = Needed {
    program: "epmd",
    package: "rabbitmq-server",
    units: &[],
};
pub const NGINX: Needed = Needed {
    program: "nginx",
    package: "nginx-light",
    units: &["nginx"],
};
pub const CHROMIUM: Needed = Needed {
    program: "chromium",
    package: "chromium",
    units: &[],
};
pub const CHROMEDRIVER: Needed = Needed {
    program: "chromedriver",
    package: "chromium-driver",
    units: &[],
};

const POLICY: &str = "/usr/sbin/policy-rc.d";
const CLUSTER_SETTINGS: &str = "/etc/postgresql-common/createcluster.conf";

/// Where a program is: among the server packages' own folders first, then on the PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = postgres_folders()
        .into_iter()
        // not /usr/sbin/rabbitmq-server, which insists on the user rabbitmq
        .chain([PathBuf::from("/usr/lib/rabbitmq/bin")])
        .chain(std::env::split_paths(&path))
        .chain(["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin"].map(PathBuf::from));
    places
        .map(|place| place.join(program))
        .find(|file| file.is_file())
}

/// Debian keeps one folder per PostgreSQL version: newest first.
fn postgres_folders() -> Vec<PathBuf> {
    let Ok(versions) = fs::read_dir("/usr/lib/postgresql") else {
        return Vec::new();
    };
    let version = |name: &Path| name.file_name()?.to_str()?.parse::<u32>().ok();
    let mut found: Vec<(u32, PathBuf)> = versions
        .flatten()
        .filter_map(|entry| Some((version(&entry.path())?, entry.path().join("bin"))))
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// The path of a program that must be there.
pub fn path(needed: &Needed) -> Result<PathBuf> {
    find(needed.program).with_context(|| {
        format!(
            "the program {} is missing (Debian has it in the package {})",
            needed.program, needed.package
        )
    })
}

/// Makes sure that all of these are there: looks, asks where somebody can answer, installs.
pub async fn ensure_installed(needed: &[Needed], yes: bool, steps: &Steps<'_>) -> Result<()> {
    let missing: Vec<&Needed> = needed
        .iter()
        .filter(|one| find(one.program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|one| one.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let programs: Vec<&str> = missing.iter().map(|one| one.program).collect();
    let apt = format!(
        "apt-get install --no-install-recommends {}",
        packages.join(" ")
    );
    let what = format!("{} missing", list(&programs));
    if find("apt-get").is_none() {
        bail!(
            "{what}: install PostgreSQL, Redis, RabbitMQ and nginx so that their programs are on the PATH"
        );
    }
    if !geteuid().is_root() {
        bail!(
            "{what}. As root, run:\n    {apt}\n(or `sudo` this command). Their system services are not needed."
        );
    }
    if !yes && stdin().is_terminal() {
        let question = format!(
            "{what}. Install {} with apt (no service is started)?",
            list(&packages)
        );
        ensure!(
            say::confirm(&question)?,
            "not installed. By hand:\n    {apt}"
        );
    }
    let begun = Instant::now();
    steps.note(format!("{what}: installing {}", list(&packages)));
    install(&packages, &missing).await?;
    for one in &missing {
        path(one)?;
    }
    steps.done(begun, format!("installed {}", list(&packages)));
    Ok(())
}

/// Installs a package that only tests need. Nobody is asked.
pub async fn add(package: &str) -> Result<()> {
    let can = find("apt-get").is_some() && geteuid().is_root();
    ensure!(can, "install {package}, as root: apt-get install {package}");
    install(&[package], &[]).await
}

async fn install(packages: &[&str], missing: &[&Needed]) -> Result<()> {
    let no_lists = fs::read_dir("/var/lib/apt/lists").map_or(true, |entries| {
        !entries
            .flatten()
            .any(|entry| entry.path().is_file() && entry.file_name() != "lock")
    });
    if no_lists {
        apt(&["update", "-q"]).await?;
    }
    let units: Vec<&str> = missing
        .iter()
        .flat_map(|one| one.units)
        .copied()
        .filter(|unit| !has_unit(unit))
        .collect();
    let mappers = port_mappers();
    let _policy = Replaced::with(Path::new(POLICY), "#!/bin/sh\nexit 101\n", 0o755)?;
    // its package reads this while it is configured; the file is a settings file of postgresql-common, so it stays
    if packages.contains(&"postgresql") && !Path::new(CLUSTER_SETTINGS).exists() {
        fs::create_dir_all("/etc/postgresql-common")?;
        fs::write(
            CLUSTER_SETTINGS,
            "# written by `lab up`, which needs only the programs\ncreate_main_cluster = false\n",
        )?;
    }
    let mut arguments = vec![
        "install",
        "-y",
        "-q",
        "--no-install-recommends",
        "-o",
        "Dpkg::Options::=--force-confold",
        "-o",
        "Dpkg::Use-Pty=0",
    ];
    arguments.extend(packages);
    if apt(&arguments).await.is_err() {
        // lists that are older than the archive name files that are gone
        apt(&["update", "-q"]).await?;
        apt(&arguments).await?;
    }
    for unit in units {
        disable(unit).await;
    }
    // RabbitMQ's package calls its own tools, and with them starts a port mapper that stays
    let mut new = port_mappers();
    new.retain(|mapper| !mappers.contains(mapper));
    process::end(&new, Duration::from_secs(2)).await;
    Ok(())
}

async fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1");
    command.stdin(std::process::Stdio::null());
    let output = command.output().await.context("cannot run apt-get")?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(15)..].join("\n    ");
        bail!("apt-get {} failed:\n    {end}", arguments.join(" "));
    }
    Ok(())
}

fn port_mappers() -> Vec<Process> {
    process::all()
        .into_iter()
        .filter(|process| process.program == "epmd")
        .collect()
}

fn has_unit(unit: &str) -> bool {
    let name = if unit.contains('.') {
        unit.to_owned()
    } else {
        format!("{unit}.service")
    };
    ["/lib/systemd/system", "/usr/lib/systemd/system"]
        .iter()
        .any(|folder| Path::new(folder).join(&name).exists())
}

/// Best effort: a machine without systemd or without init scripts has nothing to disable.
async fn disable(unit: &str) {
    let quiet = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(std::process::Stdio::null());
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command
    };
    drop(
        quiet("systemctl", &["--no-reload", "disable", unit])
            .status()
            .await,
    );
    if !unit.contains('.') {
        drop(quiet("update-rc.d", &[unit, "disable"]).status().await);
    }
}

fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [init @ .., last] => format!("{} and {last}", init.join(", ")),
    }
}

/// A file that is another one for a while.
struct Replaced {
    path: PathBuf,
    before: Option<(Vec<u8>, Permissions)>,
}

impl Replaced {
    fn with(path: &Path, text: &str, mode: u32) -> Result<Self> {
        let before = match fs::read(path) {
            Ok(text) => Some((text, fs::metadata(path)?.permissions())),
            Err(_) => None,
        };
        let replaced = Self {
            path: path.to_owned(),
            before,
        };
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        Ok(replaced)
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        let _ = match &self.before {
            Some((text, rights)) => fs::write(&self.path, text)
                .and_then(|()| fs::set_permissions(&self.path, rights.clone())),
            None => fs::remove_file(&self.path),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_comes_back_as_it_was() {
        let path = std::env::temp_dir().join(format!("lab-replaced-{:08x}", rand::random::<u32>()));
        drop(Replaced::with(&path, "new", 0o755).unwrap());
        assert!(!path.exists());
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let replaced = Replaced::with(&path, "new", 0o755).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        drop(replaced);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn lists_read_like_sentences() {
        assert_eq!(list(&["a"]), "a");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
    }
}
