//! The timeline: what was when.

use anyhow::Result;
use askama::Template;

use super::charts::{Block, Chart, FOOT, LEFT, Picture, RIGHT, ROW, TOP, Text, WIDTHS, across};
use super::course::Course;

/// What was when: the load, and each kind of fault in a row of its own.
pub(super) fn timeline(course: &Course) -> Result<Chart> {
    let mut kinds: Vec<&str> = Vec::new();
    for fault in &course.faults {
        if !kinds.contains(&fault.fault.as_str()) {
            kinds.push(&fault.fault);
        }
    }
    let mut svg = String::new();
    for (class, width) in WIDTHS {
        let x = across(width, course.end);
        #[expect(clippy::cast_precision_loss, reason = "a picture has few rows")]
        let row = |nth: usize| TOP + nth as f64 * ROW;
        let bottom = row(kinds.len() + 1);
        let mut picture = Picture {
            class,
            label: "What was when".to_owned(),
            width,
            height: bottom + FOOT,
            right: width - RIGHT,
            bottom,
            ..Picture::default()
        };
        let name = |nth: usize, text: &str| Text {
            class: "name",
            anchor: "start",
            x: LEFT,
            y: row(nth) + 11.0,
            said: text.to_owned(),
        };
        let bar = |nth: usize, class, from: f64, to: f64, title: &str| Block {
            class,
            x: x(from),
            y: row(nth) + 16.0,
            // a moment can be seen too
            width: (x(to) - x(from)).max(3.0),
            height: 11.0,
            title: title.to_owned(),
        };
        for fault in &course.faults {
            picture.shade(fault, &x, course.end);
        }
        picture.texts.push(name(0, "load"));
        picture.blocks.push(bar(
            0,
            "waiting",
            course.offering,
            course.answering,
            "the last answers",
        ));
        picture
            .blocks
            .push(bar(0, "load", 0.0, course.offering, "requests are offered"));
        for fault in &course.faults {
            let nth = 1 + kinds
                .iter()
                .position(|kind| *kind == fault.fault)
                .unwrap_or(0);
            let Some(from) = fault.from else {
                let place = bar(nth, "missed", fault.planned, fault.planned, &fault.sentence);
                picture.blocks.push(Block {
                    width: 11.0,
                    ..place
                });
                continue;
            };
            let to = fault.to.unwrap_or(course.end);
            if let Some(recovered) = fault.recovered {
                picture
                    .blocks
                    .push(bar(nth, "recovering", to, recovered, &fault.sentence));
            }
            let class = if fault.to.is_some() {
                "harm"
            } else {
                "harm open"
            };
            picture
                .blocks
                .push(bar(nth, class, from, to, &fault.sentence));
        }
        for (nth, kind) in kinds.iter().enumerate() {
            picture.texts.push(name(nth + 1, kind));
        }
        picture.seconds(&x, course.end);
        svg += &picture.render()?;
    }
    let mut legend = vec![("load", "accepted")];
    if !kinds.is_empty() {
        legend.extend([
            ("broken", "harm"),
            ("until all was ready again", "recovering"),
        ]);
    }
    Ok(Chart {
        title: "What was when",
        unit: "",
        legend,
        svg,
    })
}
