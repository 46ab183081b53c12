//! The commands that do a run again, with the same seed, on the same stack.

use super::{Known, story};
use crate::experiment::cli::NODES_MAX;
use crate::load::{Plan, length};
use crate::stack::dir;

/// How to say a command about the stack that the run was made on.
pub(super) fn command(known: &Known, rest: &str) -> String {
    format!(
        "{}{}",
        dir::command(&known.root, rest),
        known.meta.elsewhere
    )
}

/// How to do it again, on the same stack.
pub fn again(known: &Known) -> Vec<String> {
    let seed = known.meta.seed;
    match &known.journal {
        // a cell is of no file
        Some(_) if story::experiment(known).starts_with("matrix: ") => {
            let cell = story::experiment(known).trim_start_matches("matrix: ");
            let (fault, without) = cell.split_once(" without ").unwrap_or((cell, "none"));
            let rest = format!("matrix --only {fault} --without {without} --seed {seed}");
            vec![command(known, &rest)]
        }
        Some(journal) => {
            let twin = if journal.twin { " --twin" } else { "" };
            let what = match &journal.path {
                Some(path) => dir::quoted(&path.to_string_lossy()),
                None => story::experiment(known).to_owned(),
            };
            let nodes: usize = journal.stack.counts.values().sum();
            let max = match nodes {
                0..=NODES_MAX => String::new(),
                more => format!(" --max {more}"),
            };
            let rest = format!("experiment run {what} --seed {seed}{twin}{max}");
            vec![command(known, &rest)]
        }
        None => known
            .meta
            .load
            .iter()
            .map(|plan| command(known, &load(plan)))
            .collect(),
    }
}

fn load(plan: &Plan) -> String {
    let default = Plan::default();
    let mut words = vec![format!("load --rate {}", plan.rate)];
    if let Some(long) = plan.length {
        words.push(format!("--for {}", length::show(long)));
    }
    if let Some(total) = plan.total {
        words.push(format!("--total {total}"));
    }
    let mut more = |flag: &str, value: String, usual: String| {
        if value != usual {
            words.push(format!("{flag} {value}"));
        }
    };
    more(
        "--connections",
        plan.connections.to_string(),
        default.connections.to_string(),
    );
    more("--size", plan.size.to_string(), default.size.to_string());
    more("--batch", plan.batch.to_string(), default.batch.to_string());
    more(
        "--poison",
        plan.poison.to_string(),
        default.poison.to_string(),
    );
    more(
        "--patience",
        length::show(plan.patience),
        length::show(default.patience),
    );
    words.push(format!("--seed {}", plan.seed));
    words.join(" ")
}
