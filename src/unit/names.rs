//! Hashes of names that stand for them: 128 bits, so that equal hashes need no second look.
//!
//! `SipHash` with a key drawn at random in each process: a caller that chooses names cannot choose collisions. Of 2^40 names two
//! have one hash with a probability of 2^-49.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::LazyLock;

use siphasher::sip128::{Hasher128, SipHasher13};

/// Stands for the name of a row.
pub(crate) type NameHash = u128;

/// The hash of what tells a row apart from all others of its table.
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

/// The hash of a text that is no row's name.
pub(crate) fn name_of_text(text: &str) -> NameHash {
    name_hash(|hasher| part(hasher, &(4_u8, text)))
}

/// The hash of bytes that are no row's name.
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

/// One thing that a row is made of, in the hash of its name.
pub(super) fn part(hasher: &mut SipHasher13, part: &impl Hash) {
    part.hash(hasher);
}
