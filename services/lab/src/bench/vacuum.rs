//! A long run at half of what the pipeline can: whether the tables that only pass work through stay small, and whether
//! anything gets slower meanwhile. Only with `--long`.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::offer::{Pace, What, offer};
use super::sheet::{Unit, median, real};
use super::stage::fast;
use super::{Course, Scenario, WAIT};
use crate::load::Latency;
use crate::run::RunId;

const CONNECTIONS: usize = 256;
/// How often the tables are looked at.
const PART: Duration = Duration::from_mins(1);
/// The inbox is to be emptied all the time, not only a day later.
const WINDOW_SECS: u64 = 60;
const TABLES: [&str; 2] = ["sender.outbox", "receiver.inbox"];

/// Minute by minute.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let name = "one message a request: highest rate held";
    let found = course
        .sheet
        .figures
        .iter()
        .find(|figure| figure.scenario == Scenario::Pipeline && figure.name == name)
        .and_then(|figure| median(&figure.values));
    let rate = found.unwrap_or(0.0) / 2.0;
    ensure!(rate > 0.0, "the pipeline's highest rate was not measured");
    let (senders, receivers) = (course.senders, course.receivers);
    let mut settings = fast();
    settings.insert("INBOX_WINDOW_SECS".to_owned(), WINDOW_SECS.to_string());
    let mut scene = course.stage.scene(senders, receivers, settings).await?;
    let begun = Instant::now();
    let parts = course.size.vacuum.as_secs() / PART.as_secs();
    for part in 1..=parts {
        let (run, from) = (RunId::new(), Instant::now());
        let what = What::Messages {
            run: run.clone(),
            batch: 1,
            size: course.size.text,
        };
        let before = scene.processed().await?;
        let pace = Pace::open(CONNECTIONS, rate, PART);
        let outcome = offer(scene.gateway()?, &what, pace).await?.all_right()?;
        scene.until_processed(before + outcome.right, WAIT).await?;
        let times = scene.book.latencies(&run).await?;
        let minute = match part {
            _ if part * 3 <= parts => "first third",
            _ if part * 3 > parts * 2 => "last third",
            _ => "middle third",
        };
        let sheet = &mut *course.sheet;
        let name = format!("{minute}, accepted to effect");
        sheet.latency(Scenario::Vacuum, &name, Latency::of(&times));
        for table in TABLES {
            let bytes = scene.book.size(table).await?;
            let (dead, vacuums) = scene.book.dead_rows(table).await?;
            let name = format!("{minute}, {table}");
            let mib = real(bytes) / 1024.0 / 1024.0;
            let size = format!("{name}, size");
            sheet.add(Scenario::Vacuum, &size, Unit::MiB, mib);
            let rows = format!("{name}, dead rows");
            sheet.add(Scenario::Vacuum, &rows, Unit::Count, real(dead));
            let often = format!("{name}, vacuumed so far");
            sheet.add(Scenario::Vacuum, &often, Unit::Count, real(vacuums));
        }
        course.said(from, &format!("vacuum: minute {part} of {parts}"));
    }
    let note = format!(
        "{} a second all the time; the inbox keeps {WINDOW_SECS} s",
        Unit::Count.show(rate)
    );
    course.sheet.note(Scenario::Vacuum, note);
    course.said(begun, "vacuum");
    Ok(())
}
