//! A private PostgreSQL: loopback only, passwords always, data in its own folder.
//!
//! PostgreSQL refuses to run as root. Then it runs as the package's user `postgres`, with its data in the stack's folder
//! or, where that user cannot reach it, in a folder of its own under /var/tmp.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use reqwest::Url;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::dir::{LabDir, Secrets, make_folder, tag};
use super::process::MARKER;
use super::supervisor::Program;

/// Roles and schemas of the services.
const SERVICES_SQL: &str = include_str!("../../../../docker/postgres/services.sql");

pub const DATABASE: &str = "unacked";

/// Whether committed data must survive the loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    Full,
    /// Tests throw their data away; a killed server still loses nothing.
    OfProcess,
}

/// A PostgreSQL server to run.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    stack: PathBuf,
    home: PathBuf,
    log: PathBuf,
    port: u16,
    password: String,
    user: Option<User>,
    durability: Durability,
}

impl Postgres {
    /// Makes the data folder where it is missing.
    pub async fn prepare(dir: &LabDir, initdb: &Path, durability: Durability) -> Result<Self> {
        let user = server_user()?;
        let home = home(dir.root(), user.as_ref()).await?;
        let postgres = Self {
            programs: initdb.parent().map(Path::to_owned).unwrap_or_default(),
            stack: dir.root().to_owned(),
            home,
            log: dir.log("postgres"),
            port: dir.port("postgres")?,
            password: dir.secrets().postgres.clone(),
            user,
            durability,
        };
        if !postgres.data().join("PG_VERSION").exists() {
            postgres.initialise().await?;
        }
        Ok(postgres)
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Its folder when that is not in the stack's own.
    pub fn elsewhere(&self) -> Option<&Path> {
        (!self.home.starts_with(&self.stack)).then_some(&self.home)
    }

    /// The superuser's way in.
    pub fn url(&self) -> String {
        format!(
            "postgres://postgres:{}@127.0.0.1:{}/{DATABASE}",
            self.password, self.port
        )
    }

    async fn initialise(&self) -> Result<()> {
        // a half-made folder of an interrupted start must not be taken for data
        let fresh = self.home.join("data.new");
        let _ = fs::remove_dir_all(&fresh);
        let secret = self.home.join("password");
        fs::write(&secret, &self.password)?;
        fs::set_permissions(&secret, Permissions::from_mode(0o600))?;
        self.give(&secret)?;
        let mut command = self.as_user(&self.programs.join("initdb"));
        command
            .arg("--pgdata")
            .arg(&fresh)
            .arg("--pwfile")
            .arg(&secret);
        command.args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]);
        if self.durability == Durability::OfProcess {
            command.arg("--no-sync");
        }
        let output = command
            .stdin(Stdio::null())
            .output()
            .await
            .context("cannot run initdb")?;
        fs::remove_file(&secret)?;
        if !output.status.success() {
            bail!(
                "initdb failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        fs::rename(&fresh, self.data()).context("cannot move the new data into place")
    }

    fn give(&self, path: &Path) -> Result<()> {
        if let Some(user) = &self.user {
            chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        Ok(())
    }

    fn as_user(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.home)
            .env(MARKER, &self.stack)
            .env("LC_ALL", "C.UTF-8");
        for name in [
            "PGDATA",
            "PGPORT",
            "PGHOST",
            "PGUSER",
            "PGDATABASE",
            "PGPASSWORD",
            "PGOPTIONS",
        ] {
            command.env_remove(name);
        }
        if let Some(user) = &self.user {
            command
                .uid(user.uid.as_raw())
                .gid(user.gid.as_raw())
                .env("HOME", &self.home);
        }
        command
    }
}

impl Program for Postgres {
    fn name(&self) -> String {
        "PostgreSQL".to_owned()
    }

    fn command(&self) -> Command {
        let mut command = self.as_user(&self.programs.join("postgres"));
        let mut set = |setting: &str| {
            command.arg("-c").arg(setting);
        };
        set(&format!("port={}", self.port));
        set("listen_addresses=127.0.0.1");
        // no socket file: its path would be too long in many folders
        set("unix_socket_directories=");
        set("max_connections=500");
        // the outbox is vacuumed as it works, not once a minute
        set("autovacuum_naptime=5s");
        set("password_encryption=scram-sha-256");
        set("timezone=UTC");
        set("log_line_prefix=%m %a ");
        if self.durability == Durability::OfProcess {
            set("fsync=off");
        }
        command.arg("-D").arg(self.data());
        command
    }

    async fn answers(&self) -> Result<()> {
        let url = format!(
            "postgres://postgres:{}@127.0.0.1:{}/postgres",
            self.password, self.port
        );
        answers(&url).await
    }

