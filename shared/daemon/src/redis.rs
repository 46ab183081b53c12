//! The clients of Redis, set so that no request ever waits for a Redis that is gone.
//!
//! With fred's defaults a command waits until Redis is back (measured: over 12 s, the client's own
//! limit). With ours it errs after [`COMMAND_LIMIT`], whether Redis is gone, was never there, or
//! hangs; reconnecting goes on in the background for ever. A link whose other end went away without
//! a word is noticed by [`crate::monitor::watch_redis`]: fred's own check of unresponsive
//! connections never fires while commands keep being written.

use std::time::Duration;

pub use tower_sessions_redis_store::fred;

use fred::{
    clients::{Client, Pool},
    error::{Error, ErrorKind},
    interfaces::ClientLike,
    types::{
        RespVersion,
        config::{Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, TcpConfig},
    },
};

use crate::WrongSetting;

/// How long one command may take.
pub const COMMAND_LIMIT: Duration = Duration::from_millis(700);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const RECONNECT_MS: u32 = 300;
/// Commands that wait for a connection; more err at once.
const WAITING_MAX: usize = 10_000;
const CLIENTS: usize = 2;
/// Announcements that may wait for who listens on a [`subscriber`]; the client's own 32 are fewer than come at once.
const HEARD_MAX: usize = 2_048;

/// The settings of Redis.
#[derive(Clone, clap::Args)]
pub struct RedisArgs {
    /// Redis, as redis://:PASSWORD@HOST/0
    #[expect(
        clippy::doc_markdown,
        reason = "this is the text of --help, not Markdown"
    )]
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: String,
    /// What the names of all our keys begin with (session ids excepted: they are random)
    #[arg(long, env = "REDIS_PREFIX", default_value = "unacked:")]
    pub redis_prefix: String,
}

impl std::fmt::Debug for RedisArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisArgs")
            .field("prefix", &self.redis_prefix)
            .finish_non_exhaustive()
    }
}

fn wrong() -> WrongSetting {
    WrongSetting::secret("REDIS_URL", "redis://:PASSWORD@HOST:PORT/NUMBER")
}

/// Checks the URL without ever repeating it: it holds a password.
pub(crate) fn config(args: &RedisArgs) -> Result<Config, WrongSetting> {
    if !args.redis_url.starts_with("redis://") {
        return Err(wrong());
    }
    Config::from_url_centralized(&args.redis_url).map_err(|_| wrong())
}

/// Clients that connect in the background, now and whenever the connection was lost. Must be
/// called on a runtime.
pub fn connect(args: &RedisArgs) -> Result<Pool, WrongSetting> {
    let mut config = config(args)?;
    config.fail_fast = false;
    let performance = PerformanceConfig {
        default_command_timeout: COMMAND_LIMIT,
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: CONNECT_LIMIT,
        internal_command_timeout: CONNECT_LIMIT,
        // Once: a repeated command would wait for the next connection, and the user with it.
        max_command_attempts: 1,
        max_command_buffer_len: WAITING_MAX,
        // A Redis that is being set up may not know our password yet.
        reconnect_on_auth_error: true,
        tcp: TcpConfig {
            nodelay: Some(true),
            ..TcpConfig::default()
        },
        ..ConnectionConfig::default()
    };
    // 0: without end.
    let policy = ReconnectPolicy::new_constant(0, RECONNECT_MS);
    let pool = Pool::new(
        config,
        Some(performance),
        Some(connection),
        Some(policy),
        CLIENTS,
    )
    .map_err(|_| wrong())?;
    // The tasks of the clients: they end with the pool.
    drop(pool.connect());
    Ok(pool)
}

/// A client for one subscription, not connected yet.
///
/// It does not reconnect: what was said meanwhile is lost, so who listens must know, and make another. It speaks the newer
/// protocol, in which a subscriber may still be pinged.
pub fn subscriber(args: &RedisArgs) -> Result<Client, WrongSetting> {
    let mut config = config(args)?;
    config.version = RespVersion::RESP3;
    let performance = PerformanceConfig {
        default_command_timeout: COMMAND_LIMIT,
        broadcast_channel_capacity: HEARD_MAX,
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: CONNECT_LIMIT,
        internal_command_timeout: CONNECT_LIMIT,
        max_command_attempts: 1,
        ..ConnectionConfig::default()
    };
    Ok(Client::new(
        config,
        Some(performance),
        Some(connection),
        None,
    ))
}

/// What the client says of a connection, in its debug form, and the same for people.
const CONNECTIONS: [(&str, &str); 5] = [
    ("ConnectionRefused", "the connection was refused"),
    ("ConnectionReset", "the connection broke"),
    ("ConnectionAborted", "the connection broke"),
    ("BrokenPipe", "the connection broke"),
    ("UnexpectedEof", "the connection broke"),
];

/// Why a command failed, for people.
pub fn why(error: &Error) -> String {
    let said = error.details();
    if *error.kind() == ErrorKind::Timeout {
        return "no answer in time".to_owned();
    }
    let known = CONNECTIONS.iter().find(|(kind, _)| said.contains(kind));
    let words = known.filter(|_| *error.kind() == ErrorKind::IO);
    words.map_or(said, |(_, words)| words).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_is_told_in_words() {
        let reset = std::io::Error::from_raw_os_error(104);
        assert_eq!(why(&reset.into()), "the connection broke");
        let refused = std::io::Error::from_raw_os_error(111);
        assert_eq!(why(&refused.into()), "the connection was refused");
        // what says more than that is kept
        for (kind, said) in [
            (ErrorKind::Auth, "WRONGPASS"),
            (ErrorKind::IO, "failed to lookup address information"),
        ] {
            assert_eq!(why(&Error::new(kind, said)), said);
        }
    }

    fn args(url: &str) -> RedisArgs {
        RedisArgs {
            redis_url: url.to_owned(),
            redis_prefix: "unacked:".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_wrong_url_is_refused_without_its_password() {
        for url in [
            "",
            "hunter2",
            "http://:hunter2@h",
            "redis://:hunter2@h:port",
            "redis://:hunter2@h/x",
        ] {
            let error = connect(&args(url)).unwrap_err().to_string();
            assert!(
                error.contains("REDIS_URL") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn without_a_server_a_command_errs_in_time() {
        // Port 1 on loopback: nobody listens there.
        let pool = connect(&args("redis://127.0.0.1:1")).unwrap();
        let began = tokio::time::Instant::now();
        pool.ping::<()>(None).await.unwrap_err();
        assert!(began.elapsed() < 2 * COMMAND_LIMIT, "{:?}", began.elapsed());
    }
}
