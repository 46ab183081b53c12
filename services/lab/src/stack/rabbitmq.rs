//! A private RabbitMQ with its own Erlang port mapper, all of it on loopback.
//!
//! It runs as plain processes with the environment that its scripts read: own node name, cookie, ports and folders, and
//! none of the machine's settings. The port mapper (epmd) runs on a port of its own as a program of ours, so that the
//! machine's is not shared and none is left behind. The server's script is told that it runs under systemd, which makes
//! it become the server instead of waiting for it: the pid we know is the server's own.
//!
//! Works with 3.10 (Debian 12) and 4.0 (Debian 13).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lapin::{Connection, ConnectionProperties};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::dir::{LabDir, make_folder, write_secret};
use super::process::MARKER;
use super::supervisor::Program;

/// How long `rabbitmqctl` may take: it starts an Erlang node of its own.
const CONTROL_LIMIT: Duration = Duration::from_secs(30);

/// A RabbitMQ server to run.
#[derive(Debug, Clone)]
pub struct RabbitMq {
    server: PathBuf,
    stack: PathBuf,
    home: PathBuf,
    log: PathBuf,
    node: String,
    password: String,
    ports: Ports,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    amqp: u16,
    management: u16,
    distribution: u16,
    epmd: u16,
}

/// The Erlang port mapper that belongs to one server.
#[derive(Debug)]
pub struct PortMapper {
    program: PathBuf,
    stack: PathBuf,
    home: PathBuf,
    log: PathBuf,
    port: u16,
}

impl RabbitMq {
    /// Writes its settings.
    pub fn prepare(dir: &LabDir, server: PathBuf, epmd: PathBuf) -> Result<(Self, PortMapper)> {
        let home = dir.folder("rabbitmq")?;
        for folder in ["data", "log", "conf.d"] {
            make_folder(&home.join(folder), 0o700)?;
        }
        let ports = Ports {
            amqp: dir.port("rabbitmq")?,
            management: dir.port("rabbitmq-management")?,
            distribution: dir.port("rabbitmq-distribution")?,
            epmd: dir.port("epmd")?,
        };
        let password = dir.secrets().rabbitmq.clone();
        write_secret(&home.join("rabbitmq.conf"), &settings(&password, ports))?;
        write_secret(&home.join("enabled_plugins"), "[rabbitmq_management].\n")?;
        write_secret(&home.join("rabbitmq-env.conf"), "")?;
        cookie(&home.join(".erlang.cookie"), &dir.secrets().erlang_cookie)?;
        let stack = dir.root().to_owned();
        let node = format!("unacked-{}@localhost", dir.tag());
        let mapper_home = dir.folder("epmd")?;
        let mapper = PortMapper {
            program: epmd,
            stack: stack.clone(),
            home: mapper_home,
            log: dir.log("epmd"),
            port: ports.epmd,
        };
        Ok((
            Self {
                server,
                stack,
                home,
                log: dir.log("rabbitmq"),
                node,
                password,
                ports,
            },
            mapper,
        ))
    }

    /// How services reach it.
    pub fn amqp(&self) -> String {
        format!(
            "amqp://lab:{}@127.0.0.1:{}/%2f",
            self.password, self.ports.amqp
        )
    }

    /// Its pages and its HTTP API.
    pub fn management(&self) -> String {
        format!(
            "http://lab:{}@127.0.0.1:{}",
            self.password, self.ports.management
        )
    }
}

impl RabbitMq {
    /// Sets or lifts the memory alarm, which blocks publishing on the whole node: the share of memory that it may use is
    /// set below what any server needs.
    pub async fn memory_alarm(&self, on: bool) -> Result<()> {
        let share = if on { "0.000001" } else { "0.4" };
        self.control(&["set_vm_memory_high_watermark", share]).await
    }

    /// How long it waits for the answer to a delivery on a channel opened from now on, before it closes the channel; looking
    /// twice as often. For tests: a server looks once a minute, and waits for half an hour.
    pub async fn consumer_timeout(&self, patience: Duration) -> Result<()> {
        let limit = patience.as_millis();
        let every = (limit / 2).max(1);
        let set = format!(
            "application:set_env(rabbit, consumer_timeout, {limit}), \
             application:set_env(rabbit, channel_tick_interval, {every})."
        );
        self.control(&["eval", &set]).await
    }

