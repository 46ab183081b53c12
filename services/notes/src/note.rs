//! What the two roles must agree on: the road, and what travels on it.

use messaging::topology::Road;

/// The names on the broker.
pub const ROAD: Road = Road {
    messages: "notes",
    dead: "notes.dead",
};

/// Kind and version of the body, which is a [`messaging::message::Message`].
pub const KIND: &str = "note.v1";
