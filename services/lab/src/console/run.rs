//! The life of the process: what is opened, what runs beside the pages, and how it ends.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ::live::Listener;
use anyhow::Result;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::{Json, Router};
use daemon::lifecycle::Lifecycle;
use daemon::node::NodeArgs;
use daemon::parts::Parts;
use daemon::{WrongSetting, http, monitor, redis, telemetry};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use web::session::Sessions;
use web::{About, Site};

use super::access::Door;
use super::actions::Actions;
use super::app::{App, Inner};
use super::args::ConsoleArgs;
use super::balance::{Balances, Ledger};
use super::eye::Eye;
use super::feed::Feed;
use super::ground::Ground;
use super::guard::{Guard, guard};
use super::hear::Heard;
use super::history::History;
use super::knobs::Knobs;
use super::load::Loads;
use super::picture::{Healing, Picture};
use super::rooms::Rooms;
use super::{deeds, experiments, lab, live, sign_in};
use crate::service::api::{App as Experiments, PATIENCE};
use crate::service::book::Book;
use crate::service::director::Director;
use crate::service::offers;
use crate::stack::dir;
use crate::stack::install::{self, NGINX};
use crate::stack::servers::Given;
use crate::up::Ends;

/// How long what has begun may take at the end: a load waits five seconds for its last answers.
const STOP_LIMIT: Duration = Duration::from_secs(10);
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
    let door = Door::new(args.token.clone(), args.sessions.session_secure);
    let keeper = Guard {
        door: door.clone(),
        actions: Actions::in_folder(&root),
        hosts: args
            .hosts
            .iter()
            .filter(|host| !host.is_empty())
            .cloned()
            .collect(),
    };
    let stopping = life.stopping();
    let book = Arc::new(Book::default());
    // one run at a time, so one order at a time
    let (orders, mut ordered) = mpsc::channel(1);
    let offers = offers::all(&[], args.max)?;
    let experiments = Experiments::new(
        root.clone(),
        offers,
        Arc::clone(&book),
        orders,
        life.clone(),
    );
    let (told, balances) = watch::channel(Balances::default());
    let (shown, picture) = watch::channel(Arc::new(Picture::default()));
    let app = App::from(Inner {
        ground: Ground::new(&root, &args.elsewhere),
        pool: database.pool.clone(),
        knobs: Knobs::new(pool.clone(), &args.redis.redis_prefix, &root),
        feed: Feed::default(),
        heard: Heard::new(Listener::start(&args.redis, &life)),
        history: History::default(),
        loads: Loads::new(life.clone()),
        healing: Healing::default(),
        balances,
        picture,
        experiments,
        no_experiments: no_experiments(),
        stopping: stopping.clone(),
        life: life.clone(),
        root: root.clone(),
    });
    let ledger = Ledger::new(database.pool.clone(), root.clone());
    life.spawn("balance", ledger.run(told, stopping.clone()));
    let hearing = app.heard.clone().listen(app.feed.clone(), stopping.clone());
    life.spawn("announcements", hearing);
    life.spawn("eye", Eye::new(app.clone(), shown).run(stopping.clone()));

    let rooms = Rooms::new(
        &args.rooms,
        &args.database.database_url,
        database.pool.clone(),
        &root,
        &args.elsewhere,
        &life,
    )?;
    let router = web::wrap(
        pages(&app, &rooms, door, &keeper),
        api(&app, &rooms, &keeper),
        site,
    );
    http::serve_patiently(PATIENCE, listener, router, &life);
    let mut director = Director::new(root, Arc::clone(&book));
    tokio::select! {
        () = director.direct(&mut ordered) => {}
        () = ends.next() => {}
        () = stopping.cancelled() => {}
    }
    book.close();
    tokio::select! {
        () = director.close() => {}
        () = ends.next() => director.abort().await,
    }
    book.interrupt("the console was stopped");
    life.stop();
    Ok(life.finish().await)
}

/// All pages, behind the guard.
fn pages(app: &App, rooms: &Rooms, door: Door, keeper: &Guard) -> Router {
    let routes = Router::new()
        .merge(sign_in::pages(door))
        .merge(lab::pages(app.clone()))
        .merge(experiments::pages(app.clone()))
        .merge(deeds::pages(app.clone()))
        .merge(rooms.pages());
    routes.layer(from_fn_with_state(keeper.clone(), guard))
}

/// All of the API, behind the guard.
fn api(app: &App, rooms: &Rooms, keeper: &Guard) -> Router {
    let routes = Router::new()
        .route("/lab/api/health", get(health))
        .merge(live::api(app.clone()))
        .merge(experiments::api(app))
        .merge(deeds::api(app.clone()))
        .merge(rooms.api());
    routes.layer(from_fn_with_state(keeper.clone(), guard))
}

/// Everything that is posted under `/lab`, or asked for with another method that it names.
pub fn all_deeds() -> Vec<&'static str> {
    let own = [sign_in::DEEDS, &deeds::paths(), experiments::DEEDS].concat();
    [own, Rooms::deeds()].concat()
}

/// An experiment needs the servers' programs on this machine.
fn no_experiments() -> Option<String> {
    let mut needed = Given::default().needed();
    needed.push(NGINX);
    let missing = needed.iter().any(|program| install::path(program).is_err());
    missing.then(|| {
        "the servers' programs are not installed here; on a machine that has them, or with Docker, `lab experiment run` plays it".to_owned()
    })
}

/// It lives; what it misses is on its pages.
async fn health() -> Json<serde_json::Value> {
    Json(json!({ "live": true }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::all_deeds;

    fn sources(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, all);
            } else {
                all.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }

    /// Every deed is tried without a token by `tests/it/console/guard.rs`; so none may be missing in the list.
    #[test]
    fn every_route_that_does_something_is_listed_as_a_deed() {
        let mut text = String::new();
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for room in ["console", "dead", "passport", "search"] {
            sources(&here.join(room), &mut text);
        }
        text.push_str(&fs::read_to_string(here.join("service/api.rs")).unwrap());
        let text: String = text.split_whitespace().collect();
        let mut found = BTreeSet::new();
        for route in text.split(".route(\"").skip(1) {
            let (path, rest) = route.split_once('"').unwrap();
            let mut depth = 1;
            let end = rest.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            let handlers = &rest[..end.unwrap()];
            // whoever signs in has no session yet
            if !path.starts_with("/lab") || path == super::super::guard::SIGN_IN {
                continue;
            }
            for (method, name) in [("POST", "post("), ("DELETE", "delete("), ("PUT", "put(")] {
                if handlers.contains(name) {
                    found.insert(format!("{method} {path}"));
                }
            }
        }
        assert!(found.len() > 10, "{found:?}");
        let listed: BTreeSet<String> = all_deeds()
            .into_iter()
            .map(|deed| match deed.split_once(' ') {
                Some(_) => deed.to_owned(),
                None => format!("POST {deed}"),
            })
            .collect();
        let missing: Vec<_> = found.difference(&listed).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
