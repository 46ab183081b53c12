//! Every fault, with its evidence.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use lab::faults::injector::NotUndone;
use lab::faults::native::Native;
use lab::faults::{Acted, Evidence, Injector, Order, Site, Which};
use lab::say::{Steps, Usage};
use lab::stack::Stack;
use lab::stack::strike::Target;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use sqlx::{Connection, PgConnection};
use testkit::wait_until;

use super::harms::{Deed, Manages};
use super::nothing::Nothing;
use super::own::Own;
use super::{LIMIT, NOT_SEEN};
use crate::redrive::park;

/// Of every fault, and of one whose evidence is later than that of all others.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_injected_is_seen_what_is_healed_is_over_and_what_is_neither_is_not_seen() {
    let own = Own::start().await;
    own.fresh("faults-1").await;
    own.process_one().await;
    // more than are sent back while somebody looks
    let database = own.stack.addresses().unwrap().database;
    let mut database = PgConnection::connect(&database).await.unwrap();
    park(&mut database, 6_000, "x").await;
    database.close().await.unwrap();
    let site = Native::site(&own.stack);

    let nothing = Site {
        harm: Arc::new(Nothing::default()),
        ..site.clone()
    };
    // not among the notes of the stack: each would be in the way of the others
    let each = super::of_each_stack().map(|entry| {
        let injector = Injector::new(nothing.clone(), &own.root.join(entry.name));
        async move {
            let injected = injector.inject(&Order::new(entry.name)).await;
            let mut active = injected.unwrap_or_else(|error| panic!("{}: {error:#}", entry.name));
            let evidence = injector.see(&mut active, NOT_SEEN).await.unwrap();
            assert!(
                !evidence.happened(),
                "{} was not injected: {evidence:?}",
                entry.name
            );
        }
    });
    join_all(each).await;

    let injector = Injector::new(site, &own.root);
    for entry in super::of_each_stack() {
        let name = entry.name;
        // a message goes through between two: each leaves a stack that works
        own.process_one().await;
        let mut active = injector.inject(&Order::new(name)).await;
        let active = active
            .as_mut()
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(injector.active().unwrap().len(), 1, "{name}");
        let evidence = injector.see(active, LIMIT).await.unwrap();
        assert!(evidence.happened(), "{name}: {evidence:?}");
        if !entry.instant {
            assert!(
                matches!(evidence, Evidence::Seen(_)),
                "{name}: {evidence:?}"
            );
            let again = injector.inject(&Order::new(name).on(Which::All)).await;
            // an unbound queue cannot be aimed at either
            assert!(again.unwrap_err().is::<Usage>(), "{name}");
        }
        let healed = injector.heal(active).await;
        let healed = healed.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(healed.by_itself, entry.instant, "{name}: {healed:?}");
        assert!(injector.active().unwrap().is_empty(), "{name}");
    }
    own.process_one().await;

    heals_by_itself(&own, &injector).await;
    what_lies_in_wait_must_have_met_somebody(&own, &injector).await;
    what_was_published_too_seldom_is_said_and_over(&own).await;
    what_was_refused_was_not_published(&own).await;
    only_a_first_delivery_is_taken_for_a_copy(&own).await;
    only_what_the_inbox_knows_no_more_is_taken_for_forgotten(&own, &injector).await;
    a_redrive_that_is_over_says_how_much_of_it_was_done(&own, &injector).await;
    own.fresh_with("faults-2", &[("LOG", "off")]).await;
    own.process_one().await;
    a_log_that_is_off_tells_nothing(&own, &injector).await;
    own.stack.clear(&Steps::new(&|_| {})).await.unwrap();
    assert!(Box::pin(own.stack.status()).await.nodes.is_empty());
    what_a_killed_lab_left_can_be_removed(&own.stack).await;
    own.stop().await;
}

