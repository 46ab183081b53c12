//! How fast the two pages are, each with 20 rows: of one node itself, and through the gateway.
//!
//! With a session: each connection has its own cookie. Without: nobody brings one, so each answer makes a new session.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result};
use hyper::header::{HeaderValue, SET_COOKIE};
use hyper::{Request, Uri};

use super::http::Connection;
use super::offer::{Outcome, Pace, What, offer};
use super::sheet::Unit;
use super::stage::{Scene, fast};
use super::{Course, Scenario, WAIT};
use crate::run::RunId;
use crate::stack::node::Service;

const ROWS: u64 = 20;
/// The page of the senders, and that of the receivers.
pub(super) const PAGES: [(&str, Service); 2] =
    [("/", Service::Sender), ("/received", Service::Receiver)];

/// Both pages, with a session, without, and through the gateway.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let scene = course.stage.scene(1, 1, fast()).await?;
    let begun = Instant::now();
    let what = What::Messages {
        run: RunId::new(),
        batch: 1,
        size: course.size.text,
    };
    let sent = offer(scene.gateway()?, &what, Pace::total(1, ROWS)).await?;
    sent.all_right()?;
    scene.until_processed(ROWS, WAIT).await?;
    let connections = course.size.pages;
    for (path, service) in PAGES {
        let node = scene.node(service)?;
        let ways = [
            ("with a session", node, true),
            ("without", node, false),
            (
                "with a session, through the gateway",
                scene.gateway()?,
                true,
            ),
        ];
        for (way, to, session) in ways {
            let cookies = if session {
                cookies(to, path, connections).await?
            } else {
                Vec::new()
            };
            let before = scene.cpu();
            let outcome = ask(course, to, path, connections, cookies).await?;
            let split = scene.cpu().per(&before, outcome.right);
            let name = format!("GET {path} {way}, {connections} connections");
            let sheet = &mut *course.sheet;
            sheet.add(Scenario::Page, &name, Unit::PerSecond, outcome.rate());
            sheet.latency(Scenario::Page, &name, outcome.latency());
            sheet.budget(&format!("GET {path} {way}"), &split);
        }
    }
    course.said(begun, "page");
    Ok(())
}

/// As fast as possible.
pub(super) async fn ask(
    course: &Course<'_>,
    to: SocketAddr,
    path: &'static str,
    connections: usize,
    cookies: Vec<HeaderValue>,
) -> Result<Outcome> {
    let what = What::Page {
        path: Uri::from_static(path),
        cookies,
    };
    let pace = Pace::closed(connections, course.size.warm, course.size.window);
    offer(to, &what, pace).await?.all_right()
}

/// So many new sessions.
pub(super) async fn cookies(
    to: SocketAddr,
    path: &'static str,
    count: usize,
) -> Result<Vec<HeaderValue>> {
    let mut connection = Connection::to(to)?;
    let mut cookies = Vec::new();
    for _ in 0..count {
        let mut request = Request::new(http_body_util::Full::default());
        *request.uri_mut() = Uri::from_static(path);
        let answer = connection.ask(request).await?;
        let cookie = answer.headers.get(SET_COOKIE);
        let cookie = cookie.context("a new visitor got no session")?.to_str()?;
        let cookie = cookie.split(';').next().unwrap_or_default();
        cookies.push(HeaderValue::try_from(cookie)?);
    }
    Ok(cookies)
}

/// So many sessions more, by visits without a cookie.
pub(super) async fn visit(scene: &Scene<'_>, connections: usize, sessions: u64) -> Result<()> {
    let what = What::Page {
        path: Uri::from_static("/"),
        cookies: Vec::new(),
    };
    let to = scene.node(Service::Sender)?;
    offer(to, &what, Pace::total(connections, sessions))
        .await?
        .all_right()?;
    Ok(())
}
