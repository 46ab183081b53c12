//! Processes as the kernel shows them in `/proc`.
//!
//! A process belongs to a stack when its environment carries [`MARKER`] with the stack's folder, or when it is one of
//! the servers' programs and works in a folder below it. The second rule is needed because PostgreSQL and nginx write
//! their process titles over the memory that holds their environment. Both rules outlive the `lab` that started the
//! process, so a later `lab` can clear up after one that was killed, without trusting a file of old pids.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The environment variable that every process of a stack carries; its value is the stack's folder.
pub const MARKER: &str = "UNACKED_STACK";

/// Programs that may be ended because of where they work. A shell or an editor in the same folder is none of ours.
const SERVER_PROGRAMS: [&str; 7] = [
    "postgres",
    "redis-server",
    "nginx",
    "beam.smp",
    "erl_child_setup",
    "inet_gethost",
    "epmd",
];

/// One running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub program: String,
    /// Ticks after boot; together with the pid it names a process for good.
    pub started: u64,
}

/// All running processes, zombies left out.
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(look)
        .collect()
}

/// The process with this pid, if it runs.
pub fn look(pid: i32) -> Option<Process> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The state that the kernel gives it: `T` is stopped.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// `/proc/PID/stat`: the program's name stands in brackets and may itself hold brackets and spaces.
fn parse_stat(stat: &str) -> Option<Process> {
    let (head, rest) = stat.rsplit_once(')')?;
    let (pid, program) = head.split_once(" (")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    Some(Process {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        program: program.to_owned(),
        started: fields.get(19)?.parse().ok()?,
    })
}

/// A process and everything below it.
pub fn tree(root: i32) -> Vec<Process> {
    let everyone = all();
    let mut family: HashSet<i32> = HashSet::from([root]);
    // a child may stand before its parent in the list: repeat until nothing is added
    loop {
        let before = family.len();
        let found = everyone
            .iter()
            .filter(|process| family.contains(&process.parent));
        let found: Vec<i32> = found.map(|process| process.pid).collect();
        family.extend(found);
        if family.len() == before {
            break;
        }
    }
    everyone
        .into_iter()
        .filter(|process| family.contains(&process.pid))
        .collect()
}

/// The server processes that work in `folder` or below it.
pub fn working_in(folder: &Path) -> Vec<Process> {
    let mine = |process: &Process| {
        SERVER_PROGRAMS.contains(&process.program.as_str())
            && fs::read_link(format!("/proc/{}/cwd", process.pid))
                .is_ok_and(|cwd| undeleted(&cwd).starts_with(folder))
    };
    all().into_iter().filter(mine).collect()
}

/// The kernel adds a word to the path of a folder that was removed meanwhile.
fn undeleted(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(&text))
}

/// Every process of the stack in `folder`, wherever it works.
pub fn of_stack(folder: &Path, homes: &[PathBuf]) -> Vec<Process> {
    let mark = format!("{MARKER}={}", folder.display()).into_bytes();
    let marked = |process: &Process| {
        fs::read(format!("/proc/{}/environ", process.pid))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == mark))
    };
    let mut found: Vec<Process> = all().into_iter().filter(marked).collect();
    for process in homes.iter().flat_map(|home| working_in(home)) {
        if !found.contains(&process) {
            found.push(process);
        }
    }
    found
}

/// Whether this very process still runs (not another one that got its pid).
pub fn alive(process: &Process) -> bool {
    look(process.pid).is_some_and(|now| now.started == process.started)
}

/// Sends a signal; a process that is gone already is none to care about.
pub fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// This very program, to be started once more. A build may replace its file at any time; the kernel still has the one
/// that runs.
pub fn own_program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// `3 processes`
pub fn count(processes: usize) -> String {
    let s = if processes == 1 { "" } else { "es" };
    format!("{processes} process{s}")
}

/// Ends processes, softly first, and comes back when none is left (or none could be ended within the limit).
pub async fn end(processes: &[Process], softly: Duration) {
    for (how, limit) in [
        (Signal::SIGTERM, softly),
        (Signal::SIGKILL, Duration::from_secs(5)),
    ] {
        let left: Vec<&Process> = processes.iter().filter(|process| alive(process)).collect();
        for process in &left {
            signal(process.pid, how);
            // a stopped process acts on nothing but SIGKILL until it goes on
            signal(process.pid, Signal::SIGCONT);
        }
        let begun = Instant::now();
        while left.iter().any(|process| alive(process)) && begun.elapsed() < limit {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_may_hold_brackets_and_spaces() {
        let stat = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 2";
        let process = parse_stat(stat).unwrap();
        assert_eq!(
            (process.pid, process.parent, process.started),
            (42, 7, 9876)
        );
        assert_eq!(process.program, "a) b (c)");
    }

    #[test]
    fn a_zombie_does_not_run() {
        assert_eq!(
            parse_stat("42 (x) Z 7 42 42 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 2"),
            None
        );
    }

    #[test]
    fn i_am_in_my_own_tree() {
        let me = i32::try_from(std::process::id()).unwrap();
        let parent = look(me).unwrap().parent;
        assert!(tree(parent).iter().any(|process| process.pid == me));
    }

    #[test]
    fn a_removed_folder_is_still_known() {
        assert_eq!(
            undeleted(Path::new("/x/.lab/redis (deleted)")),
            Path::new("/x/.lab/redis")
        );
    }
}
