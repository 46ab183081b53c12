//! What the lease queue promises, sentence by sentence, said to one node and to three at once.

/// The tests of these names, each said to one node and to three.
macro_rules! contract {
    ($($name:ident)*) => {
        mod one_node {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&crate::served::Served::by(1).await).await;
            })*
        }
        mod three_nodes {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&crate::served::Served::by(3).await).await;
            })*
        }
    };
}

mod dead_letters;
mod leasing;
mod pushing;
mod queues;

use crate::served::Served;

/// What curl says of `--data`.
const FORM: &str = "application/x-www-form-urlencoded";

/// Has leases of the queue `default` last as long as a test may.
async fn last(served: &Served) {
    let settings = r#"{"lease_ms":60000}"#;
    served.put("/queues/default", settings).await.is(200);
}
