//! Charts as SVG of our own: small, without scripts, in the page's colours. Each is drawn twice, for wide and for narrow
//! screens, because letters in a picture shrink with it; the style sheet shows one.

use std::fmt::Write as _;

use anyhow::Result;
use askama::Template;

use super::course::{Series, Shade};
use crate::say::grouped;

pub(super) const WIDTHS: [(&str, f64); 2] = [("wide", 1_000.0), ("narrow", 350.0)];
pub(super) const LEFT: f64 = 52.0;
pub(super) const RIGHT: f64 = 14.0;
pub(super) const TOP: f64 = 8.0;
pub(super) const FOOT: f64 = 22.0;
pub(super) const BODY: f64 = 132.0;
/// Of a row in the timeline and among the percentiles.
pub(super) const ROW: f64 = 34.0;

/// How values become heights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Count,
    /// Microseconds, logarithmic.
    Time,
}

/// A chart with its name and its legend.
#[derive(Debug, Clone)]
pub struct Chart {
    pub title: &'static str,
    pub unit: &'static str,
    /// Names and classes of the lines.
    pub legend: Vec<(&'static str, &'static str)>,
    /// Both pictures.
    pub svg: String,
}

#[derive(Debug, Default, Template)]
#[template(path = "chart.svg", escape = "html")]
pub(super) struct Picture {
    pub(super) class: &'static str,
    pub(super) label: String,
    pub(super) width: f64,
    pub(super) height: f64,
    /// Where lines of the grid end.
    pub(super) right: f64,
    pub(super) bottom: f64,
    pub(super) blocks: Vec<Block>,
    pub(super) grid: Vec<f64>,
    pub(super) marks: Vec<(f64, f64)>,
    pub(super) texts: Vec<Text>,
    pub(super) lines: Vec<(&'static str, String)>,
    pub(super) dots: Vec<(f64, f64, String)>,
}

#[derive(Debug)]
pub(super) struct Block {
    pub(super) class: &'static str,
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) title: String,
}

#[derive(Debug)]
pub(super) struct Text {
    pub(super) class: &'static str,
    pub(super) anchor: &'static str,
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) said: String,
}

/// Lines over time, the faults behind them. `top` and `end` make two charts comparable.
pub fn lines(
    (title, unit): (&'static str, &'static str),
    series: &[Series],
    scale: Scale,
    faults: &[Shade],
    (end, top): (f64, f64),
) -> Result<Chart> {
    let mut svg = String::new();
    for (class, width) in WIDTHS {
        let bottom = TOP + BODY;
        let x = across(width, end);
        let (ticks, low, high) = match scale {
            Scale::Count => count_ticks(top),
            Scale::Time => time_ticks(series),
        };
        let y = |value: f64| {
            let part = match scale {
                Scale::Count => (value - low) / (high - low),
                Scale::Time => (value / low).ln() / (high / low).ln(),
            };
            bottom - part.clamp(0.0, 1.0) * BODY
        };
        let mut picture = Picture {
            class,
            label: format!("{title}, {unit}"),
            width,
            height: bottom + FOOT,
            right: width - RIGHT,
            bottom,
            ..Picture::default()
        };
        for fault in faults {
            picture.shade(fault, &x, end);
        }
        for (value, text) in ticks {
            picture.grid.push(y(value));
            picture.texts.push(Text {
                class: "tick",
                anchor: "end",
                x: LEFT - 7.0,
                y: y(value) + 4.0,
                said: text,
            });
        }
        picture.seconds(&x, end);
        for line in series {
            picture.lines.push((line.class, path(&line.points, &x, y)));
        }
        svg += &picture.render()?;
    }
    let legend = series.iter().map(|line| (line.name, line.class)).collect();
    Ok(Chart {
        title,
        unit,
        legend,
        svg,
    })
}

/// The highest value: what `top` of [`lines`] should be at least.
pub fn top(series: &[Series]) -> f64 {
    let points = series.iter().flat_map(|series| &series.points);
    points.filter_map(|(_, value)| *value).fold(0.0, f64::max)
}

impl Picture {
    /// A fault, from top to bottom.
    pub(super) fn shade(&mut self, fault: &Shade, x: &impl Fn(f64) -> f64, end: f64) {
        let Some(from) = fault.from else { return };
        self.blocks.push(Block {
            class: "shade",
            x: x(from),
            y: TOP,
            width: (x(fault.to.unwrap_or(end)) - x(from)).max(1.0),
            height: self.bottom - TOP,
            title: fault.sentence.clone(),
        });
    }

