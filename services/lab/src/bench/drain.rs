//! How fast waiting messages are worked off: no delay, no failure, from the first effect to the last one.
//!
//! The messages are accepted and published as always, while there is no receiver. Then receivers are started. What they
//! need to start is not counted: by the database's clock, time begins with the first effect.

use std::time::Instant;

use anyhow::Result;

use super::accept::ARRAY;
use super::book::Effects;
use super::cpu::Cpu;
use super::offer::{Pace, What, offer};
use super::sheet::Unit;
use super::stage::{Scene, fast};
use super::{Course, Scenario, WAIT};
use crate::run::RunId;
use crate::stack::node::Service;

/// Connections that fill the queue.
const FILLING: usize = 8;

/// Each number of receivers once, in another order each round.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let mut scene = course.stage.scene(1, 0, fast()).await?;
    let begun = Instant::now();
    let mut order = course.size.receivers.to_vec();
    if course.round % 2 == 1 {
        order.reverse();
    }
    let mut best: f64 = 0.0;
    let mut rates = Vec::new();
    for receivers in order {
        let drained = drain(&mut scene, course.size.drain, course.size.text, receivers).await?;
        let rate = drained.effects.rate();
        course.sheet.add(
            Scenario::Drain,
            &format!("{receivers} receivers"),
            Unit::PerSecond,
            rate,
        );
        let load = format!("drain, {receivers} receivers");
        course.sheet.budget(&load, &drained.split);
        best = best.max(rate);
        rates.push((receivers, rate));
    }
    course.sheet.role("drain", course.round, best);
    if let Some((_, rate)) = rates.iter().max_by_key(|(receivers, _)| *receivers) {
        course.sheet.role("drain-most", course.round, *rate);
    }
    let count = course.size.drain;
    let note = format!("{count} messages wait each time");
    course.sheet.note(Scenario::Drain, note);
    course.said(begun, "drain");
    Ok(())
}

/// What one drain came to.
pub(super) struct Drained {
    pub(super) effects: Effects,
    /// Microseconds for each message.
    pub(super) split: Vec<(&'static str, f64)>,
}

/// Fills the queue and has it worked off.
pub(super) async fn drain(
    scene: &mut Scene<'_>,
    count: u64,
    text: usize,
    receivers: usize,
) -> Result<Drained> {
    let run = RunId::new();
    let requests = count.div_ceil(u64::from(ARRAY));
    let what = What::Messages {
        run: run.clone(),
        batch: ARRAY,
        size: text,
    };
    let to = scene.node(Service::Sender)?;
    offer(to, &what, Pace::total(FILLING, requests))
        .await?
        .all_right()?;
    scene.until_published(WAIT).await?;
    let count = requests * u64::from(ARRAY);
    let before: Cpu = scene.cpu();
    scene.begin_scale(Service::Receiver, receivers).await?;
    scene.until_processed(count, WAIT).await?;
    let split = scene.cpu().per(&before, count);
    // the last effects were committed before they were counted
    let effects = scene.book.effects(&run, count).await?;
    scene.scale(Service::Receiver, 0).await?;
    Ok(Drained { effects, split })
}
