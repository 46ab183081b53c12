//! Notes, tested on the real servers with real processes, over HTTP only where a client could.
//!
//! `world` is what each test has to itself, and the client.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod burst;
mod cache;
mod crash;
mod page;
mod race;
mod save;
mod seed;
mod settings;
mod world;