    /// Time, along the bottom.
    pub(super) fn seconds(&mut self, x: &impl Fn(f64) -> f64, end: f64) {
        let most = if self.width > 500.0 { 10.0 } else { 4.0 };
        let steps = [
            1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0,
        ];
        let days = [7_200.0, 21_600.0, 43_200.0, 86_400.0];
        let mut steps = steps.into_iter().chain(days);
        let step = steps.find(|step| end / step <= most).unwrap_or(86_400.0);
        let mut at = 0.0;
        while at <= end {
            let text = clock(at, step);
            self.texts.push(Text {
                class: "tick",
                anchor: "middle",
                x: x(at),
                y: self.bottom + 16.0,
                said: text,
            });
            at += step;
        }
    }
}

pub(super) fn across(width: f64, end: f64) -> impl Fn(f64) -> f64 {
    let end = end.max(1.0);
    move |second| LEFT + second.clamp(0.0, end) / end * (width - LEFT - RIGHT)
}

fn clock(second: f64, step: f64) -> String {
    match step {
        _ if second == 0.0 => "0".to_owned(),
        ..60.0 => format!("{second} s"),
        ..3_600.0 => format!("{} min", second / 60.0),
        _ => format!("{} h", second / 3_600.0),
    }
}

/// Round numbers up to a little more than `top`; a chart of nothing still has a height.
fn count_ticks(top: f64) -> (Vec<(f64, String)>, f64, f64) {
    let raw = top.max(1.0) / 3.0;
    let ten = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * ten);
    let step = step
        .into_iter()
        .find(|step| *step >= raw)
        .unwrap_or(raw)
        .max(1.0);
    let high = (top.max(1.0) / step).ceil() * step;
    let mut ticks = Vec::new();
    let mut at = 0.0;
    while at <= high {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, not negative"
        )]
        ticks.push((at, grouped(at.round() as u64)));
        at += step;
    }
    (ticks, 0.0, high)
}

/// Powers of ten around all points.
pub(super) fn time_ticks(series: &[Series]) -> (Vec<(f64, String)>, f64, f64) {
    let values = || {
        series
            .iter()
            .flat_map(|line| &line.points)
            .filter_map(|(_, value)| *value)
    };
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(1.0, f64::max);
    let low = if low.is_finite() {
        low.max(1.0)
    } else {
        1_000.0
    };
    let low = 10_f64.powf(low.log10().floor());
    let high = 10_f64.powf(high.log10().ceil()).max(low * 10.0);
    let mut ticks = Vec::new();
    let mut at = low;
    while at <= high * 1.001 {
        let text = match at {
            ..900.0 => format!("{} µs", at.round()),
            ..900_000.0 => format!("{} ms", (at / 1e3).round()),
            _ => format!("{} s", (at / 1e6).round()),
        };
        ticks.push((at, text));
        at *= 10.0;
    }
    (ticks, low, high)
}

/// What was not observed is a gap; a lone point is a dot.
fn path(points: &[(f64, Option<f64>)], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut pen = false;
    for (at, value) in points {
        let Some(value) = value else {
            pen = false;
            continue;
        };
        let (x, y) = (x(*at), y(*value));
        let _ = if pen {
            write!(path, "L{x:.1} {y:.1}")
        } else {
            write!(path, "M{x:.1} {y:.1}h.1")
        };
        pen = true;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_above_the_highest_value() {
        for (top, last) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (7.0, 10.0),
            (99.0, 100.0),
            (101.0, 150.0),
            (1_234.0, 1_500.0),
        ] {
            let (ticks, low, high) = count_ticks(top);
            assert_eq!((low, high), (0.0, last), "{top}");
            assert!((2..=5).contains(&ticks.len()), "{top}: {ticks:?}");
        }
        let times = |values: &[f64]| {
            let points = values.iter().map(|value| (0.0, Some(*value))).collect();
            let (ticks, ..) = time_ticks(&[Series {
                points,
                ..Series::default()
            }]);
            ticks.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        assert_eq!(
            times(&[1_500.0, 2_500_000.0]),
            ["1 ms", "10 ms", "100 ms", "1 s", "10 s"]
        );
        assert_eq!(times(&[1_000.0]), ["1 ms", "10 ms"]);
        assert_eq!(times(&[]), ["1 ms", "10 ms"]);
    }

    #[test]
    fn what_was_not_observed_is_a_gap() {
        let points = [
            (0.0, Some(1.0)),
            (1.0, Some(2.0)),
            (2.0, None),
            (3.0, Some(3.0)),
        ];
        let path = path(&points, |x| x, |y| y);
        assert_eq!(path, "M0.0 1.0h.1L1.0 2.0M3.0 3.0h.1");
    }

    #[test]
    fn time_is_told_in_the_unit_of_its_steps() {
        assert_eq!(clock(15.0, 5.0), "15 s");
        assert_eq!(clock(0.0, 5.0), "0");
        assert_eq!(clock(120.0, 60.0), "2 min");
        assert_eq!(clock(7_200.0, 3_600.0), "2 h");
    }
}
