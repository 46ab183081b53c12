//! A receiver: takes messages from the queue, works on them, and stores the effect of each once.
//!
//! [`process`] is the work, [`messaging::receive`] everything around it; [`received`] is the page. All
//! state is in Postgres and in the queue: a receiver may die at any line, and what it had in hand goes
//! to another.

pub mod app;
pub mod config;
pub mod dead_letters;
pub mod process;
pub mod processed;
pub mod received;

use std::{process::ExitCode, sync::Arc, time::Duration};

use axum::Router;
use chaos::FailPoints;
use daemon::{
    WrongSetting, database::Database, lifecycle::Lifecycle, ops::Told, parts::Part,
    process::Process, tally::Tally,
};
use messaging::{
    connection::{Broker, Link},
    guarantee::Guarantee,
    message::{KIND, Message},
    receive::{
        self,
        consumer::{Consumer, Deed},
        dead_letter::{self, Parking},
        history,
        ladder::ladder,
        manner::Manner,
        processor::{self, Policy},
        retry::{Retry, RetryBy},
    },
    topology,
};
use tokio::{net::TcpListener, sync::watch};

pub use app::App;
pub use config::Config;

/// Runs a receiver until a signal, and gives its exit code: 0 clean, 1 failed, 2 a wrong setting.
pub fn main_with(config: &Config) -> ExitCode {
    let start = |listener, ops_listener, lifecycle: &Lifecycle| {
        run(config, listener, ops_listener, lifecycle)
    };
    config
        .process
        .run(&config.listen, &config.ops_listen, start)
}

/// Starts a receiver on the lifecycle. Servers that are away are waited for in the background.
///
/// # Errors
/// A wrong setting.
pub fn run(
    config: &Config,
    listener: TcpListener,
    ops_listener: TcpListener,
    lifecycle: &Lifecycle,
) -> anyhow::Result<()> {
    let process = config.process.begin("receiver")?;
    messaging::numbers::register_receiver();
    web::numbers::register();
    let Process {
        node,
        parts,
        fail_points,
        database,
        redis,
        ..
    } = process.clone();
    let broker = config.broker(&node.name)?;
    let without = &config.broker.without;
    let knobs = config.work.knobs()?;
    let sessions = web::session::Sessions::new(redis, parts.part("redis"), &config.sessions)
        .with_prefix(&config.process.redis.redis_prefix);
    let pool = database.pool.clone();
    let tally = Arc::<Tally>::default();

    let (history, recorder) = history::history(pool.clone(), node.name.clone());
    let work = Arc::new(process::Work {
        knobs: knobs.clone(),
        poison_prefix: config.work.work_poison_prefix.clone(),
        node: node.name.clone(),
        tally: Arc::clone(&tally),
    });
    let policy = Policy {
        max_failures: config.work_max_failures,
        max_deliveries: config.max_deliveries,
        retry: retry(config, &broker, &fail_points, lifecycle),
    };
    let (processor, committer) = processor::processor(
        pool.clone(),
        node.name.clone(),
        work,
        policy,
        without,
        fail_points.clone(),
        history,
    );
    let held = processor.held();
    let (consumer, link) = Consumer::new(
        broker.clone(),
        "consumer",
        topology::MESSAGES,
        Manner::new(config.prefetch, without),
        fail_points.clone(),
        Arc::new(processor),
    );
    let parking = Parking::new(
        pool,
        node.name.clone(),
        KIND,
        |e| Message::read(e).map(drop),
        fail_points.clone(),
    );
    let (dead_letters, parking_link) = Consumer::new(
        broker,
        "dead letters",
        topology::DEAD,
        Manner::safe(dead_letter::PREFETCH),
        fail_points.clone(),
        Arc::new(parking),
    );
    let app = App {
        node: Arc::clone(&node),
        database: database.clone(),
        parts: parts.clone(),
        sessions: sessions.clone(),
        held,
        tally,
    };

    database.migrate_until_done(vec![receive::migrator(), sqlx::migrate!()], lifecycle);
    let stopping = lifecycle.stopping();
    lifecycle.spawn(
        "session index",
        sessions.clone().keep_index(stopping.clone()),
    );
    let links = tell_links(parts.part("rabbitmq"), [link, parking_link]);
    lifecycle.spawn("broker state", async move {
        stopping.run_until_cancelled(links).await;
        Ok(())
    });
    // These two end with the last delivery, which is after the stop.
    lifecycle.spawn_once("effects", async move {
        committer.run().await;
        Ok(())
    });
    lifecycle.spawn_once("history", async move {
        recorder.run().await;
        Ok(())
    });
    consume(lifecycle, "consumer", database.clone(), consumer);
    consume(lifecycle, "dead letters", database, dead_letters);

    let told = Told {
        ready_needs: &["postgres", "rabbitmq"],
        without: without.iter().map(Guarantee::name).collect(),
        knobs: Some(knobs),
        settings: config.all.clone(),
    };
    process.watch_and_tell(ops_listener, told, lifecycle);
    if without.has(Guarantee::Drain) {
        process.end_at_once(lifecycle);
    }
    without.tell();
    let router = Router::new().merge(received::routes()).with_state(app);
    let site = web::Site {
        node,
        parts,
        sessions,
        meanings: received::MEANINGS,
        guarantees_off: without.warnings(),
    };
    daemon::http::serve(listener, web::wrap(router, site), lifecycle);
    Ok(())
}

