//! What each publish asks of the broker, chosen once, at start.
//!
//! All of it is asked for unless a guarantee is off (see [`crate::guarantee`]).

use lapin::{
    BasicProperties, Channel,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};

use crate::{
    Error,
    connection::within,
    envelope::{DeliveryMode, Envelope, Identity},
    guarantee::{Guarantee, Without},
};

/// How a publisher publishes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    confirms: Confirms,
    mandatory: bool,
    mode: DeliveryMode,
    identity: Identity,
}

#[derive(Debug, Clone, Copy)]
enum Confirms {
    /// The broker says of each message whether it has it.
    Awaited,
    /// Without confirm mode the library takes every message for published at once.
    NotAsked,
}

impl Manner {
    pub(crate) fn new(without: &Without) -> Self {
        Self {
            confirms: if without.has(Guarantee::Confirms) {
                Confirms::NotAsked
            } else {
                Confirms::Awaited
            },
            mandatory: !without.has(Guarantee::Mandatory),
            mode: if without.has(Guarantee::Persistence) {
                DeliveryMode::Transient
            } else {
                DeliveryMode::Persistent
            },
            identity: if without.has(Guarantee::MessageId) {
                Identity::NewEachTime
            } else {
                Identity::MadeOnce
            },
        }
    }

    /// Makes a new channel one to publish on.
    pub(crate) async fn prepare(self, channel: &Channel) -> Result<(), Error> {
        match self.confirms {
            Confirms::Awaited => {
                let confirms = channel.confirm_select(ConfirmSelectOptions::default());
                within("confirm mode", confirms).await
            }
            Confirms::NotAsked => Ok(()),
        }
    }

    pub(crate) fn options(self) -> BasicPublishOptions {
        BasicPublishOptions {
            // what no queue takes comes back instead of being confirmed and dropped
            mandatory: self.mandatory,
            immediate: false,
        }
    }

    pub(crate) fn properties(self, envelope: &Envelope) -> BasicProperties {
        envelope.properties(self.mode, self.identity)
    }
}
