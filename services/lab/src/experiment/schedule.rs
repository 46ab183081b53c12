//! Which faults come when: a pure function of the file and the seed.
//!
//! Faults of a file have their times. A storm is drawn: first every kind once, in an order of chance, then any, each for a
//! time and after a pause of chance. It comes one fault at a time, the next when the one before is seen to be over, so a
//! plan says how long after that it begins, and the last ones planned may not come to pass.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::file::Setup;
use super::harm::{Harm, Storm};
use crate::faults::{Order, find};

/// One fault that is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub start: Start,
    pub order: Order,
    /// How long until it is healed; none: it is over as soon as it is done.
    pub time: Option<Duration>,
}

/// When a fault begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// So long after the start of the load.
    At(Duration),
    /// So long after the fault before it was seen to be over.
    Pause(Duration),
}

/// Everything that may come, in order. Same file, same seed: same plan.
pub fn schedule(setup: &Setup, seed: u64) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    match &setup.harm {
        Harm::Storm(storm) => drawn(storm, &mut random),
        Harm::Faults(faults) => {
            let mut plan: Vec<Planned> = faults
                .iter()
                .map(|timed| Planned {
                    start: Start::At(timed.at),
                    order: Order {
                        seed: random.random(),
                        ..timed.order.clone()
                    },
                    time: timed.time,
                })
                .collect();
            plan.sort_by_key(|planned| match planned.start {
                Start::At(at) | Start::Pause(at) => at,
            });
            plan
        }
    }
}

fn drawn(storm: &Storm, random: &mut StdRng) -> Vec<Planned> {
    // no fault is over sooner than after its pause, so more than these cannot come to pass in time
    let most = storm.length.as_millis() / storm.pause.0.as_millis().max(100);
    let most = usize::try_from(most)
        .unwrap_or(usize::MAX)
        .max(storm.faults.len());
    let mut kinds = storm.faults.clone();
    kinds.shuffle(random);
    let mut plan = Vec::with_capacity(most);
    for place in 0..most {
        let fault = match kinds.get(place) {
            Some(fault) => fault,
            None => &storm.faults[random.random_range(0..storm.faults.len())],
        };
        let pause = between(storm.pause, random);
        let hold = between(storm.hold, random);
        let instant = find(fault).is_ok_and(|entry| entry.instant);
        let mut order = Order::new(fault);
        order.seed = random.random();
        plan.push(Planned {
            start: Start::Pause(pause),
            order,
            time: (!instant).then_some(hold),
        });
    }
    plan
}

/// To the millisecond, both ends included.
fn between((from, to): (Duration, Duration), random: &mut StdRng) -> Duration {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random.random_range(ms(from)..=ms(to)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::experiment::file::Experiment;
    use crate::faults::catalogue;

    fn setup(text: &str) -> Setup {
        Experiment::parse("x.yaml", text, 16).unwrap().safe
    }

    fn storm(pause: (u64, u64), hold: (u64, u64), kinds: &[&str]) -> Setup {
        let text = format!(
            "title: t\nlearn: l\nload: {{ rate: 1/s, for: 3000s }}\nstorm: {{ for: 2000s, pause: {}ms..{}ms, hold: {}ms..{}ms, faults: [{}] }}\n",
            pause.0,
            pause.1,
            hold.0,
            hold.1,
            kinds.join(", ")
        );
        setup(&text)
    }

    fn of_each_stack() -> Vec<&'static str> {
        let all = catalogue()
            .iter()
            .filter(|entry| entry.beyond_main().is_none());
        all.map(|entry| entry.name).collect()
    }

    proptest! {
        #[test]
        fn a_storm_has_every_kind_first_and_keeps_its_times_and_its_seed(
            seed: u64,
            pause in (0_u64..3_000, 0_u64..3_000),
            hold in (0_u64..9_000, 0_u64..9_000),
            chosen in proptest::sample::subsequence(of_each_stack(), 1..20),
        ) {
            let (pause, hold) = ((pause.0, pause.0 + pause.1), (hold.0, hold.0 + hold.1));
            let storm = storm(pause, hold, &chosen);
            let plan = schedule(&storm, seed);
            prop_assert_eq!(&plan, &schedule(&storm, seed));
            let first: BTreeSet<&str> = plan[..chosen.len()].iter().map(|planned| &*planned.order.fault).collect();
            prop_assert_eq!(first, chosen.iter().copied().collect::<BTreeSet<_>>());
            for planned in &plan {
                let within = |time: Duration, (from, to)| (u128::from(from)..=u128::from(to)).contains(&time.as_millis());
                let Start::Pause(after) = planned.start else { panic!("a storm has no times") };
                prop_assert!(within(after, pause));
                let instant = find(&planned.order.fault).unwrap().instant;
                prop_assert_eq!(planned.time.is_none(), instant);
                prop_assert!(planned.time.is_none_or(|time| within(time, hold)));
                prop_assert!(chosen.contains(&&*planned.order.fault));
            }
        }
    }

    #[test]
    fn another_seed_is_another_storm() {
        let storm = storm(
            (0, 1_000),
            (0, 1_000),
            &["redis-kill", "redis-pause", "receiver-kill"],
        );
        let plans: Vec<_> = (0..10).map(|seed| schedule(&storm, seed)).collect();
        assert!(plans.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn faults_come_by_their_times_with_seeds_of_their_own() {
        let setup = setup(
            "title: t\nlearn: l\nload: { rate: 1/s, for: 9s }\nfaults:\n  - { at: 5s, fault: redis-restart }\n  - { at: 2s, fault: receiver-kill, for: 1s }\n  - { at: 4s, fault: receiver-kill, for: 1s }\n",
        );
        let plan = schedule(&setup, 7);
        let starts: Vec<_> = plan.iter().map(|planned| planned.start).collect();
        assert_eq!(
            starts,
            [2, 4, 5].map(|at| Start::At(Duration::from_secs(at)))
        );
        let seeds: BTreeSet<_> = plan.iter().map(|planned| planned.order.seed).collect();
        assert_eq!(seeds.len(), 3);
        assert_eq!(plan, schedule(&setup, 7));
        assert_ne!(plan, schedule(&setup, 8));
    }
}
