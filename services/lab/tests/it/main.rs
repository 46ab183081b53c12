//! The road of a message, tested on the real servers with real processes.
//!
//! `world` is what each test has to itself: a database, a vhost, and nodes to start, pause and kill.
//! `check` is the naive checker that says what became of every message.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod accept;
mod acks;
mod audit;
mod bad_input;
mod balance;
mod bench;
mod chaos_toolkit;
mod check;
mod console;
mod cuts;
mod dead;
mod down;
mod experiment;
mod faults;
mod foreign;
mod gateway;
mod guarantees;
mod inbox;
mod kept;
mod knobs;
mod ladder;
mod late;
mod leaving;
mod live;
mod load;
mod load_command;
mod marks;
mod matrix;
mod metrics;
mod mission;
mod orders;
mod passport;
mod prune;
mod records;
mod recovery;
mod redrive;
mod reload;
mod retries;
mod road;
mod search;
mod served;
mod service;
mod settings;
mod stack;
mod storm;
mod topology;
mod up;
mod window;
mod with;
mod world;
