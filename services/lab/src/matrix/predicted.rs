//! What must come of each cell: `predicted.csv`, a line for each, written before anything is run.
//!
//! `pass`; or the damage that is found, with `+` between them: a class that fails, or `share`, where one receiver's share
//! of the effects is under its limit. Where chance decides, the alternatives stand there with `|` between them. Whatever is
//! not plainly `pass` has its reason behind it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use messaging::guarantee::Guarantee;

use super::{COLUMNS, column_name};
use crate::audit::class::Class;

/// The file as it is written.
pub const FILE: &str = include_str!("predicted.csv");
/// The kind that is no class but a figure.
pub const SHARE: &str = "share";
const HEAD: &str = "fault,without,predicted,why";

/// Kinds of damage by their names; empty: pass.
pub type Damage = BTreeSet<String>;

/// What is predicted of one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predicted {
    pub fault: String,
    pub without: Option<Guarantee>,
    /// As it is written.
    pub text: String,
    /// Any of these is right.
    pub alternatives: Vec<Damage>,
    /// Empty for a plain pass.
    pub why: String,
}

impl Predicted {
    /// Whether that was predicted.
    pub fn allows(&self, damage: &Damage) -> bool {
        self.alternatives.contains(damage)
    }

    /// What must be found; none: chance decides.
    pub fn certain(&self) -> Option<&Damage> {
        match self.alternatives.as_slice() {
            [damage] => Some(damage),
            _ => None,
        }
    }
}

static ALL: LazyLock<Vec<Predicted>> = LazyLock::new(|| read(FILE).unwrap_or_default());

/// What is predicted of this cell.
pub fn of(fault: &str, without: Option<Guarantee>) -> Option<&'static Predicted> {
    ALL.iter()
        .find(|one| one.fault == fault && one.without == without)
}

/// Every kind of damage that can be predicted.
pub fn damage() -> impl Iterator<Item = &'static str> {
    let failing = Class::ALL.into_iter().filter(|class| class.fails());
    failing.map(Class::word).chain([SHARE])
}

/// Reads the file, or says which line is wrong.
fn read(text: &str) -> Result<Vec<Predicted>, String> {
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return Err(format!("line 1 is not {HEAD:?}"));
    }
    let numbered = lines.enumerate();
    numbered
        .map(|(at, line)| read_line(line).map_err(|why| format!("line {}: {why}", at + 2)))
        .collect()
}

fn read_line(line: &str) -> Result<Predicted, String> {
    // the reason is the last one, and may have commas
    let fields: Vec<&str> = line.splitn(4, ',').collect();
    let &[fault, without, text, why] = fields.as_slice() else {
        return Err("it has not four fields".to_owned());
    };
    let mut columns = COLUMNS.into_iter();
    let without = columns.find(|column| column_name(*column) == without);
    let without = without.ok_or("there is no such column")?;
    let alternatives = text.split('|').map(read_damage);
    Ok(Predicted {
        fault: fault.to_owned(),
        without,
        text: text.to_owned(),
        alternatives: alternatives.collect::<Result<_, _>>()?,
        why: why.to_owned(),
    })
}

fn read_damage(text: &str) -> Result<Damage, String> {
    if text == "pass" {
        return Ok(Damage::new());
    }
    let each = text.split('+').map(|name| {
        let known = damage().any(|damage| damage == name);
        known
            .then(|| name.to_owned())
            .ok_or_else(|| format!("{name:?} is no damage"))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::ROWS;

    #[test]
    fn every_cell_is_predicted_once_and_in_the_order_of_the_matrix() {
        let wanted = ROWS
            .iter()
            .flat_map(|(row, _)| COLUMNS.map(|column| ((*row).to_owned(), column)));
        let found = read(FILE).unwrap().into_iter();
        let found: Vec<_> = found.map(|one| (one.fault, one.without)).collect();
        assert_eq!(found, wanted.collect::<Vec<_>>());
    }

    #[test]
    fn what_is_not_plainly_pass_has_its_reason() {
        for one in read(FILE).unwrap() {
            assert_eq!(one.text == "pass", one.why.is_empty(), "{one:?}");
            assert!(!one.why.contains('"'), "{one:?}");
        }
    }

    #[test]
    fn with_all_guarantees_everything_passes_and_without_one_something_surely_fails() {
        for column in COLUMNS {
            let all = read(FILE).unwrap().into_iter();
            let fails = all
                .filter(|one| one.without == column)
                .filter(|one| one.certain().is_some_and(|damage| !damage.is_empty()))
                .count();
            assert_eq!(fails > 0, column.is_some(), "{}", column_name(column));
        }
        for (row, _) in ROWS {
            assert_eq!(of(row, None).unwrap().text, "pass", "{row}");
        }
    }

    #[test]
    fn alternatives_and_several_kinds_of_damage_at_once_are_read() {
        let one = read_line("poison,inbox,pass|lost+share,this, or that").unwrap();
        let damage = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Damage>()
        };
        assert_eq!(one.alternatives, [damage(&[]), damage(&["lost", "share"])]);
        assert!(one.allows(&damage(&[])) && !one.allows(&damage(&["lost"])));
        assert_eq!((one.certain(), &*one.why), (None, "this, or that"));
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (line, why) in [
            ("a,inbox,pass", "line 2: it has not four fields"),
            ("a,nothing,pass,", "line 2: there is no such column"),
            ("a,inbox,maybe,", "line 2: \"maybe\" is no damage"),
            ("a,inbox,recovered,", "line 2: \"recovered\" is no damage"),
        ] {
            assert_eq!(read(&format!("{HEAD}\n{line}\n")).unwrap_err(), why);
        }
        assert!(read("x").is_err());
    }
}