/// How a failed message comes back. The ladder ends with the last delivery, which is after the stop.
fn retry(
    config: &Config,
    broker: &Broker,
    fail_points: &FailPoints,
    lifecycle: &Lifecycle,
) -> Retry {
    match config.retry.retry {
        RetryBy::Requeue => Retry::Requeue(Duration::from_millis(config.retry.retry_hold_ms)),
        RetryBy::Ladder => {
            let rungs = config.retry.retry_ladder_ms.clone();
            let (ladder, climber) = ladder(broker.clone(), rungs, fail_points.clone());
            lifecycle.spawn_once("ladder", async move {
                climber.run().await.map_err(|error| final_error(&error))
            });
            Retry::Ladder(ladder)
        }
    }
}

/// An error that no new session can mend is a setting that does not fit the broker.
fn final_error(error: &messaging::Error) -> anyhow::Error {
    WrongSetting::because("QUEUE_TYPE", error.to_string()).into()
}

/// The broker is there when both sessions are: a node that takes messages but cannot park them is
/// not what it should be.
async fn tell_links(part: Part, mut links: [watch::Receiver<Link>; 2]) {
    loop {
        let now = links
            .each_mut()
            .map(|link| link.borrow_and_update().clone());
        if let Some(worst) = now.iter().max_by_key(|link| trouble(link)) {
            tell_link(&part, worst);
        }
        let [consuming, parking] = &mut links;
        let changed = tokio::select! {
            changed = consuming.changed() => changed,
            changed = parking.changed() => changed,
        };
        if changed.is_err() {
            // A session ended for good; whether that is right is not for us to say.
            std::future::pending::<()>().await;
        }
    }
}

fn trouble(link: &Link) -> u8 {
    match link {
        Link::Open => 0,
        Link::Blocked(_) => 1,
        Link::Connecting => 2,
        Link::Closed => 3,
        Link::Away(_) => 4,
    }
}

fn tell_link(part: &Part, link: &Link) {
    match link {
        Link::Connecting => part.starting("not connected yet"),
        Link::Open => part.up(),
        Link::Blocked(reason) => part.note(format!("publishing is blocked: {reason}")),
        Link::Away(reason) => part.away(reason),
        Link::Closed => part.away("stopped"),
    }
}

/// Takes deliveries as soon as there are tables to store anything in.
fn consume<D: Deed + 'static>(
    lifecycle: &Lifecycle,
    name: &'static str,
    database: Database,
    consumer: Consumer<D>,
) {
    let stop = lifecycle.stopping();
    lifecycle.spawn(name, async move {
        if stop
            .run_until_cancelled(database.migrated())
            .await
            .is_none()
        {
            return Ok(());
        }
        consumer
            .run(stop)
            .await
            .map_err(|error| final_error(&error))
    });
}
