//! Dead letters: what there is, and what is to become of it.
//!
//! Looking is done here, by the role that may only read (`read.rs`). Deeds are the receivers': they are asked for by HTTP,
//! through the gateway, with their secret (`receivers.rs`). A lab that dies in between leaves an order that is planned, or one
//! that goes on without it.

pub mod cli;
pub mod page;
mod read;
mod receivers;

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::audit::ledger::options;
use crate::say::Usage;

use receivers::Receivers;

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
