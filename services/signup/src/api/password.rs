//! Passwords: whether one is good enough, and its hash.
//!
//! Argon2id with the parameters that OWASP names first, 19 MiB and two passes: a guess costs whoever
//! has the table as much as it costs us. So many at a time and no more, or a flood of sign-ups takes
//! all memory and all processors; a few more wait, and what comes then is refused at once. Logins wait in places of their
//! own, so that such a flood locks nobody out. A place is taken before a try is counted: who is refused has lost none.
//!
//! Also a login for an address that nobody has computes a hash, over a dummy of the same parameters:
//! the time does not tell which addresses there are.

use std::{sync::Arc, time::Duration};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
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
    /// Password hashes computed at once, each with 19 MiB and one processor; for each, 16 more sign-ups wait, and as many logins beside
    /// them, and what comes then is refused
    #[arg(long, env = "HASHES_AT_ONCE", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub hashes_at_once: u16,
}

/// Computes hashes, a few at a time. Clones share the places.
#[derive(Clone)]
pub(crate) struct Hashes {
    /// Sign-ups: those that are computed, and those that wait ..
    sign_ups: Arc<Semaphore>,
    /// .. and logins.
    logins: Arc<Semaphore>,
    /// Those that are computed.
    turns: Arc<Semaphore>,
    dummy: Arc<str>,
}

/// What a hash is computed for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum For {
    SignUp,
    Login,
}

/// Where one waits for a hash.
pub(crate) struct Place(OwnedSemaphorePermit);

impl Hashes {
    /// Computes one hash, that of the dummy.
    pub(crate) fn new(args: &HashArgs) -> anyhow::Result<Self> {
        let at_once = usize::from(args.hashes_at_once);
        let dummy = hash(&rand::random::<[u8; 32]>())
            .map_err(|error| anyhow::anyhow!("a password cannot be hashed: {error}"))?;
        Ok(Self {
            sign_ups: Arc::new(Semaphore::new(at_once * (1 + WAITING))),
            logins: Arc::new(Semaphore::new(at_once * (1 + WAITING))),
            turns: Arc::new(Semaphore::new(at_once)),
            dummy: dummy.into(),
        })
    }

    /// A place for one hash, or none is left.
    pub(crate) fn place(&self, what: For) -> Result<Place, Error> {
        let places = match what {
            For::SignUp => &self.sign_ups,
            For::Login => &self.logins,
        };
        match Arc::clone(places).try_acquire_owned() {
            Ok(place) => Ok(Place(place)),
            Err(TryAcquireError::NoPermits) => Err(crowded(
                "Too many passwords are being checked at this moment. Nothing was done; please try again in a few seconds.",
            )),
            Err(error @ TryAcquireError::Closed) => Err(Error::internal(error)),
        }
    }

    /// The hash to be stored.
    pub(crate) async fn hash(&self, place: Place, password: String) -> Result<String, Error> {
        let hashed = self.compute(place, move || hash(password.as_bytes()));
        let hashed = hashed.await?;
        hashed.map_err(|error| {
            Error::internal(anyhow::anyhow!("a password cannot be hashed: {error}"))
        })
    }

    /// Whether it is the password of this hash. Without one it takes as long, and is not.
    pub(crate) async fn fits(
        &self,
        place: Place,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, Error> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.dummy.to_string());
        let fits = self
            .compute(place, move || {
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

    /// Place and turn go with the work, also where nobody waits for it any more: what is bounded is what is computed.
    async fn compute<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let turn = timeout(WAIT_LIMIT, Arc::clone(&self.turns).acquire_owned()).await;
        let late = "Too many passwords are being checked at this moment. Please try again in a few seconds.";
        let turn = turn.map_err(|_| crowded(late))?;
        let turn = turn.map_err(Error::internal)?;
        let done = spawn_blocking(move || {
            let done = work();
            drop((turn, place.0));
            done
        });
        done.await.map_err(Error::internal)
    }
}

fn crowded(detail: &'static str) -> Error {
    metrics::counter!(numbers::CROWDED).increment(1);
    Error::away(detail).coded("crowded")
}

fn hash(password: &[u8]) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(password)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_ups_take_no_place_from_a_login() {
        let hashes = Hashes::new(&HashArgs { hashes_at_once: 1 }).unwrap();
        let taken: Vec<_> = (0..20)
            .map_while(|_| hashes.place(For::SignUp).ok())
            .collect();
        assert_eq!(taken.len(), 17, "one, and sixteen that wait");
        let login = hashes.place(For::Login);
        assert!(login.is_ok());
        drop(taken);
        assert!(hashes.place(For::SignUp).is_ok());
    }
}
