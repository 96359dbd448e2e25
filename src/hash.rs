//! Maps and sets for the hot path: the standard ones with a hasher that is several times as fast on short keys.
//!
//! It is seeded at random in each process, so names cannot be chosen to collide in advance.

use std::hash::{BuildHasher, Hash};
use std::sync::LazyLock;

use foldhash::fast::RandomState;

pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;
pub(crate) type HashSet<T> = std::collections::HashSet<T, RandomState>;

/// The hash of a key, the same for equal keys everywhere in this process.
pub(crate) fn hash_of(key: &impl Hash) -> u64 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    HASHER.hash_one(key)
}
