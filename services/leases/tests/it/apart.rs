//! Many who lease at once, from several nodes: nobody gets what another one has, and what two say of the same lease at the same
//! moment counts as if one had said it after the other.

use std::collections::HashMap;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use testkit::wait_until;

use crate::served::{LIMIT, Served, answer};

const MESSAGES: usize = 6_000;

#[tokio::test]
async fn what_many_lease_from_three_nodes_at_once_is_leased_to_one_each() {
    let served = Served::by(3).await;
    for from in (0..MESSAGES).step_by(1_000) {
        let numbers: Vec<usize> = (from..from + 1_000).collect();
        served
            .post("/batch", json!(numbers).to_string())
            .await
            .is(201);
    }
    // each takes what it gets until there is no more
    let take = async |amount: usize| {
        let mut taken = Vec::new();
        loop {
            let leased = served
                .lease("", &format!("amount={amount}&lease_ms=600000"))
                .await;
            if leased.is_empty() {
                return taken;
            }
            taken.extend(leased);
        }
    };
    let taken = join_all((1..=24).map(|lessee| take(lessee * 3))).await;
    let mut holders: HashMap<String, usize> = HashMap::new();
    for leased in taken.iter().flatten() {
        assert_eq!(leased.receive_count, 1);
        *holders.entry(leased.id.clone()).or_default() += 1;
    }
    assert_eq!(holders.len(), MESSAGES, "each is leased");
    assert!(holders.values().all(|holders| *holders == 1), "to one");
    // two say for each that it is done: one of them was first
    let confirm = async |id: &str| {
        let path = format!("/{id}");
        let (one, other) = tokio::join!(served.patch(&path), served.patch(&path));
        let statuses = [one.status.as_u16(), other.status.as_u16()];
        assert!(matches!(statuses, [204, 404] | [404, 204]), "{statuses:?}");
    };
    for some in taken.concat().chunks(100).take(10) {
        join_all(some.iter().map(|leased| confirm(&leased.id))).await;
    }
    let left = served.count("select count(*) from leases.message").await;
    assert_eq!(left, i64::try_from(MESSAGES).unwrap() - 1_000);
}

/// What is answered to a request that waits for a change which is not committed yet.
async fn beside(
    served: &Served,
    change: &'static str,
    method: Method,
    path: String,
) -> reqwest::StatusCode {
    let mut tx = served.database.admin.begin().await.unwrap();
    sqlx::query(change).execute(&mut *tx).await.unwrap();
    let commit = async {
        wait_until("it to wait", LIMIT, async || {
            let waiting = "select count(*) from pg_stat_activity
                            where datname = current_database() and wait_event_type = 'Lock'";
            served.count(waiting).await == 1
        })
        .await;
        tx.commit().await.unwrap();
    };
    let (answered, ()) = tokio::join!(answer(served.request(method, &path)), commit);
    answered.status
}

#[tokio::test]
async fn what_waits_for_another_counts_by_what_that_one_left() {
    let served = Served::by(1).await;
    // the lease that was there before has ended, the one that is there after lives
    let extend = "update leases.message set free_at = clock_timestamp() + interval '1 minute'";
    let end = "update leases.message set free_at = clock_timestamp(), token = null";
    for (method, of) in [
        (Method::PATCH, "/lease?lease_ms=60000&"),
        (Method::DELETE, "/lease?"),
        (Method::PATCH, "?"),
    ] {
        let id = served.push("", "1").await;
        let leased = served.lease("", "lease_ms=1").await;
        let path = format!("/{id}{of}token={}", leased[0].token);
        let status = beside(&served, extend, method.clone(), path).await;
        assert_eq!(status, 204, "{method} {of}");
        sqlx::query("delete from leases.message")
            .execute(&served.database.admin)
            .await
            .unwrap();
        let id = served.push("", "2").await;
        served.lease("", "lease_ms=60000").await;
        let status = beside(&served, end, method.clone(), format!("/{id}{of}")).await;
        assert_eq!(status, 404, "{method} {of}");
        sqlx::query("delete from leases.message")
            .execute(&served.database.admin)
            .await
            .unwrap();
    }
}
