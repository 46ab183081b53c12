//! Sign-up over HTTP, on real servers and with real processes; only the mail server is ours, since it must
//! say no, or die, on order.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod accounts;
mod fields;
mod guard;
mod logins;
mod mails;
mod rights;
mod tls;
mod tokens;
mod world;
