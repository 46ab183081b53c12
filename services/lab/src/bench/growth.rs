//! What work costs when much lies behind: rows, sessions; and with more receivers. Each against itself with the least.
//!
//! The rows behind are made by SQL, as large as those that are offered and in the order of time. What is measured adds to
//! them, so the least is somewhat more than it is called.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::book::Texts;
use super::drain::drain;
use super::offer::{Pace, What, offer};
use super::page::{PAGES, ask, cookies, visit};
use super::sheet::{Unit, median};
use super::stage::{Scene, fast};
use super::{Course, Scenario, WAIT};
use crate::audit::ledger::Ledger;
use crate::audit::{self, Circumstances, Verdict};
use crate::load::schedule::Rate;
use crate::load::{self, Plan};
use crate::run::{Meta, RunDir, RunId};
use crate::stack::node::Service;

/// How often each is measured while the same rows lie behind.
const TIMES: usize = 2;
const AUDITED: u64 = 2_000;
/// One takes some 30 ms, which anything else on the machine may double.
const AUDITS: usize = 9;
const RECEIVERS: usize = 2;
/// Two years.
const WINDOW_SECS: u64 = 2 * 365 * 86_400;

/// Rows, sessions, receivers.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let mut settings = fast();
    // the rows behind are a year old, and are to stay
    settings.insert("INBOX_WINDOW_SECS".to_owned(), WINDOW_SECS.to_string());
    let mut scene = course.stage.scene(1, 1, settings).await?;
    let least = course.size.rows.first().copied();
    let most = course.size.rows.last().copied();
    for rows in course.size.rows {
        let begun = Instant::now();
        let text = course.size.text;
        scene.book.fill(*rows, text, Texts::Alike).await?;
        course.said(begun, &format!("growth: {rows} rows made"));
        let begun = Instant::now();
        for time in 0..TIMES.min(course.rounds) {
            Box::pin(behind(course, &mut scene, *rows, time, least, most)).await?;
        }
        course.said(begun, &format!("growth: {rows} rows behind"));
    }
    let begun = Instant::now();
    scene.scale(Service::Receiver, 0).await?;
    for receivers in course.size.growing {
        let drained = drain(&mut scene, course.size.drain, course.size.text, *receivers).await?;
        let name = format!("drain, {receivers} receivers");
        let rate = drained.effects.rate();
        course
            .sheet
            .add(Scenario::Growth, &name, Unit::PerSecond, rate);
    }
    course.said(begun, "growth: receivers");
    // on other nodes: from here on these are gone
    Box::pin(sessions(course)).await
}

/// Everything once, with so many rows behind.
async fn behind(
    course: &mut Course<'_>,
    scene: &mut Scene<'_>,
    rows: u64,
    time: usize,
    least: Option<u64>,
    most: Option<u64>,
) -> Result<()> {
    let mut measured = Vec::new();
    for ((path, service), roles) in PAGES.into_iter().zip([
        ["home-few", "home-behind"],
        ["received-few", "received-behind"],
    ]) {
        let to = scene.node(service)?;
        let cookies = cookies(to, path, course.size.pages).await?;
        let outcome = ask(course, to, path, course.size.pages, cookies).await?;
        measured.push((format!("GET {path}"), outcome.rate(), roles));
    }
    let took = audited(course, scene).await?;
    let what = What::Messages {
        run: RunId::new(),
        batch: 1,
        size: course.size.text,
    };
    let pace = Pace::closed(course.size.pages, course.size.warm, course.size.window);
    let before = scene.processed().await?;
    let to = scene.node(Service::Sender)?;
    let outcome = offer(to, &what, pace).await?.all_right()?;
    scene.until_processed(before + outcome.right, WAIT).await?;
    let name = format!("accept, {} connections", course.size.pages);
    measured.push((name, outcome.rate(), ["accept-few", "accept-behind"]));
    scene.scale(Service::Receiver, 0).await?;
    let drained = drain(scene, course.size.small, course.size.text, RECEIVERS).await?;
    scene.scale(Service::Receiver, 1).await?;
    let name = format!("drain, {RECEIVERS} receivers");
    let roles = ["drain-few", "drain-behind"];
    measured.push((name, drained.effects.rate(), roles));

    let sheet = &mut *course.sheet;
    let mut role = |[few, behind]: [&'static str; 2], value| {
        if Some(rows) == least {
            sheet.role(few, time, value);
        }
        if Some(rows) == most {
            sheet.role(behind, time, value);
        }
    };
    role(["audit-few", "audit-behind"], took);
    for (_, rate, roles) in &measured {
        role(*roles, *rate);
    }
    for (name, rate, _) in measured {
        let name = format!("{name}, {rows} rows behind");
        sheet.add(Scenario::Growth, &name, Unit::PerSecond, rate);
    }
    let name = format!("audit of {AUDITED} messages, {rows} rows behind");
    sheet.add(Scenario::Growth, &name, Unit::Ms, took);
    Ok(())
}

