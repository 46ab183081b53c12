//! CPU time by process, from `/proc/PID/stat`: what a message costs, and whom.
//!
//! A process counts with all below it, and with those below it that have ended: PostgreSQL has a process for each
//! connection. The lab itself counts alone, since everything else is below it; it is the load client.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use crate::status::Status;

/// Of the kernel's clock in `/proc`: the same on every Linux.
const TICKS: u32 = 100;
/// The lab itself: it sends the load, and looks.
pub const CLIENT: &str = "load client";
/// All processes, in the order in which a message meets them.
pub const PROCESSES: [&str; 7] = [
    CLIENT, "gateway", "sender", "postgres", "rabbitmq", "receiver", "redis",
];

/// CPU time so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    by_process: HashMap<&'static str, Duration>,
}

/// One process in `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: i32,
    own: u64,
    /// Of children that ended.
    ended: u64,
}

impl Cpu {
    /// Of the stack as it is now.
    pub fn now(status: &Status) -> Self {
        let all = read_all();
        let mut cpu = Self::default();
        let mut add = |process, pid: Option<u32>| {
            let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) else {
                return;
            };
            *cpu.by_process.entry(process).or_default() += time(family(&all, pid));
        };
        add("gateway", status.gateway_pid);
        add("postgres", status.postgres.program.pid);
        add("rabbitmq", status.rabbitmq.program.pid);
        add("redis", status.redis.program.pid);
        for node in &status.nodes {
            add(node.service.name(), node.program.pid);
        }
        let me = i32::try_from(std::process::id()).unwrap_or_default();
        let mine = all.get(&me).map_or(0, |stat| stat.own);
        cpu.by_process.insert(CLIENT, time(mine));
        cpu
    }

    /// What was used since, in microseconds for each of so many.
    pub fn per(&self, before: &Self, count: u64) -> Vec<(&'static str, f64)> {
        let count = super::sheet::real(count.max(1));
        PROCESSES
            .into_iter()
            .map(|process| {
                let of = |cpu: &Self| cpu.by_process.get(process).copied().unwrap_or_default();
                // a node that is gone took its time along
                let used = of(self).saturating_sub(of(before));
                (process, used.as_secs_f64() * 1e6 / count)
            })
            .collect()
    }
}

/// CPU time of the whole machine, and of all that this program started; the rest is others'.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    busy: Duration,
    ours: Duration,
    at: std::time::Instant,
}

impl Machine {
    pub fn now() -> Self {
        let all = read_all();
        let me = i32::try_from(std::process::id()).unwrap_or_default();
        Self {
            busy: busy(&fs::read_to_string("/proc/stat").unwrap_or_default()),
            ours: time(family(&all, me)),
            at: std::time::Instant::now(),
        }
    }

    /// The share of the machine that others used since.
    pub fn others(&self, cores: usize) -> f64 {
        let now = Self::now();
        let busy = now.busy.saturating_sub(self.busy);
        let others = busy.saturating_sub(now.ours.saturating_sub(self.ours));
        let all = self.at.elapsed().as_secs_f64() * super::sheet::real(cores.max(1) as u64);
        if all > 0.0 {
            others.as_secs_f64() / all
        } else {
            0.0
        }
    }
}

fn time(ticks: u64) -> Duration {
    Duration::from_secs(ticks) / TICKS
}

/// All that was not idle: user, nice, system, interrupts.
fn busy(stat: &str) -> Duration {
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // idle and waiting for a disk are fourth and fifth; time of guests is in the first two already
    let ticks = fields
        .iter()
        .take(7)
        .enumerate()
        .filter(|(place, _)| !matches!(place, 3 | 4))
        .map(|(_, ticks)| ticks)
        .sum();
    time(ticks)
}

fn read_all() -> HashMap<i32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse(&stat)?))
        })
        .collect()
}

/// The name in brackets may itself hold brackets and spaces.
fn parse(stat: &str) -> Option<Stat> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |place: usize| -> Option<u64> { fields.get(place)?.parse().ok() };
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: ticks(11)? + ticks(12)?,
        ended: ticks(13)? + ticks(14)?,
    })
}

/// Ticks of a process and everything below it.
fn family(all: &HashMap<i32, Stat>, root: i32) -> u64 {
    let mut sum = 0;
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        let Some(stat) = all.get(&pid) else { continue };
        sum += stat.own + stat.ended;
        let children = all.iter().filter(|(_, child)| child.parent == pid);
        next.extend(children.map(|(child, _)| *child));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(parent: i32, own: u64, ended: u64) -> Stat {
        Stat { parent, own, ended }
    }

    #[test]
    fn a_family_counts_with_those_that_ended() {
        let all = HashMap::from([
            (1, stat(0, 1_000, 0)),
            (2, stat(1, 5, 7)),
            (3, stat(2, 11, 0)),
            (4, stat(3, 13, 1)),
            (5, stat(1, 100, 0)),
        ]);
        assert_eq!(family(&all, 2), 5 + 7 + 11 + 13 + 1);
        assert_eq!(family(&all, 9), 0);
    }

    #[test]
    fn a_line_of_the_kernel_is_read_whatever_the_name() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 9876 1 2";
        assert_eq!(parse(line), Some(stat(7, 120, 7)));
    }

    #[test]
    fn the_time_for_each_is_in_microseconds() {
        let cpu = |ms| Cpu {
            by_process: HashMap::from([("sender", Duration::from_millis(ms))]),
        };
        let split = cpu(1_500).per(&cpu(500), 10_000);
        assert_eq!(split.len(), PROCESSES.len());
        assert!(split.contains(&("sender", 100.0)), "{split:?}");
        assert!(split.contains(&("redis", 0.0)), "{split:?}");
    }

    #[test]
    fn idle_time_is_not_busy() {
        let stat = "cpu  100 10 50 9000 700 5 5 0 40 0\ncpu0 1 1 1 1\n";
        assert_eq!(busy(stat), Duration::from_millis(1_700));
    }

    #[test]
    fn my_own_time_is_found() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(read_all().contains_key(&me));
    }
}
