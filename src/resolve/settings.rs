//! Settings of a resolver. All its default values are defined here.

use std::time::Duration;

use super::Tier;
use crate::error::ConfigError;

/// The policy for a name whose best candidate is neither good enough to accept nor bad enough to reject.
///
/// ```
/// use graphsink::resolve::{GreyZone, ResolverSettings};
///
/// assert_eq!(GreyZone::default(), GreyZone::Flag);
/// let settings = ResolverSettings::default().grey_zone(GreyZone::Create);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GreyZone {
    /// The best candidate is accepted.
    Accept,
    /// A new entity is created.
    Create,
    /// Nothing is decided: [`Decision::Ambiguous`](crate::resolve::Decision::Ambiguous).
    #[default]
    Flag,
}

/// The band of a confidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Band {
    /// The entity is accepted.
    Existing,
    /// The caller's policy decides.
    Grey,
    /// It is a different entity.
    New,
}

/// Settings of a [`Resolver`](crate::resolve::Resolver). They are checked when it is created.
///
/// ```
/// use graphsink::resolve::{GreyZone, ResolverSettings, Tier};
///
/// let settings = ResolverSettings::default().deepest(Tier::Alias).accept_above(0.9).grey_zone(GreyZone::Accept);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct ResolverSettings {
    pub(crate) deepest: Tier,
    pub(crate) accept: f64,
    pub(crate) reject: f64,
    pub(crate) read_only: f64,
    pub(crate) grey_zone: GreyZone,
    pub(crate) with_candidates: bool,
    pub(crate) candidates_max: usize,
    pub(crate) similarity_min: f64,
    pub(crate) cache_entries: usize,
    pub(crate) time_to_live: Duration,
    pub(crate) connections: u32,
}

impl Default for ResolverSettings {
    fn default() -> Self {
        Self {
            deepest: Tier::Fuzzy,
            accept: 0.85,
            reject: 0.7,
            read_only: 0.6,
            grey_zone: GreyZone::Flag,
            with_candidates: false,
            candidates_max: 10,
            similarity_min: 0.3,
            cache_entries: 100_000,
            time_to_live: Duration::from_secs(30),
            connections: 2,
        }
    }
}

impl ResolverSettings {
    /// The last tier that is searched. Default: [`Tier::Fuzzy`]. Names that no tier finds are new.
    ///
    /// ```
    /// use graphsink::resolve::{ResolverSettings, Tier};
    ///
    /// let settings = ResolverSettings::default().deepest(Tier::Alias);
    /// ```
    pub fn deepest(mut self, tier: Tier) -> Self {
        self.deepest = tier;
        self
    }

    /// Above this confidence the existing entity is accepted. Default: 0.85. Lower: more names are mistaken for others.
    /// Higher: more entities are duplicated. At 1 only exact names are accepted, which always are.
    ///
    /// ```
    /// use graphsink::resolve::ResolverSettings;
    ///
    /// let settings = ResolverSettings::default().accept_above(0.9);
    /// ```
    pub fn accept_above(mut self, confidence: f64) -> Self {
        self.accept = confidence;
        self
    }

    /// Below this confidence the name is new. Default: 0.7.
    ///
    /// ```
    /// use graphsink::resolve::ResolverSettings;
    ///
    /// let settings = ResolverSettings::default().new_below(0.6);
    /// ```
    pub fn new_below(mut self, confidence: f64) -> Self {
        self.reject = confidence;
        self
    }

    /// The confidence from which [`Resolver::find`](crate::resolve::Resolver::find) answers. Default: 0.6, because for
    /// a search a wrong result is better than none.
    ///
    /// ```
    /// use graphsink::resolve::ResolverSettings;
    ///
    /// let settings = ResolverSettings::default().find_from(0.75);
    /// ```
    pub fn find_from(mut self, confidence: f64) -> Self {
        self.read_only = confidence;
        self
    }

    /// The policy for names between the two thresholds, and for names that several entities share as an alias. Default:
    /// [`GreyZone::Flag`].
    ///
    /// ```
    /// use graphsink::resolve::{GreyZone, ResolverSettings};
    ///
    /// let settings = ResolverSettings::default().grey_zone(GreyZone::Create);
    /// ```
    pub fn grey_zone(mut self, policy: GreyZone) -> Self {
        self.grey_zone = policy;
        self
    }

