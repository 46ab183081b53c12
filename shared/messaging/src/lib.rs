//! The road of a message between two databases, over RabbitMQ.
//!
//! In the order in which a message travels:
//!
//! 1. [`text`]: what may be sent.
//! 2. [`send::accept`]: stores messages with their outbox rows, many in one commit.
//! 3. [`envelope`]: what is on the wire, and [`message`]: the body in it.
//! 4. [`send::outbox`]: the message waits here from the commit that accepted it.
//! 5. [`send::relay`]: claims waiting rows under a lease and sees each to its end.
//! 6. [`send::publisher`]: the only code that publishes; persistent, mandatory, confirmed.
//! 7. [`topology`]: the only code that declares exchanges, queues and bindings.
//! 8. [`receive::consumer`]: takes deliveries, PREFETCH at a time, and settles each exactly once.
//! 9. [`receive::inbox`]: a message whose effect is committed has no second one; [`receive::window`] keeps it small.
//! 10. [`receive::processor`]: look, work, effect; a failure of the work is counted.
//! 11. [`receive::settle`]: ack, requeue or dead letter.
//! 12. [`receive::dead_letter`]: what was given up on is parked in Postgres.
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
pub mod text;
pub mod topology;
pub mod watching;

pub use arguments::Topology;
pub use deadline::bounded;
pub use error::{Error, Setting};
pub use kept::Kept;
