//! The lease queue from outside, over HTTP, on real servers and with real processes.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod apart;
mod away;
mod contract;
mod crash;
mod served;
mod waiting;
