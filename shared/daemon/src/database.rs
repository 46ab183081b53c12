//! The pool of connections to Postgres, and the migrations that must have run before it is of use.
//!
//! Opening never waits for the server. Every session carries limits that the *server* enforces, so
//! that a node which is paused or cut off in the middle of a transaction loses its locks after
//! seconds, not hours. The limits of our side are the caller's: a server that hangs answers
//! nothing, so wrap what you ask in [`within`].

use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::RngExt;
use sqlx::{
    Connection, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    WrongSetting,
    lifecycle::Lifecycle,
    node::Node,
    parts::{Part, Parts},
};

/// What the server does to sessions that take too long. In the order of Postgres' manual.
const SESSION_LIMITS: [(&str, &str); 7] = [
    ("statement_timeout", "10s"),
    ("lock_timeout", "5s"),
    // A receiver that is paused before its commit holds the lock on an inbox id: everyone who
    // meets that id waits for it.
    ("idle_in_transaction_session_timeout", "5s"),
    // A receiver whose link is cut without a word holds it too, until these find out.
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "10s"),
];

/// How long a request waits for a free connection.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(2);
/// How long a connection may take to show that it is alive, when it is taken from the pool ..
const TAKE_LIMIT: Duration = Duration::from_millis(500);
/// .. and when it is given back, perhaps in the middle of a query that nobody waits for any more.
const RETURN_LIMIT: Duration = Duration::from_secs(3);
const MIGRATION_LIMIT: Duration = Duration::from_mins(1);
const PART: &str = "postgres";

/// The settings of the database.
#[derive(Clone, clap::Args)]
pub struct DatabaseArgs {
    /// The database, as postgres://ROLE:PASSWORD@HOST/unacked
    #[expect(
        clippy::doc_markdown,
        reason = "this is the text of --help, not Markdown"
    )]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// How many connections this node may hold; it opens all at its start
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: u32,
}

impl std::fmt::Debug for DatabaseArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let connections = &self.database_connections;
        f.debug_struct("DatabaseArgs")
            .field("connections", connections)
            .finish_non_exhaustive()
    }
}

impl DatabaseArgs {
    /// A pool for this node. Does not wait for its connections; must be called on a runtime.
    pub fn open(&self, node: &Node, parts: &Parts) -> Result<Database, WrongSetting> {
        let options = connect_options(&self.database_url, &node.name)?;
        let pool = PgPoolOptions::new()
            // All are opened at the start, one after another and beside the work, and kept. A login gives way to other
            // tasks 800 times, and under load takes longer than a request waits: a request that has to open one for
            // itself fails, and so does the next. After an outage whoever needs one opens it again.
            .max_connections(self.database_connections)
            .min_connections(self.database_connections)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(ACQUIRE_LIMIT)
            // sqlx itself pings what is taken and what is given back, and waits for the answer
            // without a limit of its own. On links that are cut without a word, that would cost
            // each of the next requests its whole wait, and then places in the pool.
            .test_before_acquire(false)
            .before_acquire(|connection, _| Box::pin(answers(TAKE_LIMIT, connection)))
            .after_release(|connection, _| Box::pin(answers(RETURN_LIMIT, connection)))
            .connect_lazy_with(options.clone());
        let migrated = Arc::new(watch::Sender::new(true));
        Ok(Database {
            pool,
            options,
            migrated,
            part: parts.part(PART),
        })
    }
}

/// An error makes the pool drop the connection without a farewell.
async fn answers(limit: Duration, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    within(limit, connection.ping()).await.map(|()| true)
}

/// Checks the URL without ever repeating it: it holds a password.
pub(crate) fn connect_options(
    url: &str,
    application: &str,
) -> Result<PgConnectOptions, WrongSetting> {
    let wrong = |right: String| WrongSetting::secret("DATABASE_URL", right);
    let shape = "postgres://ROLE:PASSWORD@HOST:PORT/DATABASE";
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(wrong(shape.to_owned()));
    }
    let options = PgConnectOptions::from_str(url).map_err(|_| wrong(shape.to_owned()))?;
    if options.get_database().is_none_or(str::is_empty) {
        return Err(wrong(format!("{shape}; the database is missing")));
    }
    Ok(options
        .application_name(application)
        .options(SESSION_LIMITS))
}

