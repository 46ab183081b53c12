//! Reading once for many: whoever asks for what is being read shares that reading.
//!
//! Unlike with [`web::together`], what one gets may have been read a moment before one asked. It is for what may be a little old
//! anyway, and costs one reading however many ask at the same moment. How old it may be, whoever asks says; and hears when the
//! reading began, which is the oldest that it can be.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::time::Instant;

type Flight<T> = Shared<BoxFuture<'static, T>>;

/// What is being read at this moment, each by what it was asked for.
pub struct Flights<K, T>(Mutex<HashMap<K, Under<T>>>);

/// A reading under way, and when it began.
struct Under<T> {
    begun: Instant,
    flight: WeakShared<BoxFuture<'static, T>>,
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// What a reading of `key` gives, and when it began: the one that is under way, if it began less than `limit` ago, or this
    /// one, which then begins.
    ///
    /// It goes on as long as anybody waits for it, and is dropped with the last one who does.
    pub async fn join<F>(&self, key: K, limit: Duration, read: impl FnOnce() -> F) -> (T, Instant)
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (flight, begun) = self.board(key, limit, || read().boxed());
        (flight.await, begun)
    }

    fn board(
        &self,
        key: K,
        limit: Duration,
        read: impl FnOnce() -> BoxFuture<'static, T>,
    ) -> (Flight<T>, Instant) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let young = flights
            .get(&key)
            .filter(|under| under.begun.elapsed() < limit);
        if let Some(under) = young
            && let Some(flight) = under.on_its_way()
        {
            return (flight, under.begun);
        }
        // Those that have arrived: so there are never more here than are under way.
        flights.retain(|_, under| under.on_its_way().is_some());
        let begun = Instant::now();
        let flight = read().shared();
        if let Some(weak) = flight.downgrade() {
            let under = Under {
                begun,
                flight: weak,
            };
            flights.insert(key, under);
        }
        (flight, begun)
    }
}

impl<T: Clone> Under<T> {
    fn on_its_way(&self) -> Option<Flight<T>> {
        self.flight
            .upgrade()
            .filter(|flight| flight.peek().is_none())
    }
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

    const ANY: Duration = Duration::MAX;

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
        let same = join_all((0..10).map(|_| flights.join("a", ANY, read(&begun, &may))));
        let other = flights.join("b", ANY, read(&begun, &may));
        let (same, other, ()) = tokio::join!(same, other, async {
            may.add_permits(2);
        });
        let first = same[0].1;
        assert_eq!((same, other.0), (vec![(1, first); 10], 2));
        may.add_permits(1);
        let (next, later) = flights.join("a", ANY, read(&begun, &may)).await;
        assert_eq!(next, 3);
        assert!(later >= first);
        assert_eq!(
            flights.0.lock().unwrap().len(),
            1,
            "what has arrived is forgotten"
        );
    }

    #[tokio::test]
    async fn nobody_boards_a_reading_that_is_too_old() {
        let (flights, begun) = (Flights::default(), Arc::default());
        let may = Arc::new(Semaphore::new(0));
        let join = |limit| flights.join("a", limit, read(&begun, &may));
        let (first, second, third, ()) =
            tokio::join!(join(ANY), join(Duration::ZERO), join(ANY), async {
                may.add_permits(2);
            });
        assert_eq!((first.0, second.0), (1, 2));
        assert!(first.1 <= second.1);
        assert_eq!(third, second, "the younger one is boarded from then on");
    }

    #[tokio::test]
    async fn a_reading_that_everybody_left_is_begun_anew() {
        let (flights, begun) = (Flights::default(), Arc::default());
        let may = Arc::new(Semaphore::new(0));
        assert!(
            flights
                .join("a", ANY, read(&begun, &may))
                .now_or_never()
                .is_none()
        );
        may.add_permits(1);
        assert_eq!(flights.join("a", ANY, read(&begun, &may)).await.0, 2);
    }
}
