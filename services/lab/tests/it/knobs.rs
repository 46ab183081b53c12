//! Knobs that are turned at the console: what is lost is told, also after a restart.

use std::collections::BTreeMap;

use daemon::redis::RedisArgs;
use daemon::redis::connect;
use daemon::redis::fred::interfaces::KeysInterface;
use lab::console::knobs::{ALL, Knobs, change};
use live::{KnobWriter, Target};

use crate::world::World;

#[tokio::test]
async fn a_loss_is_told_after_a_restart_and_what_another_program_turned_back_is_none() {
    let world = World::new().await;
    let prefix = &world.redis_prefix;
    let redis = connect(&RedisArgs {
        redis_url: world.servers.at.redis.url.clone(),
        redis_prefix: prefix.clone(),
    })
    .unwrap();
    let folder = std::env::temp_dir().join(format!("lab-knobs-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    // each one as a console that was started again
    let knobs = || Knobs::new(redis.clone(), prefix, &folder);
    let one_in_4 = change(&BTreeMap::from([(
        "fail_one_in".to_owned(),
        "4".to_owned(),
    )]))
    .unwrap();
    assert!(!knobs().read().await.unwrap().lost, "nothing was turned");

    knobs().set(ALL, one_in_4).await.unwrap();
    let writer = KnobWriter::new(redis.clone(), prefix);
    writer.clear(&Target::All).await.unwrap();
    assert!(
        !knobs().read().await.unwrap().lost,
        "somebody turned it back"
    );

    knobs().set(ALL, one_in_4).await.unwrap();
    let lost: Vec<String> = ["knobs", "knobs-turned"]
        .map(|key| format!("{prefix}{key}"))
        .into();
    let _: i64 = redis.del(lost).await.unwrap();
    assert!(knobs().read().await.unwrap().lost);
    assert!(
        knobs().read().await.unwrap().lost,
        "until one is turned again, or all are back"
    );
    knobs().clear(ALL).await.unwrap();
    assert!(!knobs().read().await.unwrap().lost);
    std::fs::remove_dir_all(folder).unwrap();
}
