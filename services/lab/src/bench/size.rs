//! How much of everything: the usual form, the short one that only shows that it works, the long one.

use std::time::Duration;

/// How long and how many.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// What each load does before anything counts.
    pub warm: Duration,
    /// How long each load is measured.
    pub window: Duration,
    /// Bytes of a text, and of a bare message.
    pub text: usize,
    /// Bare messages of each way.
    pub raw: u64,
    pub accept: &'static [usize],
    pub pages: usize,
    /// Messages that wait, and how many receivers take them.
    pub drain: u64,
    pub receivers: &'static [usize],
    /// The pipeline: how long it is overloaded, tried, and held; how many trials of each kind.
    pub overload: Duration,
    pub trial: Duration,
    pub hold: Duration,
    pub half: Duration,
    /// What one in a hundred may exceed while a rate is held, and how far behind the system may be at the end.
    pub bound: Duration,
    pub trials: usize,
    pub holds: usize,
    /// The mission: how many receivers, for how long, with which longest work.
    pub mission: &'static [usize],
    pub mission_time: Duration,
    pub mission_delay: Duration,
    /// Rows behind, sessions, receivers, and messages of each drain before so many rows.
    pub rows: &'static [u64],
    pub sessions: &'static [u64],
    pub growing: &'static [usize],
    pub small: u64,
    /// The search: messages, how often one page is asked for, and how far it goes.
    pub searched: u64,
    pub searches: u64,
    pub searched_pages: u64,
    /// Leases: messages that are ready or in hand while much is leased or confirmed, and those that pass through.
    pub leased: u64,
    pub passed: u64,
    /// How long nodes are idle before their memory is looked at.
    pub idle: Duration,
    /// The vacuum run.
    pub vacuum: Duration,
    /// No round begins that would end later.
    pub rounds_limit: Duration,
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Under half an hour.
pub const USUAL: Size = Size {
    warm: secs(1),
    window: secs(4),
    text: 256,
    raw: 50_000,
    accept: &[1, 8, 64, 256],
    pages: 64,
    drain: 100_000,
    receivers: &[1, 2, 4],
    overload: secs(6),
    trial: secs(8),
    hold: secs(30),
    half: secs(15),
    bound: secs(1),
    trials: 4,
    holds: 5,
    mission: &[2, 8],
    mission_time: secs(40),
    mission_delay: secs(5),
    rows: &[1_000, 100_000, 1_000_000],
    sessions: &[10, 100_000],
    growing: &[1, 2, 4, 8, 16],
    small: 20_000,
    searched: 400_000,
    searches: 20,
    searched_pages: 1_000,
    leased: 200_000,
    passed: 200_000,
    idle: secs(10),
    vacuum: secs(0),
    // what is measured once needs the rest of the half hour
    rounds_limit: secs(18 * 60),
};

/// For CI: everything once, and no figure that means anything.
pub const SHORT: Size = Size {
    warm: millis(50),
    // long enough for a busy machine to answer at all
    window: secs(1),
    raw: 300,
    accept: &[1, 8],
    pages: 8,
    drain: 300,
    receivers: &[1, 2],
    overload: secs(3),
    trial: millis(500),
    hold: secs(1),
    half: millis(500),
    // whatever else the machine does
    bound: secs(60),
    trials: 1,
    holds: 2,
    mission: &[1],
    mission_time: secs(2),
    mission_delay: millis(100),
    rows: &[100, 1_000],
    sessions: &[5, 50],
    growing: &[1, 2],
    small: 100,
    searched: 2_000,
    searches: 2,
    searched_pages: 10,
    leased: 60_000,
    passed: 200,
    idle: millis(500),
    ..USUAL
};

/// Hours do not matter.
pub const LONG: Size = Size {
    rows: &[1_000, 100_000, 1_000_000, 3_000_000],
    searched: 1_000_000,
    passed: 1_000_000,
    vacuum: secs(30 * 60),
    rounds_limit: secs(6 * 3_600),
    ..USUAL
};
