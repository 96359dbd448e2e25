//! The connections that units named most often recently: a sketch of bounded size ("space saving").
//!
//! It keeps [`TRACKED`] connections. A new one takes the place of the coldest and inherits its heat, so that a hot
//! connection is never missed, and the heat of another is overestimated by at most the inherited heat. For each epoch
//! only the [`OF_EPOCH`] connections that it names most often are counted, so that the work does not grow with its
//! rows.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::hash::HashMap;

/// Number of connections whose heat is tracked.
const TRACKED: usize = 128;
/// Number of connections that are counted for each epoch.
const OF_EPOCH: usize = 32;
/// Number of connections in a snapshot.
const SHOWN: usize = 10;
/// Half-life of the heat.
const HALF_LIFE: Duration = Duration::from_mins(1);

/// A connection that many units name.
///
/// ```no_run
/// # fn look(engine: &graphsink::Engine) {
/// for hot in engine.stats().hot_connections {
///     println!("{}: {} rows lately, or {} fewer", hot.connection_id, hot.recent_rows, hot.overcount);
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HotConnection {
    /// Its id in the database.
    pub connection_id: Uuid,
    /// Committed rows that named it recently: rows count half after each minute.
    pub recent_rows: u64,
    /// Upper bound of the overestimate in `recent_rows`.
    pub overcount: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct HotConnections {
    heat: HashMap<Uuid, Heat>,
    cooled: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Heat {
    rows: u64,
    overcount: u64,
}

impl Default for HotConnections {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl HotConnections {
    fn new(now: Instant) -> Self {
        Self { heat: HashMap::default(), cooled: now }
    }

    /// Counts an epoch: its connections with the number of times it named each.
    pub(super) fn absorb(&mut self, mut epoch: Vec<(u32, Uuid)>, now: Instant) {
        self.cool(now);
        if epoch.len() > OF_EPOCH {
            epoch.select_nth_unstable_by_key(OF_EPOCH, |(rows, _)| Reverse(*rows));
            epoch.truncate(OF_EPOCH);
        }
        for (rows, connection) in epoch {
            self.add(connection, u64::from(rows));
        }
    }

    fn add(&mut self, connection: Uuid, rows: u64) {
        if let Some(heat) = self.heat.get_mut(&connection) {
            heat.rows += rows;
            return;
        }
        let mut overcount = 0;
        if self.heat.len() >= TRACKED
            && let Some((coldest, heat)) = self.heat.iter().min_by_key(|(_, heat)| heat.rows)
        {
            overcount = heat.rows;
            let coldest = *coldest;
            self.heat.remove(&coldest);
        }
        self.heat.insert(connection, Heat { rows: overcount + rows, overcount });
    }

    fn cool(&mut self, now: Instant) {
        let halvings = now.saturating_duration_since(self.cooled).as_secs() / HALF_LIFE.as_secs();
        if halvings == 0 {
            return;
        }
        self.cooled = now;
        let shift = halvings.min(63) as u32;
        for heat in self.heat.values_mut() {
            heat.rows >>= shift;
            heat.overcount >>= shift;
        }
        self.heat.retain(|_, heat| heat.rows > 0);
    }

    /// The hottest connections, hottest first.
    pub(super) fn hottest(&mut self, now: Instant) -> Vec<HotConnection> {
        self.cool(now);
        let mut all: Vec<_> = self
            .heat
            .iter()
            .map(|(connection_id, heat)| HotConnection {
                connection_id: *connection_id,
                recent_rows: heat.rows,
                overcount: heat.overcount,
            })
            .collect();
        all.sort_unstable_by_key(|hot| (Reverse(hot.recent_rows), hot.connection_id));
        all.truncate(SHOWN);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> Uuid {
        Uuid::from_u128(number as u128)
    }

    #[test]
    fn a_hot_connection_is_found_among_many_cold_ones_within_bounds() {
        let now = Instant::now();
        let mut sketch = HotConnections::new(now);
        for epoch in 0..1_000 {
            let cold = (0..50).map(|cold| (1, id(1_000 + epoch * 50 + cold)));
            sketch.absorb([(5, id(1)), (3, id(2))].into_iter().chain(cold).collect(), now);
            assert!(sketch.heat.len() <= TRACKED);
        }
        let hottest = sketch.hottest(now);
        assert_eq!(hottest.len(), SHOWN);
        for (hot, (number, rows)) in hottest.iter().zip([(1, 5_000), (2, 3_000)]) {
            assert_eq!(hot.connection_id, id(number));
            assert!(hot.recent_rows >= rows && hot.recent_rows - hot.overcount <= rows, "{hot:?}");
        }
    }

    #[test]
    fn a_single_unit_counts_and_heat_halves_every_minute() {
        let now = Instant::now();
        let mut sketch = HotConnections::new(now);
        sketch.absorb(vec![(8, id(1))], now);
        sketch.absorb(vec![(1, id(2))], now);
        assert_eq!(sketch.hottest(now).len(), 2);
        let later = now + 2 * HALF_LIFE;
        let hottest = sketch.hottest(later);
        assert_eq!((hottest.len(), hottest[0].recent_rows), (1, 2), "{hottest:?}");
        assert_eq!(sketch.hottest(later + 100 * HALF_LIFE), []);
    }
}
