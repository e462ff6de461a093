//! The series, found by their keys without a lock: `counter!` asks for its series with every call.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use arc_swap::ArcSwap;

use crate::sync::{Arc, AtomicU64, Ordering};

/// A new series copies the table that it goes into, so there are some, each with a part of the series.
const SHARDS: usize = 64;

type Shard<K, V> = ArcSwap<HashMap<K, Arc<V>>>;

/// Table of values that only grows, up to a bound that it may share with others.
#[derive(Debug)]
pub(crate) struct Registry<K, V> {
    shards: Box<[Shard<K, V>]>,
    hasher: std::hash::RandomState,
}

/// Number of entries of several tables, and the most there may be.
#[derive(Debug)]
pub(crate) struct Bound {
    entries: AtomicU64,
    max: u64,
}

impl Bound {
    pub(crate) fn new(max: usize) -> Self {
        Self { entries: AtomicU64::new(0), max: max as u64 }
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Takes a place. Returns whether there was one.
    fn take(&self) -> bool {
        let more = |entries| (entries < self.max).then_some(entries + 1);
        self.entries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<K: Eq + Hash + Clone, V> Registry<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: std::hash::RandomState::new(),
        }
    }

    fn shard(&self, key: &K) -> Option<&Shard<K, V>> {
        self.shards.get((self.hasher.hash_one(key) % SHARDS as u64) as usize)
    }

    /// Returns the value of a key, and adds one that is made by `make` if there is none. `None` if the bound is reached.
    pub(crate) fn get_or_add(&self, key: &K, bound: &Bound, make: impl FnOnce() -> V) -> Option<Arc<V>> {
        let shard = self.shard(key)?;
        if let Some(value) = shard.load().get(key) {
            return Some(Arc::clone(value));
        }
        if !bound.take() {
            return None;
        }
        let made = Arc::new(make());
        // Where another thread has added the key meanwhile, its value stays.
        shard.rcu(|map| {
            if map.contains_key(key) {
                return Arc::clone(map);
            }
            let mut map = HashMap::clone(map);
            map.insert(key.clone(), Arc::clone(&made));
            Arc::new(map)
        });
        let kept = shard.load().get(key).cloned().unwrap_or_else(|| Arc::clone(&made));
        if !Arc::ptr_eq(&kept, &made) {
            bound.give_back();
        }
        Some(kept)
    }

    /// Returns the value of a key, if there is one.
    pub(crate) fn get(&self, key: &K) -> Option<Arc<V>> {
        self.shard(key)?.load().get(key).cloned()
    }

    /// Calls `each` with every entry.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&K, &Arc<V>)) {
        for shard in &self.shards {
            // Whole, since `each` may take long.
            let map = shard.load_full();
            map.iter().for_each(|(key, value)| each(key, value));
        }
    }
}
