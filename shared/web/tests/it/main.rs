//! The frame around pages, and sessions in a real Redis, with a network before it that can be cut.

// Said once more, so that clippy knows its helpers for tests too.
#[cfg(test)]
mod errors;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod site;