/// What the services mend before anybody heals it.
async fn heals_by_itself(own: &Own, injector: &Injector) {
    let crash = Order::new("fail-point").with("action", "crash@1");
    let mut active = injector.inject(&crash.on(Which::All)).await.unwrap();
    own.process_one().await;
    injector.see(&mut active, LIMIT).await.unwrap();
    wait_until("a crashed receiver to be back", LIMIT, async || {
        let looked = injector.look(&active).await;
        // the message comes to the other one next, which may crash too
        looked.is_ok_and(|evidence| evidence.text().contains("is gone"))
    })
    .await;
    injector.heal(&active).await.unwrap();
    let acted = text(injector.acted(&active).await.unwrap().unwrap());
    assert!(
        acted.contains("says that settle.before_ack acted"),
        "{acted}"
    );
    own.process_one().await;

    let unbind = injector.inject(&Order::new("queue-unbind")).await;
    let mut unbind = unbind.unwrap();
    let seen = injector.see(&mut unbind, LIMIT).await.unwrap();
    assert!(matches!(seen, Evidence::Seen(_)), "{seen:?}");
    // whoever opens a new session binds the queue again
    let close = Order::new("rabbitmq-close-connection").on(Which::All);
    let mut close = injector.inject(&close).await.unwrap();
    injector.see(&mut close, LIMIT).await.unwrap();
    wait_until("the queue to be bound again", LIMIT, async || {
        let looked = injector.look(&unbind).await;
        matches!(looked, Ok(Evidence::HealedBySelf(_)))
    })
    .await;
    let healed = injector.heal_all().await.unwrap();
    assert_eq!(healed.len(), 2);
    assert!(
        healed
            .iter()
            .all(|(_, healed)| healed.as_ref().unwrap().by_itself),
        "{healed:?}"
    );
}

fn text(acted: Acted) -> String {
    let (Acted::Yes(text) | Acted::No(text) | Acted::CannotTell(text)) = acted;
    text
}

/// An armed point that nobody passed has done nothing, and a death is not always its work.
async fn what_lies_in_wait_must_have_met_somebody(own: &Own, injector: &Injector) {
    let acted = async |active| injector.acted(active).await.unwrap().unwrap();
    let delay = Order::new("fail-point").with("point", "submit.after_commit");
    let delay = delay.with("action", "delay:1").on(Which::All);
    let mut delay = injector.inject(&delay).await.unwrap();
    assert!(injector.see(&mut delay, LIMIT).await.unwrap().happened());
    let nobody = acted(&delay).await;
    assert!(matches!(nobody, Acted::No(_)), "{nobody:?}");
    own.process_one().await;
    let passed = acted(&delay).await;
    assert!(matches!(passed, Acted::Yes(_)), "{passed:?}");
    injector.heal(&delay).await.unwrap();
    assert_eq!(acted(&delay).await, passed, "its counts outlive it");

    let crash = Order::new("fail-point").with("action", "crash@1000000");
    let mut crash = injector.inject(&crash).await.unwrap();
    assert!(injector.see(&mut crash, LIMIT).await.unwrap().happened());
    let target = Target::Node(crash.struck[0].clone());
    let pid = own.stack.pid(&target).unwrap().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_until("the killed receiver to be back", LIMIT, async || {
        let looked = injector.look(&crash).await;
        matches!(looked, Ok(Evidence::HealedBySelf(_)))
    })
    .await;
    let killed = acted(&crash).await;
    assert!(matches!(killed, Acted::No(_)), "{killed:?}");
    injector.heal(&crash).await.unwrap();
    assert!(text(killed).contains("its log does not say that settle.before_ack acted"));
    own.process_one().await;
}

/// An injector whose orders to the broker are obeyed so.
fn managing(own: &Own, deeds: &[Deed]) -> Injector {
    let site = Native::site(&own.stack);
    let harm = Arc::new(Manages::of(&site.harm, deeds));
    Injector::new(Site { harm, ..site }, &own.root)
}

async fn what_was_published_too_seldom_is_said_and_over(own: &Own) {
    let injector = managing(own, &[Deed::Do, Deed::Feign]);
    let twice = Order::new("duplicate-publish").with("copies", "2");
    let mut twice = injector.inject(&twice).await.unwrap();
    wait_until("the one copy to be delivered", LIMIT, async || {
        let seen = injector.look(&twice).await.unwrap();
        matches!(seen, Evidence::Partly(text) if text.ends_with("1 of 2 copies came to a receiver"))
    })
    .await;
    let seen = injector.see(&mut twice, Duration::ZERO).await.unwrap();
    assert!(!seen.happened(), "{seen:?}");
    let healed = injector.heal(&twice).await.unwrap();
    assert_eq!(healed.how, seen.text());
    assert_eq!(injector.active().unwrap(), []);
}

