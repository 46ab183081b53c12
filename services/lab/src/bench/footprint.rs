//! What a node takes: time to its first page, memory idle and under load, the size of its program and of its image.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::Request;
use tokio::process::Command;
use tokio::time::sleep;

use super::http::Connection;
use super::offer::{Pace, What, offer};
use super::page::PAGES;
use super::sheet::{Unit, real};
use super::stage::{Scene, fast};
use super::{Course, Scenario, WAIT};
use crate::run::RunId;
use crate::stack::node::Service;

const LOOK_EVERY: Duration = Duration::from_millis(2);
const CONNECTIONS: usize = 64;
/// As Compose names them.
const IMAGES: [&str; 2] = ["unacked-sender", "unacked-receiver"];

/// All of it once.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let begun = Instant::now();
    let mut scene = course.stage.scene(0, 0, fast()).await?;
    for (path, service) in PAGES {
        for which in ["first start, which makes its tables", "later start"] {
            let took = first_page(&mut scene, service, path).await?;
            let name = format!("{} to its first page, {which}", service.name());
            let ms = took.as_secs_f64() * 1e3;
            course.sheet.add(Scenario::Footprint, &name, Unit::Ms, ms);
            if which.starts_with("first") {
                scene.scale(service, 0).await?;
            }
        }
    }
    scene.scale(Service::Receiver, 1).await?;
    sleep(course.size.idle).await;
    memory(course, &scene, "VmRSS:", "idle")?;

    let what = What::Messages {
        run: RunId::new(),
        batch: 1,
        size: course.size.text,
    };
    let pace = Pace::closed(CONNECTIONS, course.size.warm, course.size.window);
    let outcome = offer(scene.gateway()?, &what, pace).await?.all_right()?;
    scene.until_processed(outcome.right, WAIT).await?;
    memory(course, &scene, "VmHWM:", "most under full load")?;

    let program = fs::metadata("/proc/self/exe")?.len();
    let name = "program, both services and the lab in one";
    course
        .sheet
        .add(Scenario::Footprint, name, Unit::MiB, mib(program));
    for image in IMAGES {
        match image_size(image).await {
            Some(bytes) => course.sheet.add(
                Scenario::Footprint,
                &format!("image {image}"),
                Unit::MiB,
                mib(bytes),
            ),
            None => course.sheet.note(
                Scenario::Footprint,
                format!("not measured: the image {image} is not built here"),
            ),
        }
    }
    course.said(begun, "footprint");
    Ok(())
}

/// From before its process is started to its first whole page; the servers run already.
async fn first_page(
    scene: &mut Scene<'_>,
    service: Service,
    path: &'static str,
) -> Result<Duration> {
    let begun = Instant::now();
    let stage = scene.stage;
    let page = async {
        loop {
            let places = stage.places();
            let place = places.iter().find(|(of, _)| *of == service);
            if let Some((_, place)) = place {
                let mut connection = Connection::to(([127, 0, 0, 1], place.port).into())?;
                let mut request = Request::new(Full::default());
                *request.uri_mut() = hyper::Uri::from_static(path);
                if let Ok(answer) = connection.ask(request).await
                    && answer.status == 200
                {
                    return anyhow::Ok(begun.elapsed());
                }
            }
            sleep(LOOK_EVERY).await;
        }
    };
    let (took, scaled) = tokio::join!(page, scene.scale(service, 1));
    scaled?;
    took
}

/// Of each node, as the kernel has it.
fn memory(course: &mut Course<'_>, scene: &Scene<'_>, field: &str, when: &str) -> Result<()> {
    for node in &scene.status.nodes {
        let pid = node.program.pid.context("a node does not run")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = kib(&status, field).context("the kernel does not tell")?;
        let name = format!("{}, memory {when}", node.service.name());
        let mib = real(kib) / 1024.0;
        course.sheet.add(Scenario::Footprint, &name, Unit::MiB, mib);
    }
    Ok(())
}

/// `VmRSS:     5152 kB`
fn kib(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn mib(bytes: u64) -> f64 {
    real(bytes) / 1024.0 / 1024.0
}

/// None: no Docker, or no such image.
async fn image_size(name: &str) -> Option<u64> {
    let mut docker = Command::new("docker");
    docker.args(["image", "inspect", "--format", "{{.Size}}", name]);
    let output = docker.kill_on_drop(true).output().await.ok()?;
    if !output.status.success() {
        return None;
    }
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_words() {
        let status = "Name:\tlab\nVmHWM:\t    6000 kB\nVmRSS:\t    5152 kB\n";
        assert_eq!(kib(status, "VmRSS:"), Some(5_152));
        assert_eq!(kib(status, "VmHWM:"), Some(6_000));
        assert_eq!(kib(status, "VmSwap:"), None);
    }
}
