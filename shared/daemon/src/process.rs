//! What every service's process does alike: reads its settings, learns who it is, opens what it
//! needs, and runs until a signal.

use std::{process::ExitCode, sync::Arc, time::Duration};

use axum::Router;
use chaos::FailPoints;
use tokio::net::TcpListener;

use crate::{
    WrongSetting,
    database::{self, Database, DatabaseArgs},
    http,
    lifecycle::{Lifecycle, run_process},
    metrics_handle, monitor,
    node::{Node, NodeArgs},
    ops::{self, Told},
    parts::Parts,
    redis::{self, RedisArgs, fred::clients::Pool},
    telemetry::{self, TelemetryArgs},
};

/// The settings that every service has.
#[derive(Debug, Clone, clap::Args)]
pub struct ProcessArgs {
    /// Its name.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Its database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Its Redis.
    #[command(flatten)]
    pub redis: RedisArgs,
    /// Seconds that a stop may take before what is still running is given up
    #[arg(long, env = "SHUTDOWN_SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub shutdown_secs: u64,
    /// Offer fail points and knobs on the ops port
    #[arg(long, env = "LAB_OPS", default_value_t = false, action = clap::ArgAction::Set)]
    pub lab_ops: bool,
    /// Fail points armed from the start, such as `settle.before_ack=crash@3`
    #[arg(long, env = "FAIL_POINTS", default_value = "")]
    pub fail_points: String,
    /// Its log.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// What a service has before its own rooms are opened. Clones share everything.
#[derive(Clone)]
pub struct Process {
    /// Who it is.
    pub node: Arc<Node>,
    /// How the servers that it needs are.
    pub parts: Parts,
    /// Its fail points.
    pub fail_points: FailPoints,
    /// Its database; nothing is connected yet.
    pub database: Database,
    /// Its Redis; connects in the background.
    pub redis: Pool,
    lab_ops: bool,
}

impl ProcessArgs {
    /// Looks at the settings as [`ProcessArgs::begin`] does, and opens nothing.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub fn check(&self, service: &'static str) -> Result<(), WrongSetting> {
        let node = self.node.node(service)?;
        telemetry::filter(&self.telemetry)?;
        self.fail_points()?;
        database::connect_options(&self.database.database_url, &node.name)?;
        redis::config(&self.redis).map(drop)
    }

    fn fail_points(&self) -> Result<FailPoints, WrongSetting> {
        FailPoints::parse(&self.fail_points)
            .map_err(|error| WrongSetting::because("FAIL_POINTS", error.to_string()))
    }

    /// Begins the log and opens what is needed, whether or not the servers are there. Must be called
    /// in a runtime.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub fn begin(&self, service: &'static str) -> Result<Process, WrongSetting> {
        let node = Arc::new(self.node.node(service)?);
        telemetry::init(&self.telemetry, &node)?;
        // Before anything counts.
        metrics_handle();
        let parts = Parts::new();
        Ok(Process {
            fail_points: self.fail_points()?,
            database: self.database.open(&node, &parts)?,
            redis: redis::connect(&self.redis)?,
            node,
            parts,
            lab_ops: self.lab_ops,
        })
    }

    /// Binds both addresses, lets `start` spawn the service, and runs it until a signal.
    ///
    /// Gives the exit code: 0 clean, 1 failed, 2 a wrong setting.
    pub fn run(
        &self,
        listen: &str,
        ops_listen: &str,
        start: impl FnOnce(TcpListener, TcpListener, &Lifecycle) -> anyhow::Result<()>,
    ) -> ExitCode {
        let limit = Duration::from_secs(self.shutdown_secs);
        run_process(limit, |lifecycle| async move {
            let listener = http::bind("LISTEN", listen)?;
            let ops_listener = http::bind("OPS_LISTEN", ops_listen)?;
            start(listener, ops_listener, &lifecycle)
        })
    }
}

impl ProcessArgs {
    /// As [`ProcessArgs::run`], for a role that has health and metrics and no pages.
    pub fn run_unseen(
        &self,
        ops_listen: &str,
        start: impl FnOnce(TcpListener, &Lifecycle) -> anyhow::Result<()>,
    ) -> ExitCode {
        let limit = Duration::from_secs(self.shutdown_secs);
        run_process(limit, |lifecycle| async move {
            start(http::bind("OPS_LISTEN", ops_listen)?, &lifecycle)
        })
    }
}

impl Process {
    /// Watches Postgres and Redis, and serves health, metrics and, with `LAB_OPS`, fail points,
    /// knobs and settings. The process is ready when the parts that it needs are usable.
    pub fn watch_and_tell(&self, ops_listener: TcpListener, told: Told, lifecycle: &Lifecycle) {
        monitor::watch_database(&self.database, lifecycle);
        monitor::watch_redis(&self.redis, &self.parts.part("redis"), lifecycle);
        let router: Router = ops::router(ops::OpsState {
            node: Arc::clone(&self.node),
            parts: self.parts.clone(),
            told,
            metrics: metrics_handle(),
            fail_points: self.fail_points.clone(),
            lab_ops: self.lab_ops,
        });
        http::serve(ops_listener, router, lifecycle);
    }

    /// Ends the process at once when it is asked to stop, whatever it has begun: the unsafe
    /// alternative to [`Lifecycle::finish`].
    pub fn end_at_once(&self, lifecycle: &Lifecycle) {
        let stopping = lifecycle.stopping();
        lifecycle.spawn("sudden end", async move {
            stopping.cancelled().await;
            tracing::warn!("ending at once, as the settings say");
            std::process::exit(0);
        });
    }
}
