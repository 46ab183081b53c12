//! The matrix on a terminal, in 100 columns, and in words what is not as predicted.

use std::fmt::Write as _;
use std::path::Path;

use super::result::{Cell, Matrix, short};
use crate::say::seconds;
use crate::stack::dir;

const LABEL: usize = 19;
const SLOT: usize = 9;

/// The head of a column, a line for each.
fn head(column: &str) -> [&'static str; 3] {
    match column {
        "none" => ["", "", "nothing"],
        "outbox" => ["", "", "outbox"],
        "confirms" => ["", "", "confirms"],
        "mandatory" => ["", "manda-", "tory"],
        "persistence" => ["", "persis-", "tence"],
        "ack-after-commit" => ["ack-", "after-", "commit"],
        "inbox" => ["", "", "inbox"],
        "dead-lettering" => ["dead-", "letter-", "ing"],
        _ => ["", "", "prefetch"],
    }
}

/// `lost 3`; with `!` where it was not predicted, else with `+` where there is other damage.
fn inside(cell: &Cell) -> String {
    if cell.inconclusive() {
        return "?".to_owned();
    }
    let mark = match cell.as_predicted {
        false => "!",
        true if cell.damage.len() > 1 => "+",
        true => "",
    };
    match cell.damage.first() {
        None => format!("pass{mark}"),
        Some(damage) => format!("{} {}{mark}", short(damage), cell.amount(damage)),
    }
}

/// All of it. `root` is where the reports are.
pub fn table(matrix: &Matrix, root: &Path) -> String {
    let columns = matrix.columns();
    let mut text = String::new();
    for line in 0..3 {
        let mut row = format!("{:LABEL$}", if line == 2 { "off:" } else { "" });
        for column in &columns {
            let _ = write!(row, "{:>SLOT$}", head(column)[line]);
        }
        let _ = writeln!(text, "{}", row.trim_end());
    }
    for fault in matrix.rows() {
        let mut row = format!("{fault:LABEL$}");
        for column in &columns {
            let cell = matrix.cell(fault, column).map_or_else(String::new, inside);
            let _ = write!(row, "{cell:>SLOT$}");
        }
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text += "\nCounts of messages: dup = more than one effect, odd = nobody asked for it, bad = given up\n\
             wrongly. low = one receiver's share of the effects. ! = not as predicted, + = other damage too,\n\
             ? = inconclusive.\n";
    for cell in matrix.unpredicted().chain(matrix.open()) {
        text += &named(cell, root);
    }
    let _ = write!(text, "\n{}", summary(matrix));
    text
}

/// A cell that is not as predicted, or open: what was predicted and why, and where its report is.
fn named(cell: &Cell, root: &Path) -> String {
    let (fault, without) = (&cell.fault, &cell.without);
    let mut text = format!(
        "\n{fault}, off: {without}: predicted {}, found {}\n",
        cell.predicted,
        cell.describe()
    );
    if !cell.why.is_empty() {
        let _ = writeln!(text, "  predicted because {}", cell.why);
    }
    for reason in &cell.reasons {
        let _ = writeln!(text, "  - {reason}");
    }
    if let Some(run) = &cell.run {
        let _ = writeln!(text, "  {}", dir::command(root, &format!("report {run}")));
    }
    text
}

/// In one line.
pub(super) fn summary(matrix: &Matrix) -> String {
    let (wrong, open) = (matrix.unpredicted().count(), matrix.open().count());
    let all = matrix.cells.len();
    let good = all - wrong - open;
    let took = matrix.took();
    let took = if took.as_secs() < 120 {
        seconds(took)
    } else {
        format!("{:.1} min", took.as_secs_f64() / 60.0)
    };
    format!("{good} of {all} cells as predicted, {wrong} not, {open} inconclusive; {took}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Verdict;
    use crate::matrix::result::tests::{cell, matrix};
    use crate::matrix::{COLUMNS, ROWS, column_name};

    fn full() -> Matrix {
        let cells = ROWS.iter().flat_map(|(row, _)| {
            COLUMNS.map(|column| Cell {
                damage: vec!["lost".to_owned(), "stuck".to_owned()],
                ..cell(row, column_name(column), 999, "pass")
            })
        });
        matrix(cells.collect())
    }

    #[test]
    fn the_whole_matrix_fits_100_columns() {
        let text = table(&full(), Path::new("/x"));
        let rows: Vec<&str> = text.lines().take(15).collect();
        assert_eq!(rows.len(), 15);
        for row in &rows {
            assert!(row.chars().count() <= 100, "{}: {row}", row.chars().count());
        }
        assert!(rows[2].starts_with("off:"), "{text}");
        assert_eq!(rows[3].matches("lost 999!").count(), 9, "{text}");
    }

    #[test]
    fn what_differs_is_named_with_its_reason_and_its_report() {
        let mut open = cell("poison", "outbox", 0, "pass");
        open.verdict = Verdict::Inconclusive;
        open.as_predicted = false;
        open.reasons = vec!["nobody saw it".to_owned()];
        let mut wrong = cell("queue-full", "none", 0, "lost");
        wrong.why = "it is full".to_owned();
        let all = matrix(vec![
            wrong,
            cell("poison", "none", 0, "pass"),
            open,
            cell("poison", "inbox", 12, "lost"),
        ]);
        let text = table(&all, Path::new("/x"));
        let expected = "off:                 nothing   outbox    inbox
queue-full             pass!
poison                  pass        ?  lost 12
";
        assert!(text.contains(expected), "{text}");
        for said in [
            "queue-full, off: none: predicted lost, found PASS\n  predicted because it is full\n",
            "report r1",
            "poison, off: outbox: predicted pass, found INCONCLUSIVE\n  - nobody saw it\n",
            "2 of 4 cells as predicted, 1 not, 1 inconclusive; 80.0 s",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        assert!(!text.contains("off: inbox"), "{text}");
    }
}
