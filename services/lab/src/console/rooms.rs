//! The lab's other rooms at `/lab`: passports, the search with its index, dead letters.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use daemon::lifecycle::Lifecycle;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::args::RoomArgs;
use super::ground::Ground;
use crate::audit::ledger::options;
use crate::dead::{self, Dead};
use crate::passport::{self, Ledgers};
use crate::run::sight::Elsewhere;
use crate::search::{self, Indexer};

/// Above what the search may take for a page.
const STATEMENT_LIMIT: (&str, &str) = ("statement_timeout", "10s");
/// The index is copied on one connection, pages are made on the others.
const CONNECTIONS: u32 = 4;

/// What these rooms stand on.
pub struct Rooms {
    ledgers: Ledgers,
    dead: dead::room::Room,
}

impl Rooms {
    /// Connects to nothing yet. Without the role `lab` the search has no index, and walks.
    ///
    /// # Errors
    /// An address that is none.
    pub fn new(
        args: &RoomArgs,
        auditor_url: &str,
        auditor: PgPool,
        root: &Path,
        elsewhere: &Elsewhere,
        life: &Lifecycle,
    ) -> Result<Self> {
        let lab = match &args.search_database_url {
            Some(url) => {
                let lab = pool(url)?;
                let (indexer, stop) = (Indexer::new(lab.clone()), life.stopping());
                life.spawn("index of texts", async move {
                    indexer.run(stop).await;
                    Ok(())
                });
                lab
            }
            None => auditor.clone(),
        };
        let runs = Some(root.join("runs"));
        let dead = Dead::new(
            auditor_url,
            &args.gateway_url,
            elsewhere.redrive_token.clone(),
        )?;
        let audits = dead::audits::Audits::new(root, Ground::new(root, elsewhere), life);
        Ok(Self {
            ledgers: Ledgers { auditor, lab, runs },
            dead: dead::room::Room::new(dead, audits),
        })
    }

    /// Their pages.
    pub fn pages(&self) -> Router {
        Router::new()
            .merge(passport::pages(self.ledgers.clone()))
            .merge(search::pages(self.ledgers.clone()))
            .merge(self.dead.pages())
    }

    /// The same for programs.
    pub fn api(&self) -> Router {
        Router::new()
            .merge(passport::api(self.ledgers.clone()))
            .merge(search::api(self.ledgers.clone()))
            .merge(self.dead.api())
    }

    /// What is posted to them.
    pub fn deeds() -> Vec<&'static str> {
        [passport::DEEDS, search::DEEDS, &dead::deeds()].concat()
    }
}

fn pool(url: &str) -> Result<PgPool> {
    let options = options(url)?.application_name("lab console");
    Ok(PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(options.options([STATEMENT_LIMIT])))
}