    /// Asks `rabbitmqctl`.
    async fn control(&self, arguments: &[&str]) -> Result<()> {
        let ctl = self.server.with_file_name("rabbitmqctl");
        let mut command = self.environment(&ctl);
        command.args(["-q", "-n", &self.node]).args(arguments);
        let output = command.kill_on_drop(true).stdin(Stdio::null()).output();
        let output = tokio::time::timeout(CONTROL_LIMIT, output)
            .await
            .context("rabbitmqctl takes too long")??;
        ensure!(
            output.status.success(),
            "rabbitmqctl: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// One of RabbitMQ's programs, with the environment that belongs to this server.
    fn environment(&self, program: &Path) -> Command {
        let at = |name: &str| self.home.join(name);
        let mut command = Command::new(program);
        command.current_dir(&self.home);
        // whatever the caller's environment says about RabbitMQ or Erlang is about another server
        command.env_clear();
        command.env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
        );
        command
            .env("LANG", "C.UTF-8")
            .env("HOME", &self.home)
            .env(MARKER, &self.stack);
        command.env("RUNNING_UNDER_SYSTEMD", "true");
        command.env("RABBITMQ_NODENAME", &self.node);
        command.env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_NODE_PORT", self.ports.amqp.to_string());
        command.env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string());
        command.env("ERL_EPMD_PORT", self.ports.epmd.to_string());
        command.env("ERL_EPMD_ADDRESS", "127.0.0.1");
        command.env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1}",
        );
        command.env("RABBITMQ_MNESIA_BASE", at("data"));
        command.env("RABBITMQ_LOG_BASE", at("log"));
        command.env("RABBITMQ_PID_FILE", at("server.pid"));
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins"));
        command.env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"));
        command.env("RABBITMQ_CONFIG_FILES", at("conf.d"));
        command.env("RABBITMQ_ADVANCED_CONFIG_FILE", at("advanced.config"));
        command.env("RABBITMQ_CONF_ENV_FILE", at("rabbitmq-env.conf"));
        command.env("RABBITMQ_GENERATED_CONFIG_DIR", at("generated"));
        command.env("RABBITMQ_FEATURE_FLAGS_FILE", at("feature_flags"));
        command
    }
}

fn settings(password: &str, ports: Ports) -> String {
    format!(
        "listeners.tcp.default = 127.0.0.1:{}\n\
         management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {}\n\
         default_user = lab\n\
         default_pass = {password}\n\
         default_user_tags.administrator = true\n\
         log.file = false\n\
         log.console = true\n\
         log.console.level = info\n\
         log.console.use_colors = off\n\
         # the lab looks at queues often; every second is fresh enough\n\
         collect_statistics_interval = 1000\n\
         # small disks are fine: the lab's data are small\n\
         disk_free_limit.absolute = 50MB\n",
        ports.amqp, ports.management
    )
}

/// The file's rights must be 0400, or Erlang refuses it; so it is never rewritten.
fn cookie(path: &Path, secret: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if !path.exists() {
        write_secret(path, secret)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400))?;
    }
    Ok(())
}

/// Asks a broker once whether it serves.
pub async fn answers(url: &str) -> Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    drop(connection.close(200, "looked".into()).await);
    Ok(())
}

impl Program for RabbitMq {
    fn name(&self) -> String {
        "RabbitMQ".to_owned()
    }

    fn command(&self) -> Command {
        self.environment(&self.server)
    }

    async fn answers(&self) -> Result<()> {
        // the cheap question first: a port that is closed needs no client
        TcpStream::connect(("127.0.0.1", self.ports.amqp))
            .await
            .context("no connection")?;
        let overview = reqwest::get(format!("{}/api/overview", self.management())).await;
        let overview = overview.map_err(reqwest::Error::without_url)?;
        ensure!(
            overview.status().is_success(),
            "the management API says {}",
            overview.status()
        );
        // last: while a broker hangs, each unanswered greeting costs a thread of the client
        answers(&self.amqp()).await
    }

    fn log(&self) -> PathBuf {
        self.log.clone()
    }

    fn stop_limit(&self) -> Duration {
        Duration::from_secs(40)
    }

    fn start_limit(&self) -> Duration {
        Duration::from_mins(2)
    }

    fn home(&self) -> Option<&Path> {
        Some(&self.home)
    }
}

impl Program for PortMapper {
    fn name(&self) -> String {
        "Erlang's port mapper".to_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["-address", "127.0.0.1", "-port"])
            .arg(self.port.to_string());
        command.current_dir(&self.home).env(MARKER, &self.stack);
        command
    }

    async fn answers(&self) -> Result<()> {
        TcpStream::connect(("127.0.0.1", self.port)).await?;
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.log.clone()
    }

    fn home(&self) -> Option<&Path> {
        Some(&self.home)
    }
}
