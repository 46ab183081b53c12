//! Asks Postgres and Redis each second whether they are there, and keeps their parts true.
//!
//! One answer that is missing is "away", one that comes is "up": what people see is the last
//! second, without smoothing. Postgres is asked on a connection of its own, so that a pool in full
//! use does not look like a server that is gone.

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{
    database::{Database, why, within},
    lifecycle::Lifecycle,
    parts::Part,
    redis::fred::{
        clients::{Client, Pool},
        error::ErrorKind,
        interfaces::ClientLike,
    },
};

const EACH: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(1);
/// So many pings without an answer, one a second, and a link is given up.
const SILENT_PINGS: u32 = 3;

/// Keeps the database's part true until the process stops. While migrations have not run, the
/// migrations say how it is, for without tables the database is of no use.
pub fn watch_database(database: &Database, lifecycle: &Lifecycle) {
    let database = database.clone();
    until_stopped("database monitor", lifecycle, async move {
        let mut each = each_second();
        let mut own: Option<PgConnection> = None;
        database.migrated().await;
        loop {
            each.tick().await;
            // Taken out, so that a connection which does not answer is dropped.
            let connection = own.take();
            match within(LIMIT, ask(connection, &database)).await {
                Ok(connection) => {
                    own = Some(connection);
                    database.part().up();
                }
                Err(error) => database.part().away(why(&error)),
            }
        }
    });
}

async fn ask(
    connection: Option<PgConnection>,
    database: &Database,
) -> Result<PgConnection, sqlx::Error> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => PgConnection::connect_with(database.options()).await?,
    };
    connection.execute("select 1").await?;
    Ok(connection)
}

/// Keeps Redis' part true until the process stops, and has links replaced that only swallow.
pub fn watch_redis(redis: &Pool, part: &Part, lifecycle: &Lifecycle) {
    for client in redis.clients() {
        until_stopped("redis link", lifecycle, replace_when_silent(client.clone()));
    }
    let redis = redis.clone();
    let part = part.clone();
    until_stopped("redis monitor", lifecycle, async move {
        let mut each = each_second();
        loop {
            each.tick().await;
            // Bounded by the clients' own limit.
            match redis.ping::<()>(None).await {
                Ok(()) => part.up(),
                Err(error) => part.away(crate::redis::why(&error)),
            }
        }
    });
}

/// Reconnects a client that believes to be connected and gets no answers.
async fn replace_when_silent(client: Client) {
    let mut each = each_second();
    let mut silent = 0;
    loop {
        each.tick().await;
        match client.ping::<()>(None).await {
            Err(error) if *error.kind() == ErrorKind::Timeout && client.is_connected() => {
                silent += 1;
            }
            _ => silent = 0,
        }
        if silent == SILENT_PINGS {
            tracing::warn!("a link to Redis is silent: reconnecting");
            // Ends when it is connected again, however long that takes.
            let _ = client.force_reconnection().await;
            silent = 0;
        }
    }
}

fn until_stopped(
    name: &'static str,
    lifecycle: &Lifecycle,
    rounds: impl Future<Output = ()> + Send + 'static,
) {
    let stopping = lifecycle.stopping();
    lifecycle.spawn(name, async move {
        stopping.run_until_cancelled(rounds).await;
        Ok(())
    });
}

fn each_second() -> Interval {
    let mut each = interval(EACH);
    each.set_missed_tick_behavior(MissedTickBehavior::Delay);
    each
}
