//! What nodes tell each other over Redis: what happens, for live pages, and how the knobs stand.
//!
//! Nothing here may be missed. An [`Announcer`] never waits: what finds no room is left out, and
//! counted. Without Redis, frames are thrown away and pages say that they are not live; messages go
//! their way. Totals since a node's start travel in each frame, so a frame that was lost is seen in
//! the next one.
//!
//! [`frame`] is the wire. [`announcer`] says, [`listener`] hears, [`knobs`] keeps settings of the
//! simulated work alike on all nodes.

#![warn(missing_docs)]

use std::sync::Arc;

use daemon::{lifecycle::Lifecycle, process::Process, redis::RedisArgs};

pub mod announcer;
pub mod frame;
pub mod knobs;
pub mod listener;
mod sample;

pub use announcer::{Announcer, Voice};
pub use frame::{Event, Frame, Gauges, Kind};
pub use knobs::{KnobReader, KnobWriter, Target};
pub use listener::{Heard, Listener};

/// The settings of live pages.
#[derive(Debug, Clone, clap::Args)]
pub struct LiveArgs {
    /// Tell other nodes over Redis what happens, and let pages follow
    #[arg(long, env = "LIVE", default_value_t = true, action = clap::ArgAction::Set)]
    pub live: bool,
}

/// The mouth and the ears of a process.
pub struct Live {
    /// Where events go.
    pub announcer: Announcer,
    /// What publishes them; none where nothing is announced.
    pub voice: Option<Voice>,
    /// What other nodes say, and this one.
    pub listener: Listener,
}

impl LiveArgs {
    /// Opens both, as the settings say. The voice is not running yet.
    pub fn open(&self, process: &Process, redis: &RedisArgs, lifecycle: &Lifecycle) -> Live {
        announcer::register();
        if !self.live {
            return Live {
                announcer: Announcer::off(),
                voice: None,
                listener: Listener::silent("it is switched off"),
            };
        }
        let node = Arc::clone(&process.node);
        let (announcer, voice) = Announcer::new(node, process.redis.clone(), &redis.redis_prefix);
        Live {
            announcer,
            voice: Some(voice),
            listener: Listener::start(redis, lifecycle),
        }
    }
}

/// The channel that frames go through.
pub fn channel(prefix: &str) -> String {
    format!("{prefix}live")
}
