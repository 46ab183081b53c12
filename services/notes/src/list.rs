//! What is saved, read through the cache.
//!
//! A copy answers if there is one. Else the database does, once for all who ask this node for the same at that moment, and a
//! copy is kept of it. So a cold page costs the database one reading per node.
//!
//! Between two lines: die after the reading and before the copy is kept: the next one reads.

use std::{sync::Arc, time::Duration};

use daemon::{database::within, parts::Parts};
use sqlx::PgPool;
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
    /// How old that was.
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
        let read = || {
            let reading = self.reading.clone();
            async move { reading.read(asked).await }
        };
        let answer = self.flights.join(asked, read).await?;
        metrics::counter!(numbers::CACHE, "said" => answer.source.word()).increment(1);
        Ok(answer)
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
