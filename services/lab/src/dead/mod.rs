//! Dead letters: what there is, and what is to become of it.
//!
//! Looking is done here, by the role that may only read (`read.rs`). Deeds are the receivers': they are asked for by HTTP,
//! through the gateway, with their secret (`receivers.rs`). A lab that dies in between leaves an order that is planned, or one
//! that goes on without it.

mod api;
pub mod args;
pub mod audits;
pub mod cli;
mod fields;
mod pages;
pub(crate) mod read;
pub(crate) mod receivers;
pub mod room;
mod words;

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::audit::ledger::options;
use crate::say::Usage;

use receivers::Receivers;

/// Every address that does something: none may work without signing in.
pub fn deeds() -> Vec<&'static str> {
    [pages::DEEDS, api::DEEDS].concat()
}

/// Who looks, and who is asked.
#[derive(Clone)]
pub struct Dead {
    ledger: PgPool,
    receivers: Receivers,
}

impl Dead {
    /// By these addresses; nothing is connected yet. Without a token there is only looking.
    pub fn new(auditor_url: &str, gateway: &str, token: Option<String>) -> Result<Self, Usage> {
        let options = options(auditor_url)?
            .application_name("lab dead")
            .options([("statement_timeout", "10s")]);
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(5));
        Ok(Self {
            ledger: pool.connect_lazy_with(options),
            receivers: Receivers::new(gateway, token),
        })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_deed_is_a_post() {
        for (source, deeds) in [
            (include_str!("pages.rs"), super::pages::DEEDS),
            (include_str!("api.rs"), super::api::DEEDS),
        ] {
            let posts = source.lines().filter(|line| line.contains(", post("));
            let posts: Vec<&str> = posts.filter_map(|line| line.split('"').nth(1)).collect();
            assert_eq!(posts, deeds);
        }
    }
}
