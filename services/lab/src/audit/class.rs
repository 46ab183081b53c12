//! What may become of a message, and the table that says when: `classes.csv`.
//!
//! The table is the definition. The code looks it up, ARCHITECTURE.md shows it, and the tests walk through every
//! combination. The first row that matches decides; `*` matches anything.

use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// The table as it is written.
pub const TABLE: &str = include_str!("classes.csv");

/// The columns that decide, with every value that each can have.
pub const DOMAIN: [(&str, &[&str]); 6] = [
    ("answer", &["accepted", "refused", "unknown", "nobody"]),
    ("rows", &["none", "others", "one", "many"]),
    ("effects", &["none", "one", "many"]),
    ("parked", &["no", "yes"]),
    ("poison", &["no", "yes"]),
    ("drained", &["no", "yes", "stuck"]),
];

/// What became of a message; the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    Lost,
    Duplicated,
    Unexpected,
    GivenUpWrongly,
    Stuck,
    Pending,
    Recovered,
    Parked,
    Ok,
    Refused,
}

impl Class {
    /// The gravest first.
    pub const ALL: [Self; 10] = [
        Self::Lost,
        Self::Duplicated,
        Self::Unexpected,
        Self::GivenUpWrongly,
        Self::Stuck,
        Self::Pending,
        Self::Recovered,
        Self::Parked,
        Self::Ok,
        Self::Refused,
    ];

    /// As it is written in the table and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Unexpected => "unexpected",
            Self::GivenUpWrongly => "given-up-wrongly",
            Self::Stuck => "stuck",
            Self::Pending => "pending",
            Self::Recovered => "recovered",
            Self::Parked => "parked",
            Self::Ok => "ok",
            Self::Refused => "refused",
        }
    }

    /// For somebody who sees the word for the first time.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Lost => "accepted, but nothing came of it, and nothing is on its way any more",
            Self::Duplicated => "processed or stored more than once",
            Self::Unexpected => {
                "stored or processed although nobody asked for it, or it was refused"
            }
            Self::GivenUpWrongly => "given up on as a dead letter, although its work could be done",
            Self::Stuck => "still on its way long after everything was healed",
            Self::Pending => "still on its way",
            Self::Recovered => "processed once, though its client never learned the outcome",
            Self::Parked => "given up on as a dead letter, as it should be",
            Self::Ok => "accepted and processed once",
            Self::Refused => "not accepted, and nothing came of it, as it should be",
        }
    }

    /// Whether one of these is enough for FAIL.
    pub fn fails(self) -> bool {
        matches!(
            self,
            Self::Lost | Self::Duplicated | Self::Unexpected | Self::GivenUpWrongly | Self::Stuck
        )
    }

    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.word() == word)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Per column the place of a value in its domain; none: any.
    pub cells: [Option<usize>; DOMAIN.len()],
    pub class: Class,
    pub why: String,
}

impl Rule {
    /// Whether it says something about this combination.
    pub fn matches(&self, values: &[usize; DOMAIN.len()]) -> bool {
        let cells = self.cells.iter().zip(values);
        cells
            .into_iter()
            .all(|(cell, value)| cell.is_none_or(|cell| cell == *value))
    }
}

/// The table, read once.
pub fn rules() -> &'static [Rule] {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| match parse(TABLE) {
        Ok(rules) => rules,
        Err(why) => panic!("classes.csv: {why}"),
    });
    &RULES
}

fn parse(table: &str) -> Result<Vec<Rule>, String> {
    let mut lines = table.lines();
    let names = DOMAIN.map(|(name, _)| name).join(",");
    if lines.next() != Some(&*format!("{names},class,why")) {
        return Err("the first line does not name the columns".to_owned());
    }
    lines
        .map(|line| rule(line).ok_or_else(|| format!("{line:?} is no rule")))
        .collect()
}

