//! An experiment whose faults are not done.

use std::collections::BTreeMap;
use std::sync::Arc;

use lab::audit::Verdict;
use lab::audit::class::Class;
use lab::experiment::file::Experiment;
use lab::experiment::journal::Outcome;
use lab::experiment::runner::Play;
use lab::experiment::stage::Stage;
use lab::say::Steps;
use lab::stack::postgres;

use super::folder;
use super::nothing::Nothing;
use crate::world::lab;

/// An experiment with every fault of the catalogue at once, and none of them done.
fn everything() -> String {
    let places = ["sender-1", "sender-2", "receiver-1", "receiver-2"];
    let mut links: BTreeMap<&str, std::slice::Iter<'_, &str>> = BTreeMap::new();
    let faults = super::of_each_stack().map(|entry| {
        // two that hurt one link would be in each other's way
        let on = entry.needs_links().then(|| {
            let server = entry.name.split('-').next().unwrap();
            let place = links.entry(server).or_insert_with(|| places.iter()).next();
            format!(", on: {}", place.unwrap())
        });
        let time = if entry.instant { "" } else { ", for: 1s" };
        let (name, on) = (entry.name, on.unwrap_or_default());
        format!("  - {{ at: 1s, fault: {name}{on}{time} }}\n")
    });
    let faults: String = faults.collect();
    format!(
        "title: Nothing is done\nlearn: What was not done proves nothing.\n\
         stack: {{ sender: 2, receiver: 2, settings: {{ WORK_DELAY_MAX_MS: 10, WORK_FAIL_ONE_IN: 0 }} }}\n\
         load: {{ rate: 20/s, for: 3s }}\nfaults:\n{faults}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_experiment_whose_faults_are_not_done_is_inconclusive_for_each_of_them() {
    let root = folder();
    std::fs::create_dir(&root).unwrap();
    let experiment = Experiment::parse("nothing.yaml", &everything(), 16).unwrap();
    let steps = Steps::new(&|_| {});
    let stage = Stage::prepare(&root, Some(lab()), true, &steps)
        .await
        .unwrap();
    let stage = stage.struck_by(Arc::new(Nothing::default()));
    stage.start(&steps).await.unwrap();
    let play = Play {
        experiment: &experiment,
        setup: &experiment.safe,
        twin: false,
        seed: 7,
    };
    let played = Box::pin(play.run(&stage, &root, &steps)).await;
    stage.close(&|_| {}).await;
    let own = root.canonicalize().unwrap().join("experiments");
    let _ = std::fs::remove_dir_all(postgres::outside(&own));
    std::fs::remove_dir_all(&root).unwrap();
    let played = played.unwrap();
    let journal = &played.journal;
    assert_eq!(journal.faults.len(), super::of_each_stack().count());
    let mut injected = 0;
    for fault in &journal.faults {
        let doubt = fault.doubt.as_deref().unwrap_or_default();
        let unseen = format!("{}: it was injected and could not be seen: ", fault.fault);
        if fault.injected_ms.is_some() {
            injected += 1;
            assert!(doubt.starts_with(&unseen), "{fault:?}");
        }
        let reasons = &journal.audit.reasons;
        assert!(reasons.iter().any(|why| why == doubt), "{reasons:#?}");
    }
    // all at once is much for a busy machine; each alone is looked at above
    assert!(
        injected * 4 >= super::of_each_stack().count() * 3,
        "{injected}"
    );
    // all else was well
    assert_eq!(
        journal.audit.classes.keys().collect::<Vec<_>>(),
        [&Class::Ok]
    );
    assert_eq!(played.verdict, Verdict::Inconclusive);
    assert_eq!(played.verdict.exit_code(), 3);
    assert_eq!(journal.outcome, Outcome::Inconclusive);
}