    fn log(&self) -> PathBuf {
        self.log.clone()
    }

    fn stop_signal(&self) -> Signal {
        // "fast": ends sessions, then writes everything down
        Signal::SIGINT
    }

    fn stop_limit(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn home(&self) -> Option<&Path> {
        Some(&self.home)
    }
}

/// Asks a database once whether it serves.
pub async fn answers(url: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query("select 1").execute(&mut connection).await?;
    drop(connection.close().await);
    Ok(())
}

/// Root cannot run it; anybody else runs it as themselves.
fn server_user() -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("postgres")?;
    Ok(Some(user.context(
        "PostgreSQL refuses to run as root, and there is no user called postgres",
    )?))
}

/// The stack's own folder, or the one for data that must lie elsewhere, made and given to the user.
async fn home(stack: &Path, user: Option<&User>) -> Result<PathBuf> {
    let inside = stack.join("postgres");
    let Some(user) = user else {
        make_folder(&inside, 0o700)?;
        return Ok(inside);
    };
    let outside = outside(stack);
    for folder in [&inside, &outside] {
        make_folder(folder, 0o700)?;
        chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        let mut probe = Command::new("test");
        probe
            .arg("-w")
            .arg(folder)
            .uid(user.uid.as_raw())
            .gid(user.gid.as_raw());
        if probe.status().await.context("cannot run test")?.success() {
            return Ok(folder.clone());
        }
        let _ = fs::remove_dir(folder);
    }
    bail!(
        "the user {} can reach neither {} nor {}",
        user.name,
        inside.display(),
        outside.display()
    )
}

/// The folder of a stack's data where the server's user cannot reach the stack's own folder.
pub fn outside(stack: &Path) -> PathBuf {
    PathBuf::from(format!("/var/tmp/unacked-{}", tag(stack)))
}

/// Makes the database where it is missing, and the services' roles and schemas in it. Safe to repeat.
pub async fn prepare_database(url: &str, psql: &Path, secrets: &Secrets) -> Result<()> {
    let target: Url = url.parse().context("the database's URL cannot be read")?;
    let name = target.path().trim_start_matches('/').to_owned();
    create(&target, &name)
        .await
        .with_context(|| format!("cannot make the database {name}"))?;
    let mut command = Command::new(psql);
    command.args([
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--file=-",
    ]);
    command.env("PGHOST", target.host_str().unwrap_or("127.0.0.1"));
    command.env("PGPORT", target.port().unwrap_or(5432).to_string());
    command
        .env("PGUSER", decode(target.username()))
        .env("PGDATABASE", &name);
    command.env("PGPASSWORD", decode(target.password().unwrap_or_default()));
    command.env("PGOPTIONS", "-c client_min_messages=warning");
    for (role, password) in secrets.of_roles() {
        command.env(format!("{}_PASSWORD", role.to_uppercase()), password);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().context("cannot run psql")?;
    if let Some(mut input) = child.stdin.take() {
        // psql may end before it has read all: its own words say why
        drop(input.write_all(SERVICES_SQL.as_bytes()).await);
    }
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!(
            "psql could not prepare the database: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

async fn create(target: &Url, name: &str) -> Result<()> {
    // closed, not dropped: a database with a session in it cannot be a template
    if let Ok(connection) = PgConnection::connect(target.as_str()).await {
        return Ok(connection.close().await?);
    }
    let mut other = target.clone();
    other.set_path("/postgres");
    let mut connection = PgConnection::connect(other.as_str()).await?;
    let statement = format!("create database \"{}\"", name.replace('"', "\"\""));
    sqlx::query(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

/// The same server and database, as another role.
pub fn url_for(url: &str, role: &str, password: &str) -> Result<String> {
    let mut url: Url = url.parse().context("the database's URL cannot be read")?;
    let set = url
        .set_username(role)
        .and_then(|()| url.set_password(Some(password)));
    set.map_err(|()| anyhow::anyhow!("the database's URL has no place for a user"))?;
    Ok(url.into())
}

/// Undoes the percent signs of a URL.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten();
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_undone() {
        assert_eq!(decode("a%40b%2Fc%"), "a@b/c%");
        assert_eq!(decode("%zz"), "%zz");
    }

    #[test]
    fn a_role_has_its_own_url() {
        let url = url_for(
            "postgres://postgres:x@127.0.0.1:5433/unacked",
            "sender",
            "pw",
        )
        .unwrap();
        assert_eq!(url, "postgres://sender:pw@127.0.0.1:5433/unacked");
    }
}
