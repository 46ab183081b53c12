//! Percentiles as a picture.

use anyhow::Result;
use askama::Template;

use super::charts::{Chart, FOOT, Picture, ROW, TOP, Text, WIDTHS, time_ticks};
use super::course::Series;
use crate::load::Latency;
use crate::say::time;

/// Percentiles on a logarithmic line, a row each.
pub(super) fn percentiles(rows: &[(&'static str, Latency)]) -> Result<Chart> {
    let all = rows
        .iter()
        .flat_map(|(_, times)| parts(times).map(|(_, us)| us));
    let points: Vec<(f64, Option<f64>)> = all.map(|us| (0.0, Some(us))).collect();
    let (ticks, low, high) = time_ticks(&[Series {
        points,
        ..Series::default()
    }]);
    let mut svg = String::new();
    for (class, width) in WIDTHS {
        let x = |us: f64| {
            let part = (us / low).ln() / (high / low).ln();
            12.0 + part.clamp(0.0, 1.0) * (width - 12.0 - 30.0)
        };
        let height = ROW + 20.0;
        #[expect(clippy::cast_precision_loss, reason = "a picture has few rows")]
        let row = |nth: usize| TOP + nth as f64 * height;
        let bottom = row(rows.len());
        let mut picture = Picture {
            class,
            label: "Percentiles of the times".to_owned(),
            width,
            height: bottom + FOOT,
            bottom,
            ..Picture::default()
        };
        for (value, text) in ticks.clone() {
            picture.marks.push((x(value), TOP));
            picture.texts.push(Text {
                class: "tick",
                anchor: "middle",
                x: x(value),
                y: bottom + 16.0,
                said: text,
            });
        }
        for (nth, (name, times)) in rows.iter().enumerate() {
            let y = row(nth);
            let text = (*name).to_owned();
            picture.texts.push(Text {
                class: "name",
                anchor: "start",
                x: 2.0,
                y: y + 11.0,
                said: text,
            });
            let places = parts(times).map(|(name, us)| (name, us, x(us)));
            let span = format!("M{:.1} {:.1}H{:.1}", places[0].2, y + 42.0, places[4].2);
            picture.lines.push(("span", span));
            let mut free = f64::NEG_INFINITY;
            for (name, us, at) in places {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "it was one"
                )]
                let title = format!("{name}: {}", time(us as u64));
                picture.dots.push((at, y + 42.0, title));
                // names that would lie on each other are left out; the table has them all
                if at > free {
                    picture.texts.push(Text {
                        class: "tick",
                        anchor: "middle",
                        x: at,
                        y: y + 32.0,
                        said: name.to_owned(),
                    });
                    free = at + 34.0;
                }
            }
        }
        svg += &picture.render()?;
    }
    Ok(Chart {
        title: "Percentiles",
        unit: "",
        legend: Vec::new(),
        svg,
    })
}

fn parts(times: &Latency) -> [(&'static str, f64); 5] {
    let names = ["p50", "p90", "p99", "p99.9", "max"];
    let times = [times.p50, times.p90, times.p99, times.p99_9, times.max];
    let mut parts = names.map(|name| (name, 0.0));
    for (part, us) in parts.iter_mut().zip(times) {
        #[expect(clippy::cast_precision_loss, reason = "for a picture")]
        let us = us.max(1) as f64;
        part.1 = us;
    }
    parts
}
