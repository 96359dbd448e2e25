//! Maps and sets for the hot path: the standard ones with a hasher that is several times as fast on short keys.
//!
//! Seeded at random in each process, so nobody who chooses names can choose collisions in advance.

use foldhash::fast::RandomState;

pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;
pub(crate) type HashSet<T> = std::collections::HashSet<T, RandomState>;
