//! The load's own record, second by second: what was offered, what was accepted, and how long that took.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::path::Path;

use hdrhistogram::Histogram;

use crate::run::requests::{self, Answer, Line};

/// Most slices; a longer run has wider ones.
const SLICES: u64 = 300;
const SECOND_US: u64 = 1_000_000;

/// Messages and times by slice. A message counts in the slice in which its request was due or answered; a latency in
/// the slice in which its request was due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) slice_us: u64,
    pub(crate) offered: Vec<u64>,
    pub(crate) accepted: Vec<u64>,
    /// p50, p99 and the longest from due to accepted, in microseconds; none: nothing of that slice was accepted.
    pub(crate) latency: Vec<Option<[u64; 3]>>,
}

impl Recorded {
    /// None: there is no record, or it is empty.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let mut last = None;
        each(path, |line| last = last.max(Some(time(line))))?;
        let Some(last) = last else { return Ok(None) };
        let slice_us = (last / SLICES / SECOND_US + 1) * SECOND_US;
        let count = usize::try_from(last / slice_us + 1).unwrap_or(usize::MAX);
        // the record of a load that still runs may have grown since
        let place = |us: u64| {
            usize::try_from(us / slice_us)
                .unwrap_or(usize::MAX)
                .min(count - 1)
        };
        let mut recorded = Self {
            slice_us,
            offered: vec![0; count],
            accepted: vec![0; count],
            latency: vec![None; count],
        };
        // two digits: it is for a picture
        let new = || Histogram::<u64>::new(2).ok();
        let mut times: Vec<Option<Histogram<u64>>> = (0..count).map(|_| None).collect();
        let mut open = HashMap::new();
        each(path, |line| match line {
            Line::Named(_) => {}
            Line::Offered(offered) => {
                recorded.offered[place(offered.due_us)] += u64::from(offered.messages);
                open.insert(offered.number, (offered.due_us, offered.messages));
            }
            Line::Answered(answered) => {
                let Some((due, messages)) = open.remove(&answered.number) else {
                    return;
                };
                if answered.answer == Answer::Accepted {
                    recorded.accepted[place(answered.done_us)] += u64::from(messages);
                    let slot = &mut times[place(due)];
                    if slot.is_none() {
                        *slot = new();
                    }
                    if let Some(times) = slot {
                        // a histogram that grows by itself takes any value
                        let _ = times.record(answered.done_us.saturating_sub(due));
                    }
                }
            }
        })?;
        for (slot, times) in recorded.latency.iter_mut().zip(times) {
            *slot = times.map(|times| {
                [
                    times.value_at_quantile(0.5),
                    times.value_at_quantile(0.99),
                    times.max(),
                ]
            });
        }
        Ok(Some(recorded))
    }
}

fn time(line: &Line) -> u64 {
    match line {
        Line::Offered(offered) => offered.due_us,
        Line::Answered(answered) => answered.done_us,
        // said at the same time as its answer
        Line::Named(_) => 0,
    }
}

/// Lines that are damaged are left out: the audit says so, and a picture can do without.
fn each(path: &Path, mut see: impl FnMut(&Line)) -> io::Result<()> {
    for line in requests::read(path)? {
        match line {
            Ok(line) => see(&line),
            Err(error) if error.kind() == ErrorKind::InvalidData => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::run::tests::Root;

    #[test]
    fn messages_count_where_they_were_due_and_where_they_were_answered() {
        let root = Root::new();
        let run = root.run("r1");
        let path = run.path(requests::FILE);
        assert_eq!(Recorded::read(&path).unwrap(), None);
        let log = "o 0 0 2 0\no 1 500000 2 0\na 0 accepted 1 4000\nnonsense\no 2 1500000 2 0\na 1 accepted 3 2500000\na 2 refused 1 2600000\no 3 2700000 2 0\n";
        fs::write(&path, log).unwrap();
        let recorded = Recorded::read(&path).unwrap().unwrap();
        assert_eq!(recorded.slice_us, SECOND_US);
        assert_eq!(recorded.offered, [4, 2, 2]);
        assert_eq!(recorded.accepted, [2, 0, 2]);
        let [p50, p99, longest] = recorded.latency[0].unwrap();
        assert!((3_900..=4_100).contains(&p50), "{p50}");
        assert!(
            (1_980_000..=2_020_000).contains(&p99) && longest >= p99,
            "{p99} {longest}"
        );
        assert_eq!(recorded.latency[1..], [None, None]);
    }

    #[test]
    fn a_long_run_has_wider_slices_not_more() {
        let root = Root::new();
        let run = root.run("r1");
        let path = run.path(requests::FILE);
        let day = 86_400 * SECOND_US;
        fs::write(
            &path,
            format!("o 0 0 1 0\no 1 {day} 1 0\na 1 accepted 1 {day}\n"),
        )
        .unwrap();
        let recorded = Recorded::read(&path).unwrap().unwrap();
        assert!(
            recorded.offered.len() as u64 <= SLICES,
            "{}",
            recorded.offered.len()
        );
        assert_eq!(recorded.offered.iter().sum::<u64>(), 2);
        assert_eq!(recorded.accepted.last(), Some(&1));
    }
}
