//! A lease queue over HTTP: a message is pushed, leased for a while by who works on it, and confirmed. One that is not confirmed
//! comes back when its lease ends.
//!
//! `api` is what programs say, `dead_letters` and `queues` what they and people see of it. Each deed (`push`, `lease`,
//! `hold`) is done by a `clerk`: many callers, one commit. `wait` waits for a message, `bell` rings, `reaper` clears
//! up. All state is in Postgres, and time is by its clock: a node may die at any line, and any number of them runs at once.

mod api;
mod app;
mod bell;
mod clerk;
pub mod config;
mod dead_letter;
mod dead_letters;
mod hold;
mod lease;
mod left;
mod message;
mod numbers;
mod push;
mod pushed;
mod queue;
mod queues;
mod reaper;
mod request;
mod tally;
mod wait;

use std::{process::ExitCode, sync::Arc};

use axum::{Router, middleware::from_fn};
use daemon::{lifecycle::Lifecycle, ops::Told, process::Process};
use tokio::net::TcpListener;

use crate::{
    app::App,
    bell::Bell,
    clerk::{Clerk, Deed, Desk, clerk},
    lease::Floors,
    tally::Tallies,
};
pub use config::Config;

/// Where it is behind the gateway. Behind its own port it is at the root too.
const PREFIX: &str = "/leases";

/// Runs a node until a signal, and gives its exit code: 0 clean, 1 failed, 2 a wrong setting.
pub fn main_with(config: &Config) -> ExitCode {
    let start = |listener, ops_listener, lifecycle: &Lifecycle| {
        run(config, listener, ops_listener, lifecycle)
    };
    config
        .process
        .run(&config.listen, &config.ops_listen, start)
}

/// Starts a node on the lifecycle. Servers that are away are waited for in the background.
///
/// # Errors
/// A wrong setting.
pub fn run(
    config: &Config,
    listener: TcpListener,
    ops_listener: TcpListener,
    lifecycle: &Lifecycle,
) -> anyhow::Result<()> {
    let process = config.process.begin("leases")?;
    numbers::register();
    web::numbers::register();
    let Process {
        node,
        parts,
        fail_points,
        database,
        redis,
        ..
    } = process.clone();
    let sessions = web::session::Sessions::new(redis, parts.part("redis"), &config.sessions)
        .with_prefix(&config.process.redis.redis_prefix);
    let pool = database.pool.clone();
    let stopping = lifecycle.stopping();

    let (tallies, floors, bell) = (Tallies::default(), Floors::default(), Bell::default());
    let (clock, teller) = bell::clock();
    let (shown, reader) = web::together();
    let clerks = Clerks {
        pool: &pool,
        fail_points: &fail_points,
        lifecycle,
    };
    let app = Arc::new(App {
        pool: pool.clone(),
        parts: parts.clone(),
        queues: queue::Queues::new(pool.clone()),
        pushing: clerks.employ(push::Pushing {
            tallies: tallies.clone(),
        }),
        leasing: clerks.employ(lease::Leasing {
            floors: floors.clone(),
            tallies: tallies.clone(),
        }),
        confirming: clerks.employ(hold::Confirming {
            tallies: tallies.clone(),
        }),
        extending: clerks.employ(hold::Extending),
        giving_back: clerks.employ(hold::GivingBack),
        bell: bell.clone(),
        clock,
        floors,
        shown,
        tally: daemon::tally::Tally::default(),
        stopping: stopping.clone(),
    });

    database.migrate_until_done(vec![sqlx::migrate!()], lifecycle);
    lifecycle.spawn("session index", sessions.clone().keep_index(stopping));
    let (own, name) = (pool.clone(), node.name.clone());
    database.spawn_when_migrated("tally", lifecycle, |stop| tallies.keep(own, name, stop));
    let own = pool.clone();
    database.spawn_when_migrated("bell", lifecycle, |stop| bell.run(own, stop));
    let own = pool.clone();
    database.spawn_when_migrated("reaper", lifecycle, |stop| reaper::run(own, stop));
    // These end when the last request that could ask is gone, which is after the stop.
    let own = pool.clone();
    lifecycle.spawn_once("next lease to end", async move {
        teller.run(own).await;
        Ok(())
    });
    lifecycle.spawn_once("queues", async move {
        reader.run(|| queue::all(&pool)).await;
        Ok(())
    });

    let told = Told {
        ready_needs: &["postgres"],
        without: Vec::new(),
        knobs: None,
        shared_knobs: None,
        settings: config.all.clone(),
    };
    process.watch_and_tell(ops_listener, told, lifecycle);
    let site = web::Site::from(web::About {
        node,
        parts,
        sessions,
        meanings: queues::MEANINGS,
        guarantees_off: Vec::new(),
    })
    .at("Leases", PREFIX, "/queues");
    daemon::http::serve(listener, router(app, site), lifecycle);
    Ok(())
}

fn router(app: Arc<App>, site: web::Site) -> Router {
    let (mut pages, mut api) = (Router::new(), Router::new());
    for prefix in ["", PREFIX] {
        pages = pages.merge(queues::pages(prefix));
        api = api
            .merge(api::routes(prefix))
            .merge(dead_letters::routes(prefix))
            .merge(queues::api(prefix));
    }
    let api = api.layer(from_fn(left::refuse_foreign));
    let (pages, api) = (pages.with_state(Arc::clone(&app)), api.with_state(app));
    web::wrap(pages, api, site).layer(from_fn(left::watch))
}

/// What all clerks need.
struct Clerks<'a> {
    pool: &'a sqlx::PgPool,
    fail_points: &'a chaos::FailPoints,
    lifecycle: &'a Lifecycle,
}

impl Clerks<'_> {
    /// Has a loop of its own do this deed, until nobody can ask for it any more.
    fn employ<D: Deed + 'static>(&self, deed: D) -> Desk<D> {
        let (desk, clerk): (Desk<D>, Clerk<D>) = clerk(deed, self.pool, self.fail_points);
        self.lifecycle.spawn_once(D::NAME, async move {
            clerk.run().await;
            Ok(())
        });
        desk
    }
}
