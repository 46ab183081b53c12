//! Copies of what is saved, in Redis.

use std::time::Duration;

use clap::{Args, ValueEnum};

/// The settings of it.
#[derive(Debug, Clone, Args)]
pub struct CacheArgs {
    /// What a copy in the cache is worth: it expires, or it is taken for the truth until somebody removes it, for ever if that is
    /// lost (unsafe)
    #[arg(long, env = "NOTES_CACHE", value_enum, default_value = "expiring")]
    pub notes_cache: Trust,
    /// With NOTES_CACHE=expiring: how old what is shown may be, in milliseconds
    #[arg(long, env = "NOTES_CACHE_MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub notes_cache_ms: u64,
}

/// What a copy is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Trust {
    /// Nothing, when it is older than the time to live.
    Expiring,
    /// Everything, however old it is.
    Truth,
}

impl CacheArgs {
    /// How old a copy may be; `None` for any age.
    pub(crate) fn time_to_live(&self) -> Option<Duration> {
        match self.notes_cache {
            Trust::Expiring => Some(Duration::from_millis(self.notes_cache_ms)),
            Trust::Truth => None,
        }
    }
}
