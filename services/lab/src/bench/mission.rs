//! The mission's settings: work of 0 to 5 s that fails one time in five. How many effects come of so many receivers, against
//! the best that can be.
//!
//! By Little's law: a slot is busy for the mean time of an attempt, and a message needs 1 / (1 - 1/5) attempts. So `s` slots
//! give `s * (4/5) / 2.5 s` effects a second, if none is ever idle. A failed message goes back to the queue at once and
//! takes a slot again. More messages wait all the time than there are slots.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::offer::{Pace, What, offer};
use super::sheet::{Unit, real, whole};
use super::stage::{Settings, fast};
use super::{Course, Scenario};
use crate::run::RunId;
use crate::stack::node::Service;

/// The receivers' default.
const SLOTS: u64 = 16;
const FAILS_ONE_IN: u64 = 5;

/// Effects a second of these slots, when none is ever idle.
fn theory(slots: u64, longest: Duration, fails_one_in: u64) -> f64 {
    let attempt = longest.as_secs_f64() / 2.0;
    let succeed = 1.0 - 1.0 / real(fails_one_in);
    real(slots) * succeed / attempt
}

fn settings(longest: Duration) -> Settings {
    let mut settings = fast();
    let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
    set("WORK_DELAY_MAX_MS", longest.as_millis().to_string());
    set("WORK_FAIL_ONE_IN", FAILS_ONE_IN.to_string());
    set("PREFETCH", SLOTS.to_string());
    settings
}

/// Each number of receivers once.
pub(super) async fn run(course: &mut Course<'_>) -> Result<()> {
    let (longest, time) = (course.size.mission_delay, course.size.mission_time);
    let mut scene = course.stage.scene(1, 0, settings(longest)).await?;
    for receivers in course.size.mission {
        let begun = Instant::now();
        let slots = SLOTS * *receivers as u64;
        let best = theory(slots, longest, FAILS_ONE_IN);
        // twice as many as can be done in the time, so that no slot is ever without work
        let attempts = (time + longest).div_duration_f64(longest / 2);
        let messages = slots * (2 + whole(attempts));
        let what = What::Messages {
            run: RunId::new(),
            batch: 1,
            size: course.size.text,
        };
        let to = scene.node(Service::Sender)?;
        offer(to, &what, Pace::total(8, messages))
            .await?
            .all_right()?;
        scene.scale(Service::Receiver, *receivers).await?;
        // until the slots are at different places of their work
        sleep(longest).await;
        let from = Instant::now();
        sleep(time).await;
        let window = from.elapsed();
        let effects = scene.book.effects_within(window).await?;
        scene.scale(Service::Receiver, 0).await?;
        let rate = real(effects) / window.as_secs_f64();
        let sheet = &mut *course.sheet;
        let name = format!("{receivers} receivers with {SLOTS} slots each");
        sheet.add(Scenario::Mission, &name, Unit::PerSecond, rate);
        let name = format!("{name}, in theory");
        sheet.add(Scenario::Mission, &name, Unit::PerSecond, best);
        if receivers == course.size.mission.last().unwrap_or(&0) {
            sheet.role("mission", course.round, rate);
            sheet.role("mission-theory", course.round, best);
            // the count of so many independent ones varies by its root
            let chance = 100.0 / real(effects.max(1)).sqrt();
            let note = format!(
                "{effects} effects were counted with {receivers} receivers: by chance alone the figure varies by {chance:.0} %"
            );
            sheet.note(Scenario::Mission, note);
        }
        let rate = Unit::PerSecond.show(rate);
        course.said(begun, &format!("mission, {receivers} receivers: {rate}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_optimum_follows_from_the_mean_time_and_the_failures() {
        // 16 slots, 2.5 s an attempt, 1.25 attempts a message
        let best = theory(16, Duration::from_secs(5), 5);
        assert!((best - 5.12).abs() < 1e-9, "{best}");
        assert!((theory(32, Duration::from_secs(5), 5) / best - 2.0).abs() < 1e-9);
    }
}
