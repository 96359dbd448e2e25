//! Liveness and readiness of an engine, for an orchestrator's probes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::actor::Shared;
use crate::config::Config;
use crate::flight::Lifecycle;
use crate::label::ActorKind;
use crate::record::Timestamp;

/// An actor gives a sign of life every half second, between other work. An actor that is silent for this long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Every unit has its outcome at its deadline, or a few transactions later. A unit that is this late is stuck.
const LATE_MAX: Duration = Duration::from_mins(1);

/// An engine's health: see [`Engine::health`](crate::Engine::health). Implements serde's traits; durations are seconds.
///
/// `live` is for liveness probes: if it is false, only a restart of the process helps. An outage of the database does
/// not make it false. `ready` is for readiness probes: whether units are accepted and can be expected to be committed
/// soon. It does not depend on how full the engine is, because an engine under load is full by design; `backlog` has
/// that.
///
/// The engine learns the state of the database from its own work: while no unit is submitted, an outage is not
/// detected.
///
/// ```no_run
/// # fn look(engine: &graphsink::Engine) {
/// let health = engine.health();
/// let status = if health.ready { 200 } else { 503 };
/// println!("{status} {}", health.reasons.join("; "));
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Health {
    /// Actors are alive (or the engine was shut down), and no unit is stuck.
    pub live: bool,
    /// The engine is running and live, and the database can be used as far as is known.
    pub ready: bool,
    /// Why it is not live or not ready, as text for people. Contains no values of rows and no passwords.
    pub reasons: Vec<String>,
    /// The engine's stage of life.
    pub status: EngineStatus,
    /// Its actors.
    pub actors: Vec<ActorHealth>,
    /// The database.
    pub database: DatabaseHealth,
    /// Units accepted and not yet answered.
    pub backlog: Backlog,
}

/// A stage in the life of an engine.
///
/// ```no_run
/// # fn look(engine: &graphsink::Engine) {
/// use graphsink::EngineStatus;
///
/// if engine.health().status == EngineStatus::Failed {
///     println!("start another engine");
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EngineStatus {
    /// It accepts units.
    Running,
    /// It accepts no more units and commits those that it has.
    Draining,
    /// It was shut down.
    Stopped,
    /// Its actors died too often, and it ended itself.
    Failed,
}

/// The health of an actor.
///
/// ```no_run
/// # fn look(engine: &graphsink::Engine) {
/// for actor in engine.health().actors.iter().filter(|actor| !actor.alive) {
///     println!("{} was last seen {:?} ago", actor.name, actor.seen_ago);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ActorHealth {
    /// Its name, as in metrics: `supervisor`, `entity_batcher`, `connection_batcher`, `mention_batcher`,
    /// `transaction_coordinator`.
    pub name: String,
    /// Whether it gave a sign of life recently.
    pub alive: bool,
    /// How often it died and was restarted.
    pub restarts: u64,
    /// Time since its last sign of life. Below a second, unless it hangs.
    #[serde(with = "seconds")]
    pub seen_ago: Duration,
}

/// The state of the database, known from the engine's own work.
///
/// ```no_run
/// # fn look(engine: &graphsink::Engine) {
/// if let Some(outage) = engine.health().database.unusable_for {
///     println!("no writes for {outage:?}");
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DatabaseHealth {
    /// Whether it can be used, as far as is known: false while the circuit breaker is open.
    pub usable: bool,
    /// How long it has not been usable.
    #[serde(with = "optional_seconds")]
    pub unusable_for: Option<Duration>,
    /// Time of the last commit.
    pub last_commit_at: Option<Timestamp>,
}

/// Units accepted and not yet answered, and the limits.
///
/// ```no_run
/// # fn look(engine: &graphsink::Engine) {
/// let backlog = engine.health().backlog;
/// println!("{} of {} rows, the oldest unit waits for {:?}", backlog.rows, backlog.rows_max, backlog.oldest_unit);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Backlog {
    /// Units.
    pub units: u64,
    /// Rows.
    pub rows: u64,
    /// Maximum number of rows in flight.
    pub rows_max: u64,
    /// Bytes.
    pub bytes: u64,
    /// Maximum number of bytes in flight.
    pub bytes_max: u64,
    /// How long the oldest unit has been waiting for its outcome; zero when there is none.
    #[serde(with = "seconds")]
    pub oldest_unit: Duration,
}

impl Health {
    pub(super) fn of(shared: &Shared, config: &Config) -> Self {
        let status = EngineStatus::from(shared.in_flight.lifecycle());
        let (counted, pulse) = (shared.counters.snapshot(), &shared.pulse);
        let ended = matches!(status, EngineStatus::Stopped | EngineStatus::Failed);
        let actor = |actor: ActorKind| {
            let seen_ago = pulse.age(actor);
            let restarts = shared.counters.restarts_of(actor);
            ActorHealth { name: actor.as_str().to_owned(), alive: !ended && seen_ago < SILENCE_MAX, restarts, seen_ago }
        };
        let outage = shared.store.outage();
        let mut health = Self {
            live: true,
            ready: true,
            reasons: Vec::new(),
            status,
            actors: ActorKind::ALL.map(actor).into(),
            database: DatabaseHealth {
                usable: outage.is_none(),
                unusable_for: outage.as_ref().map(|(since, _)| since.elapsed()),
                last_commit_at: counted.last_commit_at,
            },
            backlog: Backlog {
                units: counted.units_in_flight(),
                rows: counted.rows_in_flight,
                rows_max: config.max_rows_in_flight as u64,
                bytes: counted.bytes_in_flight,
                bytes_max: config.max_bytes_in_flight as u64,
                oldest_unit: shared.in_flight.oldest(),
            },
        };
        health.judge(config.outcome_deadline, outage.map(|(_, cause)| cause.to_string()));
        health
    }

