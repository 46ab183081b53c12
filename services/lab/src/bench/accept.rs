//! How fast messages are accepted: by one sender itself, and through the gateway. The sender publishes meanwhile, as always;
//! nobody consumes.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Result;

use super::offer::{Outcome, Pace, What, offer};
use super::sheet::{Unit, real};
use super::stage::{Scene, fast};
use super::{Course, Scenario, WAIT};
use crate::run::RunId;
use crate::stack::node::Service;

pub(super) const ARRAY: u32 = 100;
const HALF_LOAD: usize = 64;

/// Each number of connections, then arrays, then half of the load.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let mut scene = course.stage.scene(1, 0, fast()).await?;
    let begun = Instant::now();
    let sender = scene.node(Service::Sender)?;
    let (mut most, mut at_half_load) = (0.0, 0.0);
    let connections = course.size.accept;
    for count in connections {
        let outcome = closed(course, &mut scene, sender, *count, 1).await?;
        let name = format!("one message a request, {count} connections");
        most = outcome.rate();
        if *count <= HALF_LOAD {
            at_half_load = outcome.rate();
        }
        if let (1, Some(times)) = (*count, outcome.latency()) {
            let p50 = real(times.p50);
            course.sheet.role("accept-alone-p50", course.round, p50);
        }
        put(course, &name, 1, &outcome);
    }
    course.sheet.role("accept", course.round, most);
    let few = connections
        .iter()
        .copied()
        .find(|count| *count >= 8)
        .unwrap_or(1);
    let outcome = closed(course, &mut scene, sender, few, ARRAY).await?;
    let rate = outcome.rate() * f64::from(ARRAY);
    course.sheet.role("accept-arrays", course.round, rate);
    let name = format!("arrays of {ARRAY}, {few} connections: messages");
    put(course, &name, ARRAY, &outcome);

    let most_connections = connections
        .iter()
        .copied()
        .filter(|count| *count <= HALF_LOAD)
        .max()
        .unwrap_or(1);
    let gateway = scene.gateway()?;
    let outcome = closed(course, &mut scene, gateway, most_connections, 1).await?;
    let name = format!("through the gateway, {most_connections} connections");
    put(course, &name, 1, &outcome);

    let what = messages(course.size.text, 1);
    let pace = Pace::open(most_connections, at_half_load / 2.0, course.size.window)
        .after(course.size.warm);
    let outcome = offer(sender, &what, pace).await?.all_right()?;
    let name = format!("half of the load, {most_connections} connections");
    put(course, &name, 1, &outcome);
    scene.until_published(WAIT).await?;
    course.said(begun, "accept");
    Ok(())
}

fn messages(size: usize, batch: u32) -> What {
    What::Messages {
        run: RunId::new(),
        batch,
        size,
    }
}

/// As fast as possible; comes back when everything is published, so that the next load has the machine to itself.
async fn closed(
    course: &mut Course<'_>,
    scene: &mut Scene<'_>,
    to: SocketAddr,
    connections: usize,
    batch: u32,
) -> Result<Outcome> {
    let what = messages(course.size.text, batch);
    let pace = Pace::closed(connections, course.size.warm, course.size.window);
    let before = scene.cpu();
    let outcome = offer(to, &what, pace).await?.all_right()?;
    scene.until_published(WAIT).await?;
    if connections == HALF_LOAD || batch > 1 {
        let split = scene.cpu().per(&before, outcome.right * u64::from(batch));
        let by = if to == scene.gateway()? {
            ", through the gateway"
        } else {
            ""
        };
        let load = format!("accept and publish, {batch} a request, {connections} connections{by}");
        course.sheet.budget(&load, &split);
    }
    Ok(outcome)
}

fn put(course: &mut Course<'_>, name: &str, batch: u32, outcome: &Outcome) {
    let rate = outcome.rate() * f64::from(batch);
    course
        .sheet
        .add(Scenario::Accept, name, Unit::PerSecond, rate);
    course
        .sheet
        .latency(Scenario::Accept, name, outcome.latency());
}
