//! Dead letters are sent back on purpose: planned, started, and then done by any receiver.
//!
//! 1. [`Redrives::plan`] fixes which dead letters it is about: rows that are parked at that moment, by the database's clock.
//!    What is parked later is not swept in. It says how many have an effect already, so that replaying them changes nothing.
//!    An order of nothing is not made.
//! 2. [`Redrives::start`] lets receivers at it. One holds it by a lease ([`Redriver`]), and takes a batch at a time, no faster
//!    than was asked for. In one commit the dead letters are marked and have rows in the receiver's own outbox; those whose
//!    message has its effect are marked only.
//! 3. [`Outgoing`] publishes the rows, under the ids that they always had, on a connection of its own: a broker that is short
//!    of memory blocks connections that publish, and on that of a consumer the acks would wait too.
//!
//! What is sent back begins anew: its failures are counted from there on, and in its header travels the how manieth redrive it
//! is. Given up on again, it is another dead letter, with that number.
//!
//! Between two lines: die before the commit: nothing of the batch happened. Die after it: rows wait in the outbox, and another
//! receiver publishes them and goes on with the rest when the lease has ended. A cancel waits for the commit of a batch, so
//! that the counts are right when it returns; what is in the outbox by then still goes. Nothing is lost, and what is published
//! twice the inbox knows.

mod deed;
mod not_done;
mod outgoing;
mod selection;
mod settled;
mod table;
mod walk;

pub use deed::Redriver;
pub use not_done::NotDone;
pub use outgoing::{Lent, Outgoing};
pub use selection::Selection;
pub use table::{Order, Redrive, Redrives, State};
