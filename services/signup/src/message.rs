//! The body of a message from the API to those who send the mails: the one thing that both roles must agree on.

use messaging::envelope::{Envelope, NotOurs};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Kind and version of the body.
pub(crate) const KIND: &str = "welcome.v1";

/// Whom to welcome. Unknown fields are ignored, so that a newer API can add some.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) user_id: Uuid,
    pub(crate) first_name: String,
    pub(crate) last_name: String,
    pub(crate) email: String,
}

/// Without the address: it belongs into no log.
impl std::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user_id = &self.user_id;
        f.debug_struct("Welcome")
            .field("user_id", user_id)
            .finish_non_exhaustive()
    }
}

impl Welcome {
    /// As JSON.
    pub(crate) fn to_body(&self) -> Vec<u8> {
        serde_json::json!(self).to_string().into_bytes()
    }

    /// Reads the body of an envelope of [`KIND`].
    ///
    /// # Errors
    /// It is not JSON of this form. What is wrong is told without what it says.
    pub(crate) fn read(envelope: &Envelope) -> Result<Self, NotOurs> {
        serde_json::from_slice(&envelope.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            NotOurs::Body(format!("line {line}, column {column}: not a welcome"))
        })
    }
}
