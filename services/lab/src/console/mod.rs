//! The lab's console: what people see and do at `/lab`.
//!
//! A process of its own (`lab console`), which `lab up` starts and keeps; it listens on loopback, behind the gateway. It
//! looks from outside, as every command of the lab does ([`ground`]): what nodes say of themselves ([`figures`]), the
//! broker's counts, the ledger as the role that only reads ([`balance`]), and what nodes announce through Redis ([`hear`]).
//! Once a second all of it becomes one picture ([`picture`]), which goes to the readers of `/lab/live` ([`feed`]).
//!
//! Everything under `/lab` passes one layer ([`guard`]): everybody may look, and whoever signed in ([`access`]) may act.
//! Each deed is written down ([`actions`]), also when it was refused. What acts is what the commands use too: faults are
//! asked of `lab up`, loads go through the gateway, experiments are played on a stage of their own. Passports, the search and
//! dead letters are rooms of their own, which this process serves too ([`rooms`]).
//!
//! What can go wrong between two lines: the console dies. Then a load of its own stops being offered (its record is on disk),
//! an experiment is left to be healed by whoever opens its stage next, and faults stay as they are, noted by `lab up`.

pub mod access;
pub mod actions;
pub mod app;
pub mod args;
pub mod balance;
pub mod count;
pub mod deeds;
pub mod experiments;
pub mod eye;
pub mod feed;
mod fields;
pub mod figures;
pub mod ground;
pub mod guard;
pub mod hear;
pub mod history;
pub mod knobs;
pub mod lab;
pub mod live;
pub mod load;
pub mod picture;
pub mod proven;
pub mod rooms;
mod run;
pub mod sign_in;

pub use args::ConsoleArgs;
pub use run::{all_deeds, run};
