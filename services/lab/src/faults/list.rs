//! What `lab fault list` says: every fault, what it does, and which of them the stack at hand cannot have.

use serde_json::{Value, json};

use super::{Entry, Ground, Means, catalogue};

/// What holds elsewhere, once and at the end.
const ELSEWHERE: &str = "On other stacks: what is done to links needs the proxies of `lab up --faults`, and containers have none. What is done to \
     programs (kill, terminate, restart, pause) needs Docker where they are containers: from the host with --compose, or the \
     service lab-docker. The service lab sees only their ports.";

/// For people. `links`: whether the native stack has proxies; none: nobody says, for none runs.
pub(super) fn text(ground: Ground, links: Option<bool>) -> String {
    let all = catalogue();
    let width = all.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    let (mut lines, mut reasons) = (Vec::new(), Vec::new());
    for entry in all {
        let mut line = format!("{:width$}  {}", entry.name, entry.what);
        if let Some(why) = why_not(entry, ground, links) {
            let mark = mark(entry);
            line = format!("{line}  {mark}");
            let reason = format!("{mark} {why}");
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        lines.push(line);
        for arg in entry.args {
            let usual = if arg.usual.is_empty() {
                "\"\""
            } else {
                arg.usual
            };
            let (name, what) = (arg.name, arg.what);
            lines.push(format!("{:width$}    {name}={usual}  {what}", ""));
        }
    }
    lines.push(String::new());
    lines.extend(reasons);
    lines.push(ELSEWHERE.to_owned());
    lines.join("\n")
}

/// For programs: what works on each kind of stack.
pub(super) fn described(links: Option<bool>) -> Vec<Value> {
    let one = |entry: &Entry| {
        let args = entry
            .args
            .iter()
            .map(|arg| json!({"name": arg.name, "usual": arg.usual, "what": arg.what}));
        let on = |ground| {
            let why = why_not(entry, ground, links);
            json!({"works": why.is_none(), "why": why})
        };
        json!({
            "name": entry.name,
            "what": entry.what,
            "on": entry.usual,
            "instant": entry.instant,
            "args": args.collect::<Vec<Value>>(),
            "native": on(Ground::Native),
            "compose": on(Ground::Compose),
            "inside": on(Ground::Inside),
        })
    };
    catalogue().iter().map(one).collect()
}

/// Why this stack cannot have it now; where none runs, why it may not.
fn why_not(entry: &Entry, ground: Ground, links: Option<bool>) -> Option<&'static str> {
    if ground != Ground::Native {
        return entry.not_from(ground);
    }
    match links {
        _ if !entry.needs_links() => None,
        Some(true) => None,
        Some(false) => Some("this stack has no proxies; `lab up --faults` puts them in"),
        None => Some("only with `lab up --faults`"),
    }
}

/// In a word, what is missing where a fault cannot be had.
fn mark(entry: &Entry) -> &'static str {
    match entry.fault.means() {
        Means::Ports => "[not here]",
        Means::Programs => "[needs Docker]",
        Means::Links => "[needs proxies]",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(text: &'a str, name: &str) -> &'a str {
        let mut lines = text.lines();
        lines.find(|line| line.starts_with(name)).unwrap()
    }

    #[test]
    fn a_line_says_what_a_fault_does_and_only_what_this_stack_lacks() {
        let native = text(Ground::Native, Some(false));
        let kill = line(&native, "receiver-kill ");
        assert!(kill.ends_with("a node is killed and stays dead"), "{kill}");
        assert!(line(&native, "redis-link-cut ").ends_with("[needs proxies]"));
        assert_eq!(native.matches("this stack has no proxies").count(), 1);
        assert!(!native.contains("[needs Docker]"), "{native}");

        let with_proxies = text(Ground::Native, Some(true));
        assert!(!with_proxies.contains("[needs"), "{with_proxies}");

        let inside = text(Ground::Inside, None);
        assert!(line(&inside, "receiver-kill ").ends_with("[needs Docker]"));
        assert!(line(&inside, "redis-link-cut ").ends_with("[needs proxies]"));
        assert!(!line(&inside, "queue-limit ").contains('['), "{inside}");
    }

    #[test]
    fn programs_are_told_of_every_kind_of_stack() {
        let all = described(Some(false));
        let cut = all.iter().find(|one| one["name"] == "redis-link-cut");
        let cut = cut.unwrap();
        for stack in ["native", "compose", "inside"] {
            assert_eq!(cut[stack]["works"], false, "{cut}");
            assert!(cut[stack]["why"].is_string(), "{cut}");
        }
    }
}
