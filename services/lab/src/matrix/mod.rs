//! The matrix: twelve faults, each on a stack with all guarantees and on eight others that lack one.
//!
//! A row is an experiment's file (`rows/`), a column a guarantee that is off. A cell is that experiment on such a stack
//! (`cell.rs`), played and judged like any other. What must come of it stands in `predicted.csv`, written before the run
//! and with its reason (`predicted.rs`); whatever differs is named. `table.rs` shows it on a terminal, `picture.rs` draws
//! it.
//!
//! Eight guarantees have no column, but an experiment each. `look-behind` and `separate-connections` would have one like the
//! first: in no row a message comes again when the inbox has forgotten it, and in none dead letters are sent back.

pub mod cell;
pub mod cli;
pub mod picture;
pub mod predicted;
pub mod result;
pub mod table;

use messaging::guarantee::Guarantee;

use crate::say::Usage;

/// The faults with their files, in the order of the road.
pub const ROWS: [(&str, &str); 12] = [
    (
        "sender-dies-early",
        include_str!("rows/sender-dies-early.yaml"),
    ),
    (
        "sender-dies-late",
        include_str!("rows/sender-dies-late.yaml"),
    ),
    (
        "sender-link-silent",
        include_str!("rows/sender-link-silent.yaml"),
    ),
    ("queue-unbound", include_str!("rows/queue-unbound.yaml")),
    ("queue-full", include_str!("rows/queue-full.yaml")),
    ("rabbitmq-kill", include_str!("rows/rabbitmq-kill.yaml")),
    (
        "postgres-restart",
        include_str!("rows/postgres-restart.yaml"),
    ),
    (
        "receiver-dies-early",
        include_str!("rows/receiver-dies-early.yaml"),
    ),
    (
        "receiver-dies-late",
        include_str!("rows/receiver-dies-late.yaml"),
    ),
    ("receiver-absent", include_str!("rows/receiver-absent.yaml")),
    ("work-fails", include_str!("rows/work-fails.yaml")),
    ("poison", include_str!("rows/poison.yaml")),
];

/// The stacks, by the guarantee that is off; the first has all.
pub const COLUMNS: [Option<Guarantee>; 9] = [
    None,
    Some(Guarantee::Outbox),
    Some(Guarantee::Confirms),
    Some(Guarantee::Mandatory),
    Some(Guarantee::Persistence),
    Some(Guarantee::AckAfterCommit),
    Some(Guarantee::Inbox),
    Some(Guarantee::DeadLettering),
    Some(Guarantee::Prefetch),
];

/// The name of the column in which everything is on.
pub const NONE: &str = "none";

/// As in files and on the command line.
pub fn column_name(column: Option<Guarantee>) -> &'static str {
    column.map_or(NONE, Guarantee::name)
}

/// The rows that are wanted, all if none is named.
pub fn rows(names: &[String]) -> Result<Vec<&'static str>, Usage> {
    let all = ROWS.map(|(name, _)| name);
    chosen(names, &all, "fault in the matrix")
}

/// The columns that are wanted, all if none is named.
pub fn columns(names: &[String]) -> Result<Vec<Option<Guarantee>>, Usage> {
    let all = COLUMNS.map(column_name);
    let wanted = chosen(names, &all, "column in the matrix")?;
    let is_wanted = |column: &Option<Guarantee>| wanted.contains(&column_name(*column));
    Ok(COLUMNS.into_iter().filter(is_wanted).collect())
}

fn chosen(names: &[String], all: &[&'static str], what: &str) -> Result<Vec<&'static str>, Usage> {
    if let Some(unknown) = names.iter().find(|name| !all.contains(&name.as_str())) {
        let all = all.join(", ");
        return Err(Usage(format!(
            "there is no {what} {unknown:?}; there are: {all}"
        )));
    }
    let is_wanted = |one: &&&str| names.is_empty() || names.iter().any(|name| name == **one);
    Ok(all.iter().filter(is_wanted).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_chosen_by_name_in_the_order_of_the_matrix() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(rows(&[]).unwrap().len(), 12);
        assert_eq!(columns(&[]).unwrap(), COLUMNS);
        assert_eq!(
            rows(&names(&["poison", "queue-full"])).unwrap(),
            ["queue-full", "poison"]
        );
        assert_eq!(
            columns(&names(&["inbox", "none"])).unwrap(),
            [None, Some(Guarantee::Inbox)]
        );
        let said = columns(&names(&["drain"])).unwrap_err().to_string();
        assert!(
            said.starts_with(
                "there is no column in the matrix \"drain\"; there are: none, outbox, "
            ),
            "{said}"
        );
    }
}
