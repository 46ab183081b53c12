//! The pages as people meet them: in a real browser, through the gateway, with and without script;
//! and as clumsy programs meet them, by hand.
//!
//! One stack serves all tests of what people write and read, another one those of the lab, a third one those of notes, leases
//! and sign-up. So each of them writes texts
//! of its own, and what is done to the lab's stack waits for its turn. Pictures are taken where `SCREENSHOTS` names a
//! folder, as `lab screenshots` does.

// Said in so many words, so that clippy knows the helpers for tests too.
#[cfg(test)]
mod away;
#[cfg(test)]
mod browser;
#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod deeds;
#[cfg(test)]
mod every_page;
#[cfg(test)]
mod keyboard;
#[cfg(test)]
mod live;
#[cfg(test)]
mod others;
#[cfg(test)]
mod people;
#[cfg(test)]
mod stack;