/// Whoever was refused has published nothing and may try again; of any other failure that is not known.
async fn what_was_refused_was_not_published(own: &Own) {
    let injector = managing(own, &[Deed::Refuse, Deed::Do, Deed::BreakOff]);
    let again = Order::new("duplicate-publish");
    let refused = injector.inject(&again).await.unwrap_err();
    assert!(!refused.is::<NotUndone>(), "{refused:#}");
    let why = refused.to_string();
    assert!(why.ends_with("says no; nothing was published"), "{why}");
    assert_eq!(injector.active().unwrap(), []);

    let mut copy = injector.inject(&again).await.unwrap();
    let seen = injector.see(&mut copy, LIMIT).await.unwrap();
    assert!(seen.happened(), "{seen:?}");
    injector.heal(&copy).await.unwrap();

    let unknown = injector.inject(&again).await.unwrap_err();
    assert!(unknown.is::<NotUndone>(), "{unknown:#}");
    assert_eq!(injector.active().unwrap(), []);
}

/// A row that comes late, a redelivery of the original, and a delivery that came to nothing.
async fn only_a_first_delivery_is_taken_for_a_copy(own: &Own) {
    let injector = managing(own, &[Deed::Feign]);
    let copy = injector.inject(&Order::new("duplicate-publish")).await;
    let copy = copy.unwrap();
    let message = copy.struck[0].strip_prefix("message ").unwrap();
    let database = own.stack.addresses().unwrap().database;
    let mut database = PgConnection::connect(&database).await.unwrap();
    for (age_s, attempt, redelivered, outcome) in [
        (60, 1, false, "processed"),
        (0, 2, true, "duplicate"),
        (0, 1, true, "duplicate"),
        (0, 2, false, "duplicate"),
        (0, 1, false, "returned"),
    ] {
        let sql =
            "insert into receiver.delivery (delivery_id, message_id, node, attempt, redelivered,
                                                  started_at, ended_at, outcome)
                   values (gen_random_uuid(), $1::uuid, 'receiver-1', $2, $3,
                           clock_timestamp() - $4 * interval '1 s', clock_timestamp(), $5)";
        let insert = sqlx::query(sql)
            .bind(message)
            .bind(attempt)
            .bind(redelivered)
            .bind(age_s)
            .bind(outcome);
        insert.execute(&mut database).await.unwrap();
    }
    let seen = injector.look(&copy).await.unwrap();
    assert!(matches!(seen, Evidence::NotSeen(_)), "{seen:?}");
    injector.heal(&copy).await.unwrap();
}

/// What is cancelled stays parked, and is told; what is done is over by itself, and then there is nothing to send back.
async fn a_redrive_that_is_over_says_how_much_of_it_was_done(own: &Own, injector: &Injector) {
    let parked = "select count(*) from receiver.dead_letter where state = 'parked'";
    let database = own.stack.addresses().unwrap().database;
    let mut database = PgConnection::connect(&database).await.unwrap();
    let mut left = async || -> i64 {
        let count = sqlx::query_scalar(parked);
        count.fetch_one(&mut database).await.unwrap()
    };
    let before = left().await;
    assert!((1..6_000).contains(&before), "{before}");
    let slow = Order::new("dead-letters-redrive").with("rate", "5");
    let mut slow = injector.inject(&slow).await.unwrap();
    injector.see(&mut slow, LIMIT).await.unwrap();
    let healed = injector.heal(&slow).await.unwrap();
    let after = left().await;
    assert!(!healed.by_itself && after < before, "{healed:?}");
    let (back, how) = (before - after, &healed.how);
    let right = format!(
        "is cancelled: {back} of {before} dead letters were sent back, {after} were left as they were"
    );
    assert!(how.ends_with(&right), "{how}");

    let fast = Order::new("dead-letters-redrive").with("rate", "10000");
    let mut fast = injector.inject(&fast).await.unwrap();
    wait_until("all to be sent back", LIMIT, async || left().await == 0).await;
    let seen = injector.see(&mut fast, LIMIT).await.unwrap();
    assert!(seen.happened(), "{seen:?}");
    wait_until("the redrive to be over", LIMIT, async || {
        let seen = injector.look(&fast).await.unwrap();
        matches!(seen, Evidence::HealedBySelf(_))
    })
    .await;
    let healed = injector.heal(&fast).await.unwrap();
    let all = format!("is done: {after} of {after} dead letters were sent back");
    assert!(healed.by_itself && healed.how.ends_with(&all), "{healed:?}");
    let none = injector.inject(&Order::new("dead-letters-redrive")).await;
    let none = none.unwrap_err();
    assert!(none.is::<Usage>(), "{none:#}");
    assert!(
        none.to_string().contains("there is none to send back"),
        "{none:#}"
    );
}