    /// Derives `live`, `ready` and `reasons`.
    fn judge(&mut self, outcome_deadline: Duration, outage: Option<String>) {
        match self.status {
            EngineStatus::Running => {}
            EngineStatus::Draining => self.is_not_ready("the engine accepts no more units".to_owned()),
            EngineStatus::Stopped => self.is_not_ready("the engine was shut down".to_owned()),
            EngineStatus::Failed => self.is_not_live("actors died too often, and the engine ended".to_owned()),
        }
        if let EngineStatus::Running | EngineStatus::Draining = self.status {
            let silent: Vec<_> = self.actors.iter().filter(|actor| !actor.alive).map(|actor| &*actor.name).collect();
            if !silent.is_empty() {
                let reason = format!("no sign of life from {}", silent.join(", "));
                self.is_not_live(reason);
            }
            if self.backlog.oldest_unit > outcome_deadline + LATE_MAX {
                self.is_not_live(format!("a unit has had no outcome for {} s", self.backlog.oldest_unit.as_secs()));
            }
        }
        if let Some(cause) = outage {
            self.is_not_ready(format!("the database cannot be used: {cause}"));
        }
    }

    fn is_not_ready(&mut self, reason: String) {
        self.ready = false;
        self.reasons.push(reason);
    }

    fn is_not_live(&mut self, reason: String) {
        self.live = false;
        self.is_not_ready(reason);
    }
}

impl From<Lifecycle> for EngineStatus {
    fn from(lifecycle: Lifecycle) -> Self {
        match lifecycle {
            Lifecycle::Open => Self::Running,
            Lifecycle::Closed => Self::Draining,
            Lifecycle::ShutDown => Self::Stopped,
            Lifecycle::Failed => Self::Failed,
        }
    }
}

/// Durations as seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        duration.as_secs_f64().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Optional durations as seconds.
mod optional_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    // The signature that serde requires.
    #[allow(clippy::ref_option)]
    pub(super) fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        duration.map(|duration| duration.as_secs_f64()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(from)?;
        seconds.map(Duration::try_from_secs_f64).transpose().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_mins(1);

    fn healthy() -> Health {
        let actor = |actor: ActorKind| ActorHealth {
            name: actor.as_str().to_owned(),
            alive: true,
            restarts: 0,
            seen_ago: Duration::from_millis(250),
        };
        Health {
            live: true,
            ready: true,
            reasons: Vec::new(),
            status: EngineStatus::Running,
            actors: ActorKind::ALL.map(actor).into(),
            database: DatabaseHealth { usable: true, unusable_for: None, last_commit_at: None },
            backlog: Backlog { units: 1, rows: 9, rows_max: 9, bytes: 9, bytes_max: 9, oldest_unit: DEADLINE },
        }
    }

    /// Liveness, readiness, and the number of reasons.
    fn judged(change: impl FnOnce(&mut Health), outage: Option<&str>) -> (bool, bool, usize) {
        let mut health = healthy();
        change(&mut health);
        health.judge(DEADLINE, outage.map(str::to_owned));
        (health.live, health.ready, health.reasons.len())
    }

    #[test]
    fn only_conditions_that_a_restart_mends_are_not_live() {
        assert_eq!(judged(|_| {}, None), (true, true, 0), "a full engine is healthy");
        assert_eq!(judged(|_| {}, Some("down")), (true, false, 1), "an outage is no reason to restart");
        assert_eq!(judged(|health| health.status = EngineStatus::Draining, None), (true, false, 1));
        assert_eq!(judged(|health| health.actors[3].alive = false, None), (false, false, 1));
        let stuck = |health: &mut Health| health.backlog.oldest_unit = 3 * DEADLINE;
        assert_eq!(judged(stuck, Some("down")), (false, false, 2));
        // An engine that has ended has no actors.
        let ended = |status| {
            move |health: &mut Health| {
                health.status = status;
                health.actors.iter_mut().for_each(|actor| actor.alive = false);
            }
        };
        assert_eq!(judged(ended(EngineStatus::Stopped), None), (true, false, 1), "a shutdown on request is no fault");
        assert_eq!(judged(ended(EngineStatus::Failed), None), (false, false, 1));
    }

    #[test]
    fn health_reads_back_from_json() {
        let mut health = healthy();
        health.database.unusable_for = Some(Duration::from_millis(1500));
        let json = serde_json::to_value(&health).unwrap();
        assert_eq!((&json["status"], &json["database"]["unusable_for"]), (&"running".into(), &1.5.into()));
        assert_eq!(json["actors"][0]["seen_ago"], 0.25);
        assert_eq!(serde_json::from_value::<Health>(json).unwrap(), health);
    }
}
