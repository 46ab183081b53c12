//! The matrix as a picture: one SVG that needs nothing else, and can be read on a narrow screen.

use anyhow::Result;
use askama::Template;

use super::result::{Cell, Matrix, short};
use super::table::summary;

const LABEL: f64 = 184.0;
const SLOT: f64 = 54.0;
const HEAD: f64 = 182.0;
const ROW: f64 = 46.0;
const GAP: f64 = 3.0;
const LINE: f64 = 24.0;
/// It is shown larger than it is drawn where there is room.
const ZOOM: f64 = 1.3;

#[derive(Template)]
#[template(path = "matrix.svg", escape = "html")]
struct Picture {
    label: String,
    width: f64,
    height: f64,
    shown_width: f64,
    shown_height: f64,
    heads: Vec<Head>,
    rows: Vec<(f64, &'static str)>,
    boxes: Vec<Square>,
    caption: Vec<(f64, String)>,
}

struct Head {
    x: f64,
    y: f64,
    said: &'static str,
}

struct Square {
    class: &'static str,
    unpredicted: bool,
    x: f64,
    y: f64,
    middle: f64,
    /// One line, or two.
    lines: Vec<(f64, String)>,
    title: String,
}

/// Draws it.
pub fn draw(matrix: &Matrix) -> Result<String> {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let at = |start: f64, place: usize, step: f64| {
        #[expect(clippy::cast_precision_loss, reason = "a dozen")]
        let place = place as f64;
        start + place * step
    };
    let mut boxes = Vec::new();
    for (down, fault) in rows.iter().enumerate() {
        for (across, column) in columns.iter().enumerate() {
            if let Some(cell) = matrix.cell(fault, column) {
                boxes.push(square(cell, at(LABEL, across, SLOT), at(HEAD, down, ROW)));
            }
        }
    }
    let below = at(HEAD, rows.len(), ROW) + LINE + 4.0;
    let caption = caption(matrix);
    // narrow ones still have room for their caption
    let width = at(LABEL, columns.len().max(9), SLOT) + 6.0;
    let height = at(below, caption.len(), LINE);
    let picture = Picture {
        label: format!("Faults and guarantees: {}", summary(matrix)),
        width,
        height,
        shown_width: width * ZOOM,
        shown_height: height * ZOOM,
        heads: columns
            .iter()
            .enumerate()
            .map(|(place, said)| Head {
                x: at(LABEL + SLOT / 2.0 + 5.0, place, SLOT),
                y: HEAD - 10.0,
                said: if *said == "none" { "all on" } else { said },
            })
            .collect(),
        rows: rows
            .iter()
            .enumerate()
            .map(|(place, fault)| (at(HEAD + ROW / 2.0 + 4.0, place, ROW), *fault))
            .collect(),
        boxes,
        caption: caption
            .into_iter()
            .enumerate()
            .map(|(place, said)| (at(below, place, LINE), said))
            .collect(),
    };
    Ok(picture.render()?)
}

fn square(cell: &Cell, x: f64, y: f64) -> Square {
    let chance = if cell.by_chance() { "*" } else { "" };
    let (class, said) = match cell.damage.first() {
        _ if cell.inconclusive() => ("open", vec!["?".to_owned()]),
        None => ("pass", vec![format!("pass{chance}")]),
        Some(damage) => {
            let more = if cell.damage.len() > 1 { "+" } else { "" };
            let amount = format!("{}{more}", cell.amount(damage));
            ("fail", vec![format!("{}{chance}", short(damage)), amount])
        }
    };
    let middle = y + (ROW - GAP) / 2.0;
    let places: &[f64] = if said.len() == 1 {
        &[5.5]
    } else {
        &[-3.5, 14.0]
    };
    Square {
        class,
        unpredicted: !cell.as_predicted,
        x,
        y,
        middle: x + (SLOT - GAP) / 2.0,
        lines: places
            .iter()
            .map(|place| middle + place)
            .zip(said)
            .collect(),
        title: format!(
            "{}, off: {}: {}; predicted {}",
            cell.fault,
            cell.without,
            cell.describe(),
            cell.predicted
        ),
    }
}

fn caption(matrix: &Matrix) -> Vec<String> {
    let broker = matrix
        .rabbitmq
        .as_deref()
        .unwrap_or("of an unknown version");
    let mut lines = vec![
        "Row: what is done to the system. Column: the guarantee that is off.".to_owned(),
        "Numbers are messages; dup: with more than one effect; low: share of one".to_owned(),
        "receiver in the work. *: chance decides whether there is damage.".to_owned(),
        format!("{}.", summary(matrix)),
        format!(
            "{}, RabbitMQ {broker}, {}, seed {}.",
            matrix.started_at.format("%-d %B %Y"),
            matrix.machine,
            matrix.seed
        ),
    ];
    let (again, added) = (matrix.again, matrix.added);
    if again > 0 {
        lines.push(format!("Inconclusive at first, and played again: {again}."));
    }
    if added > 0 {
        lines.push(format!("Not played at first, and played later: {added}."));
    }
    if matrix.unpredicted().next().is_some() {
        lines.push("Dashed: not as predicted.".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::result::tests::{cell, matrix};

    #[test]
    fn every_cell_is_in_the_picture_with_what_was_found() {
        let all = matrix(vec![
            cell("poison", "none", 0, "pass"),
            cell("poison", "dead-lettering", 6, "lost"),
            cell("rabbitmq-kill", "confirms", 0, "pass|lost"),
        ]);
        let svg = draw(&all).unwrap();
        assert_eq!(svg.matches("<rect class=\"").count(), 3, "{svg}");
        for said in [
            ">poison</text>",
            ">rabbitmq-kill</text>",
            ">all on</text>",
            ">dead-lettering</text>",
            ">lost</text>",
            ">6</text>",
            ">pass</text>",
            ">pass*</text>",
            "21 November 2026, RabbitMQ 3.10.8, 2 cores, x86_64, seed 7.",
            "3 of 3 cells as predicted, 0 not, 0 inconclusive; 60.0 s.",
        ] {
            assert!(svg.contains(said), "{said}: {svg}");
        }
        assert!(!svg.contains("not as predicted."), "{svg}");
        assert!(!svg.contains("dashed\""), "{svg}");
    }

    #[test]
    fn it_needs_nothing_else_and_what_was_not_predicted_is_marked() {
        let mut all = matrix(vec![cell("poison", "none", 3, "pass")]);
        assert!(!draw(&all).unwrap().contains("at first"));
        (all.again, all.added) = (1, 2);
        let svg = draw(&all).unwrap();
        assert!(
            svg.contains("Inconclusive at first, and played again: 1."),
            "{svg}"
        );
        assert!(
            svg.contains("Not played at first, and played later: 2."),
            "{svg}"
        );
        let elsewhere = svg.replace("http://www.w3.org/2000/svg", "");
        for foreign in ["http", "<script", "<image", "@import", "url("] {
            assert!(!elsewhere.contains(foreign), "{foreign}: {svg}");
        }
        assert!(svg.contains("fail dashed\""), "{svg}");
        assert!(svg.contains("Dashed: not as predicted."), "{svg}");
    }
}
