//! The body of a message from a sender to a receiver: the one thing both services must agree on.

use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, NotOurs};

/// Kind and version of the body. A service with a road of its own may send the same body under a kind of its own.
pub const KIND: &str = "message.v1";

/// What a person wrote. Unknown fields are ignored, so that a newer sender can add some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The sender's running number.
    pub number: i64,
    /// As written, trimmed.
    pub text: String,
}

impl Message {
    /// As JSON.
    pub fn to_body(&self) -> Vec<u8> {
        serde_json::json!(self).to_string().into_bytes()
    }

    /// Reads the body of an envelope of [`KIND`].
    ///
    /// # Errors
    /// It is not JSON of this form, or its text could not be stored.
    pub fn read(envelope: &Envelope) -> Result<Self, NotOurs> {
        let message: Self = serde_json::from_slice(&envelope.body)
            .map_err(|error| NotOurs::Body(error.to_string()))?;
        if message.text.contains('\0') {
            return Err(NotOurs::Body("its text has a NUL character".to_owned()));
        }
        Ok(message)
    }
}
