//! What is saved, read through the cache.
//!
//! A copy answers if there is one. Else the database does, once for all who ask this node for the same at that moment, and a
//! copy is kept of it. So a cold page costs the database one reading per node.
//! Who joins a reading that has begun before may get what it read then: so nobody joins one that began longer ago than a copy
//! may be old, and what it gives is as old as its beginning.
//!
//! Between two lines: die after the reading and before the copy is kept: the next one reads.

use std::{sync::Arc, time::Duration};

use daemon::{database::within, parts::Parts};
use sqlx::PgPool;
use tokio::time::Instant;
use web::Error;

use crate::{
    cache::{Cache, Said},
    flight::Flights,
    note::{Asked, Listed},
    numbers, saved,
};

/// How long a reading may take.
const LIMIT: Duration = Duration::from_secs(3);

/// A list, and where it came from.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The notes.
    pub listed: Arc<Listed>,
    /// What the cache had to say.
    pub source: Source,
    /// How old it is at most.
    pub age: Duration,
}

/// Where a list came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From the cache.
    Hit,
    /// From the database, since the cache had no copy.
    Miss,
    /// From the database, since the cache did not answer.
    Off,
}

impl Source {
    /// As in headers and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Off => "off",
        }
    }
}

/// Who reads.
pub struct Lists {
    reading: Reading,
    flights: Flights<Asked, Result<Answer, Error>>,
}

#[derive(Clone)]
struct Reading {
    pool: PgPool,
    parts: Parts,
    cache: Cache,
}

impl Lists {
    /// From this database, through this cache.
    pub fn new(pool: PgPool, parts: Parts, cache: Cache) -> Self {
        Self {
            reading: Reading { pool, parts, cache },
            flights: Flights::default(),
        }
    }

    /// What is saved.
    ///
    /// # Errors
    /// The cache has no copy, and the database is away.
    pub async fn read(&self, asked: Asked) -> Result<Answer, Error> {
        let limit = self.reading.cache.time_to_live().unwrap_or(Duration::MAX);
        let from = Instant::now();
        let (mut answer, mut begun) = self.join(asked, limit).await?;
        let before = from.saturating_duration_since(begun);
        if answer.age.saturating_add(before) >= limit {
            // The copy was young enough for who began, and no longer for us. What is under way now began after we asked.
            (answer, begun) = self.join(asked, limit).await?;
        }
        answer.age += begun.elapsed();
        metrics::counter!(numbers::CACHE, "said" => answer.source.word()).increment(1);
        Ok(answer)
    }

    /// What a reading gives, its age as of its beginning, and when that was: less than the limit ago.
    async fn join(&self, asked: Asked, limit: Duration) -> Result<(Answer, Instant), Error> {
        let read = || {
            let reading = self.reading.clone();
            async move { reading.read(asked).await }
        };
        let (answer, begun) = self.flights.join(asked, limit, read).await;
        Ok((answer?, begun))
    }
}

impl Reading {
    async fn read(self, asked: Asked) -> Result<Answer, Error> {
        let name = name(asked);
        let (source, mark) = match self.cache.look::<Listed>(&name).await {
            Said::Hit(listed, age) => {
                return Ok(Answer {
                    listed: Arc::new(listed),
                    source: Source::Hit,
                    age,
                });
            }
            Said::Miss(mark) => (Source::Miss, Some(mark)),
            Said::Off => (Source::Off, None),
        };
        if !self.parts.usable(&["postgres"]) {
            return Err(Error::database_away());
        }
        metrics::counter!(numbers::READS).increment(1);
        let listed = within(LIMIT, saved::list(&self.pool, asked)).await?;
        if let Some(mark) = mark {
            self.cache.keep(&name, mark, &listed).await;
        }
        Ok(Answer {
            listed: Arc::new(listed),
            source,
            age: Duration::ZERO,
        })
    }
}

/// What a copy is called.
fn name(asked: Asked) -> String {
    let Asked { before, limit } = asked;
    before.map_or_else(
        || format!("newest:{limit}"),
        |before| format!("before:{before}:{limit}"),
    )
}
