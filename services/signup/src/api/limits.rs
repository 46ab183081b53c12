//! How often somebody may try to log in, per address and per client, and to sign up, per client; in a window that slides.
//!
//! The tries are in Postgres and not in Redis: a login needs Postgres anyway, so a limit is there
//! whenever a login is, on all nodes, and what counts guesses is not what may be lost. Each key is one
//! row with the times of its tries, at most as many as are allowed, so the row's lock makes nodes take
//! turns and no guess slips through between two of them.
//!
//! A try is counted, committed, before anything is computed. One that is refused is not counted, so
//! nobody is locked out for longer than a window, however somebody hammers; but for as long as somebody
//! else uses up the tries of an address its owner is refused too, as everywhere where an address has a limit.
//!
//! Neither address nor client is stored: the key is a digest.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, request::Parts as RequestParts},
};
use sha2::{Digest, Sha256};
use sqlx::{PgPool, Postgres, Transaction, postgres::types::PgInterval};
use tokio_util::sync::CancellationToken;
use web::Error;

use super::numbers;

/// How often rows are looked for that nobody needs any more.
const PRUNE_EACH: Duration = Duration::from_mins(1);

/// The settings of the limits.
#[expect(
    clippy::doc_markdown,
    reason = "this is the text of --help, not Markdown"
)]
#[derive(Debug, Clone, clap::Args)]
pub struct LimitArgs {
    /// Logins tried for one address within LOGIN_WINDOW_SECS, right ones included; beyond that they are refused
    #[arg(long, env = "LOGIN_MAX_ADDRESS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub login_max_address: u16,
    /// Logins tried by one client within LOGIN_WINDOW_SECS. A client is whom the gateway names (X-Real-IP), which is believed from
    /// loopback and private addresses only, or else the other end of the connection
    #[arg(long, env = "LOGIN_MAX_CLIENT", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub login_max_client: u16,
    /// Sign-ups tried by one client within LOGIN_WINDOW_SECS, those with wrong fields aside; 0: as many as it likes
    #[arg(long, env = "SIGNUPS_MAX_CLIENT", default_value_t = 300, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub signups_max_client: u16,
    /// Seconds for which a try counts
    #[arg(long, env = "LOGIN_WINDOW_SECS", default_value_t = 900, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub login_window_secs: u32,
}

/// Counts tries.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    address: i32,
    client: i32,
    /// 0: not counted.
    sign_ups: i32,
    window: PgInterval,
}

/// What a try is counted by.
#[derive(Debug, Clone, Copy)]
enum By {
    Client,
    Address,
    /// The sign-ups of a client, which are no logins.
    SignUps,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Address => "address",
            Self::SignUps => "sign-ups",
        }
    }

    /// Says what it is of, so that an address never meets a client, and a login no sign-up.
    fn key(self, who: &str) -> Vec<u8> {
        let mut digest = Sha256::new();
        digest.update(self.name());
        digest.update([0]);
        digest.update(who);
        digest.finalize().to_vec()
    }
}

/// Too many.
pub(crate) struct TooMany {
    by: By,
    pub(crate) retry_secs: u32,
}

impl Limits {
    pub(crate) fn new(args: &LimitArgs) -> Self {
        Self {
            address: args.login_max_address.into(),
            client: args.login_max_client.into(),
            sign_ups: args.signups_max_client.into(),
            window: PgInterval {
                months: 0,
                days: 0,
                microseconds: i64::from(args.login_window_secs) * 1_000_000,
            },
        }
    }

    /// Counts a login, committed when this returns; or says when there will be room for one.
    pub(crate) async fn count_login(
        &self,
        pool: &PgPool,
        email: &str,
        Client(client): &Client,
    ) -> Result<Result<(), TooMany>, sqlx::Error> {
        // Always in this order, so that two tries cannot wait for each other.
        let client = (By::Client, client.as_str(), self.client);
        let address = (By::Address, email, self.address);
        self.count(pool, &[client, address]).await
    }

    /// The same for a sign-up.
    pub(crate) async fn count_sign_up(
        &self,
        pool: &PgPool,
        Client(client): &Client,
    ) -> Result<Result<(), TooMany>, sqlx::Error> {
        if self.sign_ups == 0 {
            return Ok(Ok(()));
        }
        let by = (By::SignUps, client.as_str(), self.sign_ups);
        self.count(pool, &[by]).await
    }

    async fn count(
        &self,
        pool: &PgPool,
        keys: &[(By, &str, i32)],
    ) -> Result<Result<(), TooMany>, sqlx::Error> {
        let mut tx = pool.begin().await?;
        for &(by, who, most) in keys {
            let key = by.key(who);
            if !self.add(&mut tx, &key, most).await? {
                let retry_secs = self.room_in(&mut tx, &key, most).await?;
                tx.rollback().await?;
                match by {
                    By::SignUps => metrics::counter!(numbers::SIGN_UPS_LIMITED).increment(1),
                    By::Client | By::Address => {
                        metrics::counter!(numbers::LIMITED, "by" => by.name()).increment(1);
                    }
                }
                return Ok(Err(TooMany { by, retry_secs }));
            }
        }
        tx.commit().await?;
        Ok(Ok(()))
    }

