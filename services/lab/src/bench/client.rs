//! What the load clients can do, where nothing but the gateway answers: far more than the system, or they are the limit.

use std::future::pending;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::offer::{Pace, What, offer};
use super::sheet::{Unit, real};
use super::stage::fast;
use super::{Course, Scenario};
use crate::load::schedule::Rate;
use crate::load::{self, Plan};
use crate::run::{Meta, RunDir, RunId};

const CONNECTIONS: usize = 64;
/// More than any client can.
const RATE: f64 = 50_000.0;

/// The client of the benchmark, and that of `lab load`.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let scene = course.stage.scene(0, 0, fast()).await?;
    let begun = Instant::now();
    let (size, window) = (course.size.text, course.size.window);
    let what = What::Nowhere {
        run: RunId::new(),
        size,
    };
    let pace = Pace::closed(CONNECTIONS, course.size.warm, window);
    let before = scene.cpu();
    let outcome = offer(scene.gateway()?, &what, pace).await?.all_right()?;
    let split = scene.cpu().per(&before, outcome.right);
    let sheet = &mut *course.sheet;
    let name = "this benchmark's, 64 connections";
    sheet.add(Scenario::Client, name, Unit::PerSecond, outcome.rate());
    sheet.latency(Scenario::Client, name, outcome.latency());
    sheet.budget("load client, answered by the gateway", &split);
    sheet.role("client", course.round, outcome.rate());

    let rate = by_load(course, &scene, window).await?;
    let name = "that of `lab load`, 64 connections";
    course
        .sheet
        .add(Scenario::Client, name, Unit::PerSecond, rate);
    course.said(begun, "client");
    Ok(())
}

/// Requests that `lab load` had answered a second.
async fn by_load(
    course: &Course<'_>,
    scene: &super::stage::Scene<'_>,
    window: Duration,
) -> Result<f64> {
    let mut sight = scene.sight()?;
    // the gateway itself answers below this path: 404, a refusal that is not repeated
    sight.gateway.push_str("/nowhere");
    let id = RunId::new();
    let meta = Meta::new(id.clone(), "bench", 1, &sight.gateway);
    let run = RunDir::create(course.stage.root(), id, &meta)?;
    let plan = Plan {
        rate: Rate::Constant(RATE),
        length: Some(window),
        connections: CONNECTIONS,
        size: course.size.text,
        patience: window,
        ..Plan::default()
    };
    let summary = load::run(&plan, &sight, &run, |_| {}, pending()).await;
    let removed = std::fs::remove_dir_all(run.path(""));
    let summary = summary?;
    removed?;
    let answered = summary.counts.refused - summary.counts.never_sent;
    Ok(real(answered) / summary.answering_secs.max(1e-9))
}
