//! The life of the process: what is opened, what runs beside the pages, and how it ends.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::{Json, Router};
use daemon::lifecycle::Lifecycle;
use daemon::node::NodeArgs;
use daemon::parts::Parts;
use daemon::{WrongSetting, http, monitor, redis, telemetry};
use serde_json::json;
use web::session::Sessions;
use web::{About, Site};

use super::access::Door;
use super::actions::Actions;
use super::args::ConsoleArgs;
use super::guard::{Guard, guard};
use super::sign_in;
use crate::service::api::PATIENCE;
use crate::stack::dir;
use crate::up::Ends;

/// How long requests that have begun may take at the end.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// What it means for the readers of these pages that a server is away.
const MEANINGS: &[(&str, &str)] = &[
    (
        "postgres",
        "The balance and what is known of messages stand still.",
    ),
    (
        "redis",
        "Nodes announce nothing and knobs cannot be turned; messages flow as before.",
    ),
];

/// Serves until it is told to stop.
pub async fn run(root: &Path, args: &ConsoleArgs) -> Result<ExitCode> {
    match serve(root, args).await {
        Err(error) => match error.downcast::<WrongSetting>() {
            Ok(wrong) => Ok(wrong.report()),
            Err(error) => Err(error),
        },
        code => code,
    }
}

async fn serve(root: &Path, args: &ConsoleArgs) -> Result<ExitCode> {
    let node = Arc::new(NodeArgs::default().node("lab")?);
    args.check()?;
    telemetry::init(&args.telemetry, &node)?;
    let (parts, life) = (Parts::new(), Lifecycle::new(STOP_LIMIT));
    let database = args.database.open(&node, &parts)?;
    let pool = redis::connect(&args.redis)?;
    let mut ends = Ends::new()?;
    let listener = http::bind("LISTEN", &args.listen)?;
    dir::make_folder(root, 0o711)?;
    let root = root.canonicalize()?;
    monitor::watch_database(&database, &life);
    monitor::watch_redis(&pool, &parts.part("redis"), &life);

    let sessions = Sessions::new(pool.clone(), parts.part("redis"), &args.sessions)
        .with_prefix(&args.redis.redis_prefix);
    let site = Site::from(About {
        node,
        parts,
        sessions,
        meanings: MEANINGS,
        guarantees_off: Vec::new(),
    });
    let door = Door::new(args.token.clone());
    let keeper = Guard {
        door: door.clone(),
        actions: Actions::in_folder(&root),
        hosts: args.hosts.clone(),
    };
    let pages = Router::new().merge(sign_in::pages(door));
    let api = Router::new().route("/lab/api/health", get(health));
    let guarded = |routes: Router| routes.layer(from_fn_with_state(keeper.clone(), guard));
    let router = web::wrap(guarded(pages), guarded(api), site);
    http::serve_patiently(PATIENCE, listener, router, &life);
    let stopping = life.stopping();
    tokio::select! {
        () = ends.next() => {}
        () = stopping.cancelled() => {}
    }
    life.stop();
    Ok(life.finish().await)
}

/// It lives; what it misses is on its pages.
async fn health() -> Json<serde_json::Value> {
    Json(json!({ "live": true }))
}