/// The database of this service. Clones share the pool.
#[derive(Clone)]
pub struct Database {
    /// The pool. It connects in the background, and again when the server was away.
    pub pool: PgPool,
    options: PgConnectOptions,
    migrated: Arc<watch::Sender<bool>>,
    part: Part,
}

impl Database {
    /// Applies the migrations in the background, trying again for as long as Postgres is away.
    ///
    /// Several nodes may do this at once: an advisory lock lets one in at a time. Several
    /// migrators may share a schema, as long as their version numbers differ. A migration that can
    /// never apply ends the process.
    pub fn migrate_until_done(&self, migrators: Vec<Migrator>, lifecycle: &Lifecycle) {
        self.migrated.send_replace(false);
        self.part.starting("migrations have not run yet");
        let database = self.clone();
        let stopping = lifecycle.stopping();
        lifecycle.spawn_once("migrations", async move {
            tokio::select! {
                done = database.migrate(migrators) => done,
                () = stopping.cancelled() => Ok(()),
            }
        });
    }

    async fn migrate(&self, mut migrators: Vec<Migrator>) -> anyhow::Result<()> {
        for migrator in &mut migrators {
            // The others' rows in the common table of versions are not this one's business.
            migrator.set_ignore_missing(true);
        }
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let tried = timeout(MIGRATION_LIMIT, self.migrate_once(&migrators)).await;
            let error = match tried {
                Ok(Ok(())) => {
                    tracing::info!(duration_ms = began.elapsed().as_millis(), "migrations done");
                    self.migrated.send_replace(true);
                    self.part.up();
                    return Ok(());
                }
                Ok(Err(error)) => error,
                Err(_elapsed) => MigrateError::Execute(no_answer()),
            };
            if !passes(&error) {
                return Err(anyhow::Error::new(error).context("migrating the database"));
            }
            self.part.away(reason(&error));
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// On a connection of its own: migrations may take longer than a request, and an error may
    /// leave the advisory lock with the session, which therefore must end.
    async fn migrate_once(&self, migrators: &[Migrator]) -> Result<(), MigrateError> {
        let options = self
            .options
            .clone()
            .options([("statement_timeout", "60s"), ("lock_timeout", "30s")]);
        let mut connection = PgConnection::connect_with(&options).await?;
        for migrator in migrators {
            migrator.run_direct(None, &mut connection, false).await?;
        }
        let _ = connection.close().await;
        Ok(())
    }

    /// Whether the migrations have run, or none were asked for.
    pub fn is_migrated(&self) -> bool {
        *self.migrated.borrow()
    }

    /// Waits until the migrations have run. Loops that need the tables begin with this.
    pub async fn migrated(&self) {
        let mut migrated = self.migrated.subscribe();
        // The sender lives in `self`, so this never errs.
        let _ = migrated.wait_for(|migrated| *migrated).await;
    }

    /// Runs a loop that needs the tables: from when they are there, unless the stop comes first.
    pub fn spawn_when_migrated<F>(
        &self,
        name: &'static str,
        lifecycle: &Lifecycle,
        run: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (database, stop) = (self.clone(), lifecycle.stopping());
        lifecycle.spawn(name, async move {
            match stop.run_until_cancelled(database.migrated()).await {
                Some(()) => run(stop.clone()).await,
                None => Ok(()),
            }
        });
    }

    /// How Postgres is, as the pages show it.
    pub fn part(&self) -> &Part {
        &self.part
    }

    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.options
    }
}

/// A query with a limit on our side. Past it the error is an `Io` of kind `TimedOut`: what the
/// server did, or will still do, is not known.
pub async fn within<T>(
    limit: Duration,
    query: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, query)
        .await
        .unwrap_or_else(|_elapsed| Err(no_answer()))
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "no answer in time",
    ))
}

/// Whether an error is a matter of time: the server is away, starting, stopping or overloaded, or
/// does not know us *yet*. Everything else is a fault of the query or of its data.
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_away_code(&code)),
        _ => false,
    }
}

