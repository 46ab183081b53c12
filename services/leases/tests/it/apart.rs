//! Many who lease at once, from several nodes: nobody gets what another one has.

use std::collections::HashMap;

use futures::future::join_all;
use serde_json::json;

use crate::served::Served;

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
