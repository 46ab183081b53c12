//! Passwords: whether one is good enough, and its hash.
//!
//! Argon2id with the parameters that OWASP names first, 19 MiB and two passes: a guess costs whoever
//! has the table as much as it costs us. So many at a time and no more, or a flood of sign-ups takes
//! all memory and all processors; a few more wait, and what comes then is refused at once.
//!
//! Also a login for an address that nobody has computes a hash, over a dummy of the same parameters:
//! the time does not tell which addresses there are.

use std::{sync::Arc, time::Duration};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::{
    sync::{Semaphore, TryAcquireError},
    task::spawn_blocking,
    time::timeout,
};
use web::Error;

use crate::api::numbers;

/// How many wait for each that is computed.
const WAITING: usize = 16;
/// How long one waits for its turn.
const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// How many hashes are computed.
#[derive(Debug, Clone, clap::Args)]
pub struct HashArgs {
    /// Password hashes computed at once, each with 19 MiB and one processor; 16 more wait for each, and what comes then is refused
    #[arg(long, env = "HASHES_AT_ONCE", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub hashes_at_once: u16,
}

/// Computes hashes, a few at a time. Clones share the places.
#[derive(Clone)]
pub(crate) struct Hashes {
    /// Those that are computed, and those that wait.
    places: Arc<Semaphore>,
    /// Those that are computed.
    turns: Arc<Semaphore>,
    dummy: Arc<str>,
}

impl Hashes {
    /// Computes one hash, that of the dummy.
    pub(crate) fn new(args: &HashArgs) -> anyhow::Result<Self> {
        let at_once = usize::from(args.hashes_at_once);
        let dummy = hash(&rand::random::<[u8; 32]>())
            .map_err(|error| anyhow::anyhow!("a password cannot be hashed: {error}"))?;
        Ok(Self {
            places: Arc::new(Semaphore::new(at_once * (1 + WAITING))),
            turns: Arc::new(Semaphore::new(at_once)),
            dummy: dummy.into(),
        })
    }

    /// The hash to be stored.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Error> {
        let hashed = self.compute(move || hash(password.as_bytes())).await?;
        hashed.map_err(|error| {
            Error::internal(anyhow::anyhow!("a password cannot be hashed: {error}"))
        })
    }

    /// Whether it is the password of this hash. Without one it takes as long, and is not.
    pub(crate) async fn fits(
        &self,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, Error> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.dummy.to_string());
        let fits = self
            .compute(move || {
                let stored = PasswordHash::new(&stored).map_err(|error| error.to_string())?;
                Ok(Argon2::default()
                    .verify_password(password.as_bytes(), &stored)
                    .is_ok())
            })
            .await?;
        let fits: bool = fits.map_err(|error: String| {
            Error::internal(anyhow::anyhow!("a stored hash cannot be read: {error}"))
        })?;
        Ok(fits && known)
    }

    /// The turn goes with the work, also where nobody waits for it any more: what is bounded is what is computed.
    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|error| match error {
            TryAcquireError::NoPermits => crowded(),
            TryAcquireError::Closed => Error::internal(error),
        })?;
        let turn = timeout(WAIT_LIMIT, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| crowded())?.map_err(Error::internal)?;
        let done = spawn_blocking(move || {
            let done = work();
            drop((turn, place));
            done
        });
        done.await.map_err(Error::internal)
    }
}

/// Nothing has been done.
fn crowded() -> Error {
    metrics::counter!(numbers::CROWDED).increment(1);
    Error::away("Too many passwords are being checked at this moment. Nothing was done; please try again in a few seconds.")
        .coded("crowded")
}

fn hash(password: &[u8]) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(password)?.to_string())
}
