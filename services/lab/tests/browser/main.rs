//! The pages as people meet them: in a real browser, through the gateway, with and without script;
//! and as clumsy programs meet them, by hand.
//!
//! One stack serves all of these tests at once, so each of them writes texts of its own. Pictures
//! are taken where `SCREENSHOTS` names a folder.

// Said in so many words, so that clippy knows the helpers for tests too.
#[cfg(test)]
mod away;
#[cfg(test)]
mod browser;
#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod people;
#[cfg(test)]
mod stack;