    /// False if there is no room. Waits for whoever counts the same key.
    async fn add(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        key: &[u8],
        most: i32,
    ) -> Result<bool, sqlx::Error> {
        let added: Option<bool> = sqlx::query_scalar(
            "insert into login_try as known (key, tried_at, last_at)
             values ($1, array[clock_timestamp()], clock_timestamp())
             on conflict (key) do update
                set tried_at = array(select at from unnest(known.tried_at) as at
                                      where at > clock_timestamp() - $3 order by at) || clock_timestamp(),
                    last_at = clock_timestamp()
              where (select count(*) from unnest(known.tried_at) as at
                      where at > clock_timestamp() - $3) < $2
             returning true",
        )
        .bind(key)
        .bind(most)
        .bind(self.window)
        .fetch_optional(&mut **tx)
        .await?;
        Ok(added.is_some())
    }

    /// Seconds until the oldest of the tries that fill the window leaves it.
    async fn room_in(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        key: &[u8],
        most: i32,
    ) -> Result<u32, sqlx::Error> {
        let seconds: Option<f64> = sqlx::query_scalar(
            "select extract(epoch from at + $3 - clock_timestamp())::float8
               from login_try, unnest(tried_at) as at
              where key = $1 order by at desc offset $2 - 1 limit 1",
        )
        .bind(key)
        .bind(most)
        .bind(self.window)
        .fetch_optional(&mut **tx)
        .await?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to what a window may be"
        )]
        let seconds = seconds.unwrap_or(0.0).ceil().clamp(1.0, 86_400.0) as u32;
        Ok(seconds)
    }

    /// Removes rows that count nothing any more, and tokens given back that have ended, until `stop`.
    pub(crate) async fn prune(self, pool: PgPool, stop: CancellationToken) {
        let rounds = async {
            loop {
                if let Err(error) = messaging::bounded(self.prune_once(&pool)).await {
                    tracing::debug!(%error, "old tries and tokens stay for now");
                }
                tokio::time::sleep(PRUNE_EACH).await;
            }
        };
        stop.run_until_cancelled(rounds).await;
    }

    async fn prune_once(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        // Waits for no row, in whatever order it meets them: a login holds one and wants another. A row that somebody has is
        // needed anyway.
        sqlx::query(
            "delete from login_try where key = any (array(
                select key from login_try where last_at < clock_timestamp() - $1 for update skip locked))",
        )
        .bind(self.window)
        .execute(pool)
        .await?;
        super::account::prune_revoked(pool).await
    }
}

impl From<TooMany> for Error {
    fn from(too_many: TooMany) -> Self {
        let (what, code) = match too_many.by {
            By::Client => ("logins from here", "too_many_logins"),
            By::Address => ("logins for this address", "too_many_logins"),
            By::SignUps => ("sign-ups from here", "too_many_signups"),
        };
        let seconds = too_many.retry_secs;
        let detail = format!("There were too many {what}. Please try again in {seconds} s.");
        let status = axum::http::StatusCode::TOO_MANY_REQUESTS;
        Self::new(status, detail).coded(code).retry_in(seconds)
    }
}

/// Who asks, as far as is known: as the gateway says, which lets no client set that header, or the
/// other end of the connection. An IPv6 client has a whole network of addresses, so that is what counts.
pub(crate) struct Client(String);

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut RequestParts, _: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map(|peer| peer.0.ip().to_canonical());
        Ok(Self(client(&parts.headers, peer)))
    }
}

fn client(headers: &HeaderMap, peer: Option<IpAddr>) -> String {
    let named = || {
        let named = headers.get("x-real-ip")?.to_str().ok()?;
        let named = named.trim().parse::<IpAddr>().ok()?;
        Some(named.to_canonical())
    };
    match peer
        .filter(may_be_the_gateway)
        .and_then(|_| named())
        .or(peer)
    {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("{:x?}", &address.segments()[..4]),
        None => "unknown".to_owned(),
    }
}

/// Whether the header is believed from there: a gateway is on this machine or in a network of our own. From elsewhere anybody
/// may write into it who they are.
fn may_be_the_gateway(peer: &IpAddr) -> bool {
    match peer {
        IpAddr::V4(peer) => peer.is_loopback() || peer.is_private(),
        IpAddr::V6(peer) => peer.is_loopback() || peer.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_who_the_gateway_says_or_the_other_end() {
        let said = |named: &str, peer: Option<&str>| {
            let mut headers = HeaderMap::new();
            if !named.is_empty() {
                headers.insert("x-real-ip", named.parse().unwrap());
            }
            client(&headers, peer.map(|peer| peer.parse().unwrap()))
        };
        for gateway in ["127.0.0.1", "172.18.0.3", "10.1.2.3", "::1", "fd00::7"] {
            assert_eq!(said("192.0.2.7", Some(gateway)), "192.0.2.7", "{gateway}");
        }
        for stranger in ["198.51.100.9", "172.32.0.1"] {
            assert_eq!(said("192.0.2.7", Some(stranger)), stranger);
        }
        assert_eq!(said("192.0.2.7", None), "unknown");
        let here = Some("127.0.0.1");
        assert_eq!(said("", here), "127.0.0.1");
        assert_eq!(said("nonsense", here), "127.0.0.1");
        assert_eq!(said("::ffff:192.0.2.7", here), "192.0.2.7");
        assert_eq!(said("2001:db8::1", here), said("2001:db8::2:1", here));
        assert_ne!(said("2001:db8::1", here), said("2001:db8:0:1::1", here));
        assert_eq!(
            said("192.0.2.7", Some("2001:db8::1")),
            said("2001:db8::1", here)
        );
    }

    #[test]
    fn an_address_never_meets_a_client() {
        assert_ne!(By::Client.key("a"), By::Address.key("a"));
        assert_ne!(By::Client.key("a"), By::SignUps.key("a"));
    }
}
