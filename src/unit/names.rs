//! Hashes that stand for names: 128 bits, so that equal hashes need no comparison of the names.
//!
//! `SipHash` with a key drawn at random in each process: a caller that chooses names cannot produce collisions. Among
//! 2^40 names the probability of a collision is 2^-49.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::LazyLock;

use siphasher::sip128::{Hasher128, SipHasher13};

/// The hash of a row's name.
pub(crate) type NameHash = u128;

/// The hash of the fields that identify a row within its table.
pub(super) fn name_hash(write: impl FnOnce(&mut SipHasher13)) -> NameHash {
    static KEY: LazyLock<SipHasher13> = LazyLock::new(|| {
        // The standard library's own random keys.
        let random = || std::collections::hash_map::RandomState::new().hash_one(0);
        SipHasher13::new_with_keys(random(), random())
    });
    let mut hasher = *KEY;
    write(&mut hasher);
    hasher.finish128().as_u128()
}

/// The hash of a text that is not a row's name.
pub(crate) fn name_of_text(text: &str) -> NameHash {
    name_hash(|hasher| part(hasher, &(4_u8, text)))
}

/// The hash of bytes that are not a row's name.
pub(crate) fn name_of_bytes(bytes: &[u8]) -> NameHash {
    name_hash(|hasher| part(hasher, &(5_u8, bytes)))
}

/// For maps whose keys are hashes already.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes of names are hashed");
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

impl BuildHasher for AsItIs {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

/// One part of a row's name, in the hash.
pub(super) fn part(hasher: &mut SipHasher13, part: &impl Hash) {
    part.hash(hasher);
}
