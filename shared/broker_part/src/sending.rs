//! The sending half of a service, wired: what is handed in is stored, counted and published.
//!
//! All of it begins when there are tables, so the migrations must have been asked for before.

use daemon::{lifecycle::Lifecycle, process::Process};
use messaging::{
    connection::{Broker, Link},
    send::{
        accept::{AcceptSettings, SendArgs, Submissions, accept},
        outbox::Depth,
        relay::{Handover, Relay, RelaySettings},
    },
    watching::Watching,
};
use tokio::sync::watch;

use crate::ended;

/// The accepting end of a service whose relay runs.
pub struct Sending {
    /// Where submissions are handed in.
    pub submissions: Submissions,
    /// What waits to be published, counted about once a second.
    pub depth: watch::Receiver<Depth>,
    /// The relay's.
    pub link: watch::Receiver<Link>,
}

/// Starts to accept messages of this kind, and to publish them.
pub fn send(
    process: &Process,
    broker: Broker,
    args: &SendArgs,
    kind: &'static str,
    watching: Watching,
    lifecycle: &Lifecycle,
) -> Sending {
    let (handover, link) = publish(process, broker, args, watching.clone(), lifecycle);
    let settings = AcceptSettings {
        node: process.node.name.clone(),
        kind,
        outbox_max: args.outbox_max,
        watching,
    };
    let fail_points = process.fail_points.clone();
    let accept = accept(&process.database.pool, settings, handover, fail_points);
    let (counter, stopping) = (accept.counter, lifecycle.stopping());
    lifecycle.spawn("outbox depth", async move {
        counter.run(stopping).await;
        Ok(())
    });
    // Ends when the last page that could hand something in is gone, which is after the stop.
    let store = accept.store;
    lifecycle.spawn_once("store", async move {
        store.run().await;
        Ok(())
    });
    Sending {
        submissions: accept.submissions,
        depth: accept.depth,
        link,
    }
}

/// Starts to publish what is in the outbox; gives the accepting side's end, and the state of the link.
pub fn publish(
    process: &Process,
    broker: Broker,
    args: &SendArgs,
    watching: Watching,
    lifecycle: &Lifecycle,
) -> (Handover, watch::Receiver<Link>) {
    let settings = RelaySettings {
        node: process.node.name.clone(),
        window: usize::from(args.publish_window),
        watching,
        role: "publisher",
        lent: None,
    };
    let pool = process.database.pool.clone();
    let fail_points = process.fail_points.clone();
    let (relay, handover, link) = Relay::new(broker, pool, settings, fail_points);
    let run = |stop| async move { ended(relay.run(stop).await) };
    process
        .database
        .spawn_when_migrated("relay", lifecycle, run);
    (handover, link)
}