fn rule(line: &str) -> Option<Rule> {
    let words: Vec<&str> = line.split(',').collect();
    let [.., class, why] = *words else {
        return None;
    };
    if words.len() != DOMAIN.len() + 2 || why.is_empty() {
        return None;
    }
    let mut cells = [None; DOMAIN.len()];
    for ((cell, word), (_, values)) in cells.iter_mut().zip(&words).zip(DOMAIN) {
        *cell = match *word {
            "*" => None,
            word => Some(values.iter().position(|value| *value == word)?),
        };
    }
    Some(Rule {
        cells,
        class: Class::of(class)?,
        why: why.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every combination of the finite domain.
    fn combinations() -> Vec<[usize; DOMAIN.len()]> {
        let mut all = vec![[0; DOMAIN.len()]];
        for (column, (_, values)) in DOMAIN.iter().enumerate() {
            all = all
                .into_iter()
                .flat_map(|combination| {
                    (0..values.len()).map(move |value| {
                        let mut next = combination;
                        next[column] = value;
                        next
                    })
                })
                .collect();
        }
        all
    }

    fn first(values: &[usize; DOMAIN.len()]) -> Option<usize> {
        rules().iter().position(|rule| rule.matches(values))
    }

    #[test]
    fn every_combination_has_a_class_and_every_rule_and_class_is_used() {
        let all = combinations();
        assert_eq!(all.len(), 4 * 4 * 3 * 2 * 2 * 3);
        let used: BTreeSet<usize> = all
            .iter()
            .map(|values| first(values).unwrap_or_else(|| panic!("no rule for {values:?}")))
            .collect();
        assert_eq!(used.len(), rules().len(), "a rule never decides");
        let classes: BTreeSet<Class> = used.iter().map(|rule| rules()[*rule].class).collect();
        assert_eq!(classes, BTreeSet::from(Class::ALL));
    }

    /// What the table must say, said again without it: by the value's words, not by rules.
    #[test]
    fn the_table_keeps_the_promises() {
        for values in combinations() {
            let word = |column: usize| DOMAIN[column].1[values[column]];
            let class = rules()[first(&values).unwrap()].class;
            let (answer, rows, effects) = (word(0), word(1), word(2));
            let (parked, poison, drained) = (word(3), word(4), word(5));
            let stored = matches!(rows, "one" | "many");
            let what = format!("{values:?}: {class}");
            // nothing that was done twice ever counts as right
            if effects == "many" || rows == "many" {
                assert!(class.fails(), "{what}");
            }
            // what was refused or never offered leaves no trace
            if matches!(answer, "refused" | "nobody")
                && (stored || effects != "none" || parked == "yes")
            {
                assert_eq!(class, Class::Unexpected, "{what}");
            }
            // what was accepted ends with one effect, in parking, or in a class that is not right
            if answer == "accepted" && effects == "none" && parked == "no" {
                let right = if stored {
                    match drained {
                        "yes" => Class::Lost,
                        "stuck" => Class::Stuck,
                        _ => Class::Pending,
                    }
                } else {
                    Class::Lost
                };
                assert!(class == right || rows == "many", "{what}");
            }
            // processed and parked counts as processed
            if stored && effects == "one" && rows == "one" {
                let right = match answer {
                    "accepted" => Class::Ok,
                    "unknown" => Class::Recovered,
                    _ => Class::Unexpected,
                };
                assert_eq!(class, right, "{what}");
            }
            if class == Class::Parked {
                assert!(
                    poison == "yes" && parked == "yes" && effects == "none",
                    "{what}"
                );
            }
            if class == Class::GivenUpWrongly {
                assert!(
                    poison == "no" && parked == "yes" && effects == "none",
                    "{what}"
                );
            }
            // where the system is quiet nothing is on its way
            if drained == "yes" {
                assert!(!matches!(class, Class::Pending | Class::Stuck), "{what}");
            }
        }
    }

    #[test]
    fn a_table_with_a_mistake_is_not_read() {
        let head = TABLE.lines().next().unwrap();
        for wrong in [
            "*,*,*,*,*,*,fine,why",
            "*,*,*,*,*,ok,why",
            "*,*,*,*,*,*,ok",
            "*,*,*,*,*,*,ok,",
            "*,*,*,*,*,perhaps,ok,why",
            "*,*,*,*,*,*,ok,why,more",
            "",
        ] {
            assert!(parse(&format!("{head}\n{wrong}\n")).is_err(), "{wrong}");
        }
        assert!(parse("").is_err() && parse("answer,rows\n").is_err());
    }

    #[test]
    fn the_documentation_shows_the_table() {
        let text = include_str!("../../../../ARCHITECTURE.md");
        let shown: Vec<String> = text
            .lines()
            .skip_while(|line| *line != "<!-- classes.csv -->")
            .skip(1)
            .take_while(|line| *line != "<!-- end of classes.csv -->")
            .map(|line| {
                line.trim_matches('|')
                    .split('|')
                    .map(str::trim)
                    .collect::<Vec<_>>()
                    .join(",")
            })
            .collect();
        let shown: Vec<&str> = shown
            .iter()
            .map(String::as_str)
            .filter(|line| !line.starts_with("---"))
            .collect();
        assert_eq!(shown, TABLE.lines().collect::<Vec<_>>());
    }
}
