//! Reading once for many: whoever asks for what is being read shares that reading.
//!
//! Unlike with [`web::together`], what one gets may have been read a moment before one asked. It is for what may be a little old
//! anyway, and costs one reading however many ask at the same moment.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

type Flight<T> = Shared<BoxFuture<'static, T>>;

/// What is being read at this moment, each by what it was asked for.
pub struct Flights<K, T>(Mutex<HashMap<K, WeakShared<BoxFuture<'static, T>>>>);

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// What a reading of `key` gives: of the one that is under way, or of this one, which then begins.
    ///
    /// It goes on as long as anybody waits for it, and is dropped with the last one who does.
    pub async fn join<F>(&self, key: K, read: impl FnOnce() -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.board(key, || read().boxed()).await
    }

    fn board(&self, key: K, read: impl FnOnce() -> BoxFuture<'static, T>) -> Flight<T> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key).and_then(on_its_way) {
            return flight;
        }
        // Those that have arrived: so there are never more here than are under way.
        flights.retain(|_, flight| on_its_way(flight).is_some());
        let flight = read().shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(key, weak);
        }
        flight
    }
}

fn on_its_way<T: Clone>(flight: &WeakShared<BoxFuture<'static, T>>) -> Option<Flight<T>> {
    flight.upgrade().filter(|flight| flight.peek().is_none())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// A reading that waits until it may, and gives its number.
    fn read(
        begun: &Arc<AtomicUsize>,
        may: &Arc<Semaphore>,
    ) -> impl FnOnce() -> BoxFuture<'static, usize> {
        let (begun, may) = (Arc::clone(begun), Arc::clone(may));
        move || {
            let number = begun.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                may.acquire().await.unwrap().forget();
                number
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn those_who_ask_for_the_same_at_once_share_one_reading() {
        let (flights, begun) = (Flights::default(), Arc::default());
        let may = Arc::new(Semaphore::new(0));
        let same = join_all((0..10).map(|_| flights.join("a", read(&begun, &may))));
        let (same, other, ()) = tokio::join!(same, flights.join("b", read(&begun, &may)), async {
            may.add_permits(2);
        });
        assert_eq!((same, other), (vec![1; 10], 2));
        may.add_permits(1);
        assert_eq!(flights.join("a", read(&begun, &may)).await, 3);
        assert_eq!(
            flights.0.lock().unwrap().len(),
            1,
            "what has arrived is forgotten"
        );
    }

    #[tokio::test]
    async fn a_reading_that_everybody_left_is_begun_anew() {
        let (flights, begun) = (Flights::default(), Arc::default());
        let may = Arc::new(Semaphore::new(0));
        assert!(
            flights
                .join("a", read(&begun, &may))
                .now_or_never()
                .is_none()
        );
        may.add_permits(1);
        assert_eq!(flights.join("a", read(&begun, &may)).await, 2);
    }
}
