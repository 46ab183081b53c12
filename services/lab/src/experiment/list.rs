//! `lab experiment list`: what comes with the lab, for people; and the table of it in the README.

use std::time::Duration;

use super::catalogue;
use super::file::{Experiment, Setup};
use super::harm::Harm;
use crate::load::Plan;
use crate::say::Usage;

/// From new nodes to the load, and from the end of all harm to the verdict: what every experiment takes, at the least.
const AROUND: Duration = Duration::from_secs(12);

/// All experiments, one below the other.
pub fn text() -> Result<String, Usage> {
    let all = catalogue::all(usize::MAX)?;
    let width = all.iter().map(|one| one.name.len()).max().unwrap_or(0);
    let mut lines = vec![format!(
        "{:width$}  {:>8}  {:4}  what happens, and what the unsafe twin must fail by",
        "name", "at least", ""
    )];
    for one in &all {
        let (name, title, time) = (&one.name, &one.title, about(takes(&one.safe)));
        let fast = if one.fast { "fast" } else { "" };
        lines.push(format!("{name:width$}  {time:>8}  {fast:4}  {title}"));
        if let Some(twin) = &one.twin {
            let (twin, width) = (describe(&one.safe, twin), width + 16);
            lines.push(format!("{:width$}  twin {twin}", ""));
        }
    }
    let sum = |fast: bool| {
        let chosen = all.iter().filter(|one| one.fast || !fast);
        chosen
            .flat_map(|one| std::iter::once(&one.safe).chain(&one.twin))
            .map(takes)
            .sum::<Duration>()
            .as_secs()
            .div_ceil(60)
    };
    let fast = all.iter().filter(|one| one.fast).count();
    lines.push(format!(
        "\n{} experiments. With their twins they take {} minutes at least; the {fast} fast ones, `run --all --fast`, {}.",
        all.len(),
        sum(false),
        sum(true)
    ));
    Ok(lines.join("\n"))
}

/// How a twin differs, and what must come of that.
pub(crate) fn describe(safe: &Setup, twin: &Setup) -> String {
    format!("{}: {}", how(safe, twin), twin.expect)
}

fn how(safe: &Setup, twin: &Setup) -> String {
    let mut how = Vec::new();
    if !twin.without.is_empty() {
        how.push(format!("without {}", twin.without));
    }
    let changed = twin
        .named
        .iter()
        .filter(|(name, value)| safe.named.get(*name) != Some(value));
    let changed = changed.map(|(name, value)| format!("{name}={value}"));
    let changed: Vec<String> = changed.collect();
    if !changed.is_empty() {
        how.push(format!("with {}", changed.join(", ")));
    }
    let confirm = twin.load.confirm;
    if confirm != safe.load.confirm {
        how.push(format!("with confirm: {confirm}"));
    }
    let alike = Plan {
        confirm,
        ..safe.load.clone()
    };
    if twin.load != alike {
        how.push("with another load".to_owned());
    }
    if twin.harm != safe.harm {
        how.push("with other faults".to_owned());
    }
    how.join(", ")
}

/// At least.
fn takes(setup: &Setup) -> Duration {
    let harm = match &setup.harm {
        Harm::Storm(storm) => storm.length,
        Harm::Faults(faults) => faults
            .iter()
            .map(|timed| timed.at + timed.time.unwrap_or_default())
            .max()
            .unwrap_or_default(),
    };
    setup.load.length.unwrap_or_default().max(harm) + AROUND
}

fn about(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// A row of the README's table.
pub fn row(one: &Experiment) -> String {
    let (name, title) = (&one.name, &one.title);
    let name = if one.fast {
        format!("**`{name}`**")
    } else {
        format!("`{name}`")
    };
    let (how, fails) = match &one.twin {
        None => ("-".to_owned(), "-".to_owned()),
        Some(twin) => {
            let how = how(&one.safe, twin);
            let (word, what) = how.split_once(' ').unwrap_or((&how, ""));
            let expect = &twin.expect;
            let class = expect.class.map(|class| class.to_string());
            let figure = expect.figure.map(|figure| format!("`{}`", figure.name()));
            (
                format!("{word} `{what}`"),
                class.or(figure).unwrap_or_default(),
            )
        }
    };
    format!("| {name} | {title} | {how} | {fails} |")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_a_row_for_every_experiment_and_no_other() {
        let readme = include_str!("../../../../README.md");
        let (_, table) = readme.split_once("<!-- experiments -->\n").unwrap();
        let (table, _) = table.split_once("<!-- end of experiments -->").unwrap();
        let found: Vec<&str> = table.lines().skip(2).collect();
        let all = catalogue::all(usize::MAX).unwrap();
        let wanted: Vec<String> = all.iter().map(row).collect();
        assert_eq!(found, wanted, "\n{}\n", wanted.join("\n"));
    }

    #[test]
    fn every_experiment_is_listed_with_what_its_twin_lacks() {
        let text = text().unwrap();
        for one in catalogue::all(usize::MAX).unwrap() {
            assert!(text.contains(&one.title), "{}", one.name);
        }
        assert!(
            text.contains("twin without inbox: FAIL (duplicated)"),
            "{text}"
        );
        assert!(
            text.contains("twin with MAX_DELIVERIES=2: FAIL (given-up-wrongly)"),
            "{text}"
        );
    }

    #[test]
    fn the_fast_ones_and_their_twins_take_less_than_seven_minutes() {
        let all = catalogue::all(usize::MAX).unwrap();
        let fast = all.iter().filter(|one| one.fast);
        let each = fast.flat_map(|one| std::iter::once(&one.safe).chain(&one.twin));
        let sum: Duration = each.map(takes).sum();
        assert!(sum < Duration::from_mins(7), "{sum:?}");
    }
}