    /// Whether answers include all considered candidates. Default: false.
    ///
    /// ```
    /// use graphsink::resolve::ResolverSettings;
    ///
    /// let settings = ResolverSettings::default().with_candidates(true);
    /// ```
    pub fn with_candidates(mut self, wanted: bool) -> Self {
        self.with_candidates = wanted;
        self
    }

    /// Maximum number of candidates that the database ranks for each piece of a name. Default: 10.
    ///
    /// ```
    /// use graphsink::resolve::ResolverSettings;
    ///
    /// let settings = ResolverSettings::default().candidates_max(5);
    /// ```
    pub fn candidates_max(mut self, candidates: usize) -> Self {
        self.candidates_max = candidates;
        self
    }

    /// The trigram similarity of `pg_trgm` from which a name is a candidate. Default: 0.3, as in `pg_trgm`.
    ///
    /// ```
    /// use graphsink::resolve::ResolverSettings;
    ///
    /// let settings = ResolverSettings::default().similarity_min(0.4);
    /// ```
    pub fn similarity_min(mut self, similarity: f64) -> Self {
        self.similarity_min = similarity;
        self
    }

    /// Maximum number of cached answers, about 300 bytes each. Default: 100,000; 0 caches none.
    ///
    /// ```
    /// use graphsink::resolve::ResolverSettings;
    ///
    /// let settings = ResolverSettings::default().cache_entries(1_000_000);
    /// ```
    pub fn cache_entries(mut self, entries: usize) -> Self {
        self.cache_entries = entries;
        self
    }

    /// How long an answer may be cached, which is the maximum delay until other processes' writes are seen. This
    /// engine's own writes are seen at once. Default: 30 s.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use graphsink::resolve::ResolverSettings;
    ///
    /// let settings = ResolverSettings::default().time_to_live(Duration::from_secs(5));
    /// ```
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.time_to_live = time;
        self
    }

    /// Number of connections, and so of concurrent batches. Default: 2.
    ///
    /// ```
    /// use graphsink::resolve::ResolverSettings;
    ///
    /// let settings = ResolverSettings::default().connections(4);
    /// ```
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// The band of a candidate's confidence.
    pub(crate) fn band(&self, confidence: f64) -> Band {
        if confidence > self.accept {
            Band::Existing
        } else if confidence >= self.reject {
            Band::Grey
        } else {
            Band::New
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let error = |setting, reason: &str| Err(ConfigError { setting, reason: reason.to_owned() });
        for (setting, value) in [
            ("accept_above", self.accept),
            ("new_below", self.reject),
            ("find_from", self.read_only),
            ("similarity_min", self.similarity_min),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return error(setting, "must be from 0 to 1");
            }
        }
        if self.reject > self.accept {
            return error("new_below", "must not be above accept_above");
        }
        if !(1..=1_000).contains(&self.candidates_max) {
            return error("candidates_max", "must be from 1 to 1,000");
        }
        if !(1..=64).contains(&self.connections) {
            return error("connections", "must be from 1 to 64");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_and_bounds_of_settings_are_checked() {
        let setting = |settings: ResolverSettings| settings.check().unwrap_err().setting;
        let default = ResolverSettings::default;
        assert_eq!(setting(default().accept_above(1.5)), "accept_above");
        assert_eq!(setting(default().find_from(f64::NAN)), "find_from");
        assert_eq!(setting(default().new_below(0.9)), "new_below");
        assert_eq!(setting(default().candidates_max(0)), "candidates_max");
        assert_eq!(setting(default().connections(0)), "connections");
        assert!(default().check().is_ok());
    }

    #[test]
    fn a_confidence_on_a_threshold_is_decided_by_the_policy() {
        let band = |confidence: f64| ResolverSettings::default().band(confidence);
        for (confidence, expected) in [(0.85, Band::Grey), (0.7, Band::Grey), (0.0, Band::New), (1.0, Band::Existing)] {
            assert_eq!(band(confidence), expected, "{confidence}");
        }
        assert_eq!(band(0.85_f64.next_up()), Band::Existing);
        assert_eq!(band(0.7_f64.next_down()), Band::New);
        let all = ResolverSettings::default().accept_above(1.0).new_below(1.0);
        assert_eq!((all.band(1.0), all.band(0.999)), (Band::Grey, Band::New));
    }
}
