//! The settings of `lab console`.

use clap::Args;
use daemon::database::DatabaseArgs;
use daemon::redis::RedisArgs;
use daemon::telemetry::TelemetryArgs;
use web::session::SessionArgs;

use crate::run::sight::Elsewhere;

#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Where it listens; a gateway stands before it
    #[arg(
        long,
        env = "LISTEN",
        default_value = "127.0.0.1:8083",
        value_name = "ADDRESS:PORT"
    )]
    pub listen: String,
    /// What one signs in with; without it the console only shows
    #[arg(
        long,
        env = "UNACKED_CONSOLE_TOKEN",
        default_value = "",
        hide_env_values = true,
        hide_default_value = true,
        value_name = "TOKEN"
    )]
    pub token: String,
    /// Names, with their ports, by which browsers may reach it beside those of this machine
    #[arg(
        long,
        env = "UNACKED_CONSOLE_HOSTS",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub hosts: Vec<String>,
    /// The most nodes that an experiment may ask for
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub max: usize,
    /// The database, as the role that reads both schemas and writes nothing.
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub rooms: RoomArgs,
    #[command(flatten)]
    pub redis: RedisArgs,
    #[command(flatten)]
    pub sessions: SessionArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    #[command(flatten)]
    pub elsewhere: Elsewhere,
}

/// What the search and dead letters need.
#[derive(Debug, Args)]
pub struct RoomArgs {
    /// The same database as the role `lab`, which owns the index of the search; without it the search walks
    #[arg(
        long,
        env = "SEARCH_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub search_database_url: Option<String>,
    /// The gateway, through which receivers are asked to send dead letters back
    #[arg(
        long,
        env = "GATEWAY_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub gateway_url: String,
}

/// A token that is guessed in a day is none.
const TOKEN_MIN: usize = 12;

impl ConsoleArgs {
    /// What shows only when all of it is known.
    pub fn check(&self) -> Result<(), daemon::WrongSetting> {
        let length = self.token.chars().count();
        if (1..TOKEN_MIN).contains(&length) {
            let right = format!("{TOKEN_MIN} characters or more, such as 32 random ones");
            return Err(daemon::WrongSetting::secret("UNACKED_CONSOLE_TOKEN", right));
        }
        Ok(())
    }
}
