//! Sign-up over HTTP, on real servers and with real processes; only the mail server is ours, since it must
//! say no, or die, on order.

mod accounts;
mod fields;
mod logins;
mod mails;
mod rights;
mod tokens;
mod world;
