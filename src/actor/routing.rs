//! The choice of a lane for a unit, so that concurrent transactions seldom wait for each other.
//!
//! Two transactions conflict if both write the same connection or entity: the second then waits for the commit of the
//! first, with all its locks. A unit's *keys* stand for its possible conflicts: its restaurant, and the entities about
//! which it states a fact (their existence, or an alias) that is not known to be written. Units that share a key go to
//! one lane as long as one of them is under way. A unit whose keys are under way in several lanes is held until they no
//! longer are.
//!
//! Properties:
//! - Holding affects only speed: any unit may go to any lane.
//! - No unit is held for ever: the end of an epoch lets all held units try again, a flush routes all of them, and the
//!   supervisor's sweep routes units that have waited for some seconds.

use crate::hash::HashMap;

/// Keys of units under way, and their lanes.
#[derive(Debug)]
pub(super) struct Routing {
    lanes: usize,
    under_way: HashMap<u64, UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    lane: usize,
    units: usize,
}

/// The lane choice for a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneChoice {
    /// No unit under way shares a key with it.
    Any,
    /// Other units with its keys are in this lane.
    Lane(usize),
    /// Other units with its keys are in several lanes; this is the lane of the first key.
    Several(usize),
}

impl Routing {
    pub(super) fn new(lanes: usize) -> Self {
        Self { lanes, under_way: HashMap::default() }
    }

    /// Whether there is more than one lane to choose from.
    pub(super) const fn is_choice(&self) -> bool {
        self.lanes > 1
    }

    /// The lane choice for a unit with these keys; the first key counts most.
    pub(super) fn lane_choice(&self, keys: &[u64]) -> LaneChoice {
        let mut lanes = keys.iter().filter_map(|key| self.under_way.get(key)).map(|under_way| under_way.lane);
        match lanes.next() {
            None => LaneChoice::Any,
            Some(first) if lanes.all(|lane| lane == first) => LaneChoice::Lane(first),
            Some(first) => LaneChoice::Several(first),
        }
    }

    /// Whether nothing is under way.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Notes that a unit with these keys goes to a lane. Keys that are under way in another lane stay there.
    pub(super) fn enter(&mut self, lane: usize, keys: &[u64]) {
        for key in keys {
            self.under_way.entry(*key).or_insert(UnderWay { lane, units: 0 }).units += 1;
        }
    }

    /// Notes that units with these keys are no longer under way.
    pub(super) fn leave(&mut self, keys: &[u64]) {
        for key in keys {
            if let Some(under_way) = self.under_way.get_mut(key) {
                under_way.units -= 1;
                if under_way.units == 0 {
                    self.under_way.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_that_share_a_key_go_to_one_lane() {
        let mut routing = Routing::new(2);
        assert_eq!(routing.lane_choice(&[1, 2]), LaneChoice::Any);
        routing.enter(0, &[1, 2]);
        routing.enter(1, &[3]);
        assert_eq!(routing.lane_choice(&[2, 9]), LaneChoice::Lane(0));
        assert_eq!(routing.lane_choice(&[3, 1]), LaneChoice::Several(1));
        // Key 1 belongs to another lane, but a unit may be sent anywhere. The key stays with its lane until that unit
        // ends.
        routing.enter(1, &[3, 1]);
        routing.leave(&[1, 2]);
        assert_eq!(routing.lane_choice(&[1]), LaneChoice::Lane(0), "another unit with the key is under way");
        routing.leave(&[3, 1]);
        assert_eq!(routing.lane_choice(&[1, 2]), LaneChoice::Any);
        assert_eq!(routing.lane_choice(&[3]), LaneChoice::Lane(1));
        routing.leave(&[3]);
        assert!(routing.is_empty());
    }

    proptest! {
        /// No key is in two lanes at once, as long as each unit enters the lane that was chosen for it.
        #[test]
        fn no_key_is_in_two_lanes_at_once(units in prop::collection::vec((prop::collection::vec(0_u64..8, 1..4), any::<bool>()), 1..60)) {
            let mut routing = Routing::new(3);
            let mut under_way: Vec<(usize, Vec<u64>)> = Vec::new();
            for (number, (keys, ends)) in units.into_iter().enumerate() {
                if ends && !under_way.is_empty() {
                    let (_, keys) = under_way.remove(0);
                    routing.leave(&keys);
                }
                let lane = match routing.lane_choice(&keys) {
                    LaneChoice::Any => number % 3,
                    LaneChoice::Lane(lane) => lane,
                    LaneChoice::Several(_) => continue,
                };
                for (other, others) in &under_way {
                    prop_assert!(*other == lane || others.iter().all(|key| !keys.contains(key)));
                }
                routing.enter(lane, &keys);
                under_way.push((lane, keys));
            }
            for (_, keys) in under_way {
                routing.leave(&keys);
            }
            prop_assert!(routing.is_empty());
        }
    }
}