/// Milliseconds that an audit of one run takes, the median of some. The run must pass.
async fn audited(course: &Course<'_>, scene: &Scene<'_>) -> Result<f64> {
    let sight = scene.sight()?;
    let id = RunId::new();
    let mut meta = Meta::new(id.clone(), "bench", 1, &sight.gateway);
    meta.stack = sight.facts().await;
    let run = RunDir::create(course.stage.root(), id, &meta)?;
    let plan = Plan {
        rate: Rate::Constant(1_000.0),
        total: Some(AUDITED / 10),
        batch: 10,
        size: course.size.text,
        ..Plan::default()
    };
    let before = scene.processed().await?;
    let summary = load::run(&plan, &sight, &run, |_| {}, std::future::pending()).await?;
    ensure!(
        summary.counts.accepted == AUDITED / 10,
        "{} of {} requests of a run were accepted",
        summary.counts.accepted,
        AUDITED / 10
    );
    scene.until_processed(before + AUDITED, WAIT).await?;
    let circumstances = Circumstances {
        drained: true,
        stuck: false,
        doubts: Vec::new(),
        broken: Vec::new(),
        dead_max: 0,
    };
    let ledger = Ledger::new(&sight.auditor_url)?;
    let mut times = Vec::new();
    for _ in 0..AUDITS {
        let begun = Instant::now();
        let report = audit::audit(&ledger, &run, &circumstances).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(
            report.verdict == Verdict::Pass,
            "the audit of a run says {}: {}",
            report.verdict,
            report.reasons.join("; ")
        );
    }
    std::fs::remove_dir_all(run.path("")).context("cannot remove a run")?;
    median(&times).context("no audit was measured")
}

/// The page of the senders, with so many sessions.
async fn sessions(course: &mut Course<'_>) -> Result<()> {
    let scene = course.stage.scene(1, 1, fast()).await?;
    let to = scene.node(Service::Sender)?;
    let pages = course.size.pages;
    // those of the visitors that are measured
    let cookies = cookies(to, "/", pages).await?;
    let mut there = 0;
    for count in course.size.sessions {
        let begun = Instant::now();
        visit(&scene, pages, count - there).await?;
        there = *count;
        for time in 0..TIMES.min(course.rounds) {
            let outcome = ask(course, to, "/", pages, cookies.clone()).await?;
            let name = format!("GET /, {count} sessions and {pages} more");
            let rate = outcome.rate();
            course
                .sheet
                .add(Scenario::Growth, &name, Unit::PerSecond, rate);
            if course.size.sessions.first() == Some(count) {
                course.sheet.role("sessions-few", time, rate);
            }
            if course.size.sessions.last() == Some(count) {
                course.sheet.role("sessions-many", time, rate);
            }
        }
        course.said(begun, &format!("growth: {count} sessions"));
    }
    Ok(())
}
