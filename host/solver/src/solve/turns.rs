//! Vertices whose result keys turn out to be equal: one runs, the others wait for it and take what it
//! has made.
//!
//! Whoever holds a turn waits for no other one: its inputs are solved. So nobody waits in a circle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::lock::{Mutex as Turns, OwnedMutexGuard};
use wbuild_graph::CacheKey;

/// What the one who had the turn before has made, for those who waited meanwhile.
type Made<T> = Turns<Option<T>>;

/// The turn of one key: dropped, it goes to the next who waits.
pub(super) type Turn<T> = OwnedMutexGuard<Option<T>>;

/// The keys that somebody holds or waits for.
pub(super) struct ByKey<T>(Mutex<HashMap<CacheKey, Weak<Made<T>>>>);

impl<T> ByKey<T> {
    pub(super) fn new() -> Self {
        ByKey(Mutex::new(HashMap::new()))
    }

    /// Waits until nobody else runs what has this key.
    pub(super) async fn turn(&self, key: CacheKey) -> Turn<T> {
        let made = {
            let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match keys.get(&key).and_then(Weak::upgrade) {
                Some(made) => made,
                None => {
                    // As many as are run at once, and those that ended since the last one came.
                    keys.retain(|_, made| made.strong_count() > 0);
                    let made = Arc::new(Turns::new(None));
                    keys.insert(key, Arc::downgrade(&made));
                    made
                }
            }
        };
        made.lock_owned().await
    }
}
