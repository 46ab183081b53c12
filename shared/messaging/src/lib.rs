//! The road of a message between two databases, over RabbitMQ.
//!
//! In the order in which a message travels:
//!
//! 1. [`envelope`]: what is on the wire, and [`message`]: the body in it.
//! 2. [`send::outbox`]: the message waits here from the commit that accepted it.
//! 3. [`send::relay`]: claims waiting rows under a lease and sees each to its end.
//! 4. [`send::publisher`]: the only code that publishes; persistent, mandatory, confirmed.
//! 5. [`topology`]: the only code that declares exchanges, queues and bindings.
//! 6. [`receive::consumer`]: takes deliveries, PREFETCH at a time, and settles each exactly once.
//! 7. [`receive::inbox`]: a message whose effect is committed has no second one; [`receive::window`] keeps it small.
//! 8. [`receive::processor`]: look, work, effect; a failure of the work is counted.
//! 9. [`receive::settle`]: ack, requeue or dead letter.
//! 10. [`receive::dead_letter`]: what was given up on is parked in Postgres.
//!
//! What is promised: a message whose accepting commit succeeded is published at least once, and its
//! effect is committed at most once per message id. Together: exactly one effect, or one dead letter.
//! [`connection`] says how a session with the broker starts and ends; every await on it has a deadline.
#![warn(missing_docs)]

mod arguments;
pub mod connection;
mod deadline;
pub mod envelope;
mod error;
pub mod guarantee;
mod kept;
pub mod message;
pub mod numbers;
pub mod receive;
pub mod send;
pub mod topology;
pub mod watching;

pub use arguments::Topology;
pub use deadline::bounded;
pub use error::{Error, Setting};
pub use kept::Kept;