/// The inbox of this stack remembers for a day.
async fn only_what_the_inbox_knows_no_more_is_taken_for_forgotten(own: &Own, injector: &Injector) {
    let forgotten = Order::new("duplicate-publish").with("which", "forgotten");
    let refused = injector.inject(&forgotten).await.unwrap_err();
    assert!(refused.is::<Usage>(), "{refused:#}");
    let why = refused.to_string();
    assert!(why.contains("gone from the inbox by now"), "{why}");
    // all of it is announced; some of it is gone
    let database = own.stack.addresses().unwrap().database;
    let mut database = PgConnection::connect(&database).await.unwrap();
    let aged = "update receiver.inbox_window set below = 'ffffffff-ffff-ffff-ffff-ffffffffffff';
                delete from receiver.inbox where message_id <> (
                    select message_id from receiver.processed order by processed_id desc limit 1)";
    sqlx::raw_sql(aged).execute(&mut database).await.unwrap();
    let mut copy = injector.inject(&forgotten).await.unwrap();
    let message = copy.struck[0].strip_prefix("message ").unwrap();
    let known = "select (select count(*) from receiver.inbox where message_id = $1::uuid),
                        (select count(*) from receiver.processed where message_id = $1::uuid)";
    let before = sqlx::query_as(known).bind(message);
    let before: (i64, i64) = before.fetch_one(&mut database).await.unwrap();
    assert_eq!(before, (0, 1));
    let message = message.to_owned();
    let seen = injector.see(&mut copy, LIMIT).await.unwrap();
    assert!(seen.happened(), "{seen:?}");
    injector.heal(&copy).await.unwrap();
    let after = sqlx::query_as(known).bind(message);
    let after: (i64, i64) = after.fetch_one(&mut database).await.unwrap();
    assert_eq!(after, (0, 1), "the effects were asked, before any work");
}

/// With errors kept out of the log, of a death nobody can tell.
async fn a_log_that_is_off_tells_nothing(own: &Own, injector: &Injector) {
    let crash = Order::new("fail-point").with("action", "crash@1");
    let crash = injector.inject(&crash.on(Which::All)).await.unwrap();
    own.process_one().await;
    wait_until("the crashed receivers to be back", LIMIT, async || {
        let looked = injector.look(&crash).await;
        looked.is_ok_and(|evidence| evidence.text().contains("is gone"))
    })
    .await;
    injector.heal(&crash).await.unwrap();
    let acted = injector.acted(&crash).await.unwrap().unwrap();
    assert!(text(acted).contains("its LOG keeps errors out of its log"));
}

async fn what_a_killed_lab_left_can_be_removed(stack: &Arc<Stack>) {
    let vhost = ["vhosts", "r1121-0915-left"];
    stack.manage(Method::PUT, &vhost, None).await.unwrap();
    let database = stack.addresses().unwrap().database;
    let mut database = PgConnection::connect(&database).await.unwrap();
    let create = r#"create database "r1121-0915-left""#;
    sqlx::query(create).execute(&mut database).await.unwrap();
    stack.remove_left_scenes().await.unwrap();
    let look = Native::site(stack).look;
    assert_eq!(look.broker(&vhost).await.unwrap(), None);
    assert!(look.broker(&["vhosts", "/"]).await.unwrap().is_some());
    let left = "select count(*) from pg_database where datname like 'r1121%'";
    let (left,): (i64,) = sqlx::query_as(left).fetch_one(&mut database).await.unwrap();
    assert_eq!(left, 0);
}