/// By class: 08 connection, 25P0x timeouts of the session, 40 rolled back, 53 resources, 55P03
/// lock timeout, 57 operator, 58 system; and, because the stack may still be setting them up: 28
/// login, 3D no database, 3F no schema.
fn is_away_code(code: &str) -> bool {
    [
        "08", "25P03", "25P04", "28", "3D", "3F", "40", "53", "55P03", "57", "58",
    ]
    .iter()
    .any(|class| code.starts_with(class))
}

fn passes(error: &MigrateError) -> bool {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => is_away(error),
        _ => false,
    }
}

fn reason(error: &MigrateError) -> String {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => why(error),
        error => error.to_string(),
    }
}

/// The error in a few words, for the page.
pub fn why(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::PoolTimedOut => "no connection in time".to_owned(),
        error => error.to_string(),
    }
}

/// Waits that grow from 0.1 s to 3 s, each shortened at random by up to a half, so that nodes which
/// lost the server together do not come back together.
#[derive(Debug, Default)]
struct Backoff {
    tries: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let full = Duration::from_millis(100 << self.tries.min(5)).min(Duration::from_secs(3));
        self.tries += 1;
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{node::NodeArgs, parts::Kind};

    fn args(url: &str) -> DatabaseArgs {
        DatabaseArgs {
            database_url: url.to_owned(),
            database_connections: 2,
        }
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        let urls = [
            "",
            "mysql://a:hunter2@h/d",
            "postgres://a:hunter2@h:port/d",
            "postgres://a:hunter2@h",
            "hunter2",
        ];
        for url in urls {
            let error = connect_options(url, "sender-1").unwrap_err().to_string();
            assert!(error.contains("DATABASE_URL"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_session_carries_its_limits_and_the_nodes_name() {
        let options = connect_options("postgres://sender:pw@h/unacked", "sender-1").unwrap();
        assert_eq!(options.get_application_name(), Some("sender-1"));
        let limits = options.get_options().unwrap();
        assert!(
            limits.contains("idle_in_transaction_session_timeout=5s"),
            "{limits}"
        );
    }

    #[test]
    fn settings_in_a_log_show_no_password() {
        assert!(!format!("{:?}", args("postgres://a:hunter2@h/d")).contains("hunter2"));
    }

    #[tokio::test]
    async fn a_database_without_a_server_opens_and_says_that_it_is_away() {
        let lifecycle = Lifecycle::new(Duration::from_secs(1));
        let node = NodeArgs::default().node("sender").unwrap();
        let parts = Parts::new();
        // Port 1 on loopback: nobody listens there.
        let database = args("postgres://a:b@127.0.0.1:1/d")
            .open(&node, &parts)
            .unwrap();
        let mut changes = database.part().subscribe();
        database.migrate_until_done(Vec::new(), &lifecycle);
        let limit = Duration::from_secs(10);
        timeout(limit, changes.wait_for(|state| state.kind == Kind::Away))
            .await
            .unwrap()
            .unwrap();
        assert!(!database.is_migrated());
        lifecycle.stop();
        lifecycle.finish().await;
    }

    #[tokio::test]
    async fn a_query_that_hangs_ends_at_its_limit() {
        let hangs = std::future::pending::<Result<(), sqlx::Error>>();
        let error = within(Duration::from_millis(20), hangs).await.unwrap_err();
        assert!(is_away(&error), "{error}");
    }

    #[test]
    fn only_what_passes_with_time_counts_as_away() {
        for code in [
            "57P01", "57P03", "53300", "08006", "55P03", "40001", "3D000", "28P01",
        ] {
            assert!(is_away_code(code), "{code}");
        }
        for code in ["42601", "23505", "22021", "25001"] {
            assert!(!is_away_code(code), "{code}");
        }
        assert!(!is_away(&sqlx::Error::RowNotFound));
    }

    #[test]
    fn waits_grow_to_three_seconds() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.next()).collect();
        assert!(waits[0] <= Duration::from_millis(100) && waits[0] >= Duration::from_millis(50));
        assert!(waits[8] >= Duration::from_millis(1500) && waits[8] <= Duration::from_secs(3));
    }
}
