//! Names of metrics and spans. All are defined here, each described once with its unit.
//!
//! | metric | kind | labels | meaning |
//! |---|---|---|---|
//! | `graphsink_units_total` | counter | `outcome` | units by outcome: committed, rejected, unavailable |
//! | `graphsink_units_invalid_total` | counter | `rule` | units refused before they were accepted |
//! | `graphsink_rows_total` | counter | `table`, `disposition` | rows of the database by the effect of the commit |
//! | `graphsink_rows_received_total` | counter | `table` | rows as submitted, in committed transactions |
//! | `graphsink_rows_coalesced_total` | counter | `table` | rows saved by coalescing |
//! | `graphsink_batch_rows` | histogram (rows) | `table` | coalesced rows of a committed batch |
//! | `graphsink_epoch_units` | histogram (units) | | units of a committed transaction |
//! | `graphsink_epochs_sealed_total` | counter | `reason` | why an epoch was sealed: `lane_free`, `full`, `flush` |
//! | `graphsink_commit_seconds` | histogram (seconds) | | a transaction, from its connection to its commit |
//! | `graphsink_statement_seconds` | histogram (seconds) | `statement` | a statement, from its sending to its last row |
//! | `graphsink_acknowledgement_seconds` | histogram (seconds) | `outcome` | a unit, from its acceptance to its outcome |
//! | `graphsink_lane_wait_seconds` | histogram (seconds) | | a sealed epoch, until its lane was free |
//! | `graphsink_pool_wait_seconds` | histogram (seconds) | | a transaction, until it had a connection |
//! | `graphsink_lock_wait_seconds` | histogram (seconds) | | a transaction, while it waited for locks that others held |
//! | `graphsink_last_commit_timestamp_seconds` | gauge (seconds since 1970) | | time of the last commit |
//! | `graphsink_epochs_in_flight` | gauge (epochs) | `state` | sealed epochs: waiting for their lane, writing |
//! | `graphsink_admission_wait_seconds` | histogram (seconds) | | time that `submit` waited for admission |
//! | `graphsink_rows_in_flight` | gauge (rows) | | rows accepted and not yet answered |
//! | `graphsink_bytes_in_flight` | gauge (bytes) | | bytes accepted and not yet answered |
//! | `graphsink_rows_in_flight_max` | gauge (rows) | | maximum number of rows in flight |
//! | `graphsink_bytes_in_flight_max` | gauge (bytes) | | maximum number of bytes in flight |
//! | `graphsink_retries_total` | counter | `sqlstate`, `reaction` | failed attempts by reaction: retry, split, reject |
//! | `graphsink_circuit_open` | gauge (0 or 1) | | whether the circuit breaker is open: the database cannot be used |
//! | `graphsink_circuit_openings_total` | counter | `sqlstate` | how often the circuit breaker opened |
//! | `graphsink_dead_letters_total` | counter | | rejected units that were kept as dead letters |
//! | `graphsink_known_names_total` | counter | `result` | names of entities by whether they were known, with all stated facts: hit, miss |
//! | `graphsink_actor_restarts_total` | counter | `actor` | actors that died and were restarted |
//! | `graphsink_merges_total` | counter | `outcome` | merges of entities: `merged`, `already_merged`, `rejected`, `unavailable` |
//! | `graphsink_merge_seconds` | histogram (seconds) | | a transaction of merges, from its connection to its commit |
//! | `graphsink_pool_connections` | gauge (connections) | `state` | connections of the pool: open, idle, max |
//! | `graphsink_resolver_names_total` | counter | `tier` | names by the tier that found them: exact, alias, fuzzy, none |
//! | `graphsink_resolver_decisions_total` | counter | `decision` | names by decision: existing, new, ambiguous |
//! | `graphsink_resolver_cache_total` | counter | `result` | names by whether the answer was cached: hit, miss |
//! | `graphsink_resolver_lookup_seconds` | histogram (seconds) | | a batch's lookup in the database |
//!
//! | span | level | within | fields |
//! |---|---|---|---|
//! | `unit`: a unit from its acceptance; its outcome is an event in it | debug | the caller's | `number` of the receipt, `rows`, `epoch`, `attempt` of each transaction attempt |
//! | `batch`: a table's part of an epoch, when it is sealed | debug | | `epoch`, `table` |
//! | `epoch`: a commit task; it follows from the spans of its units | debug | | `number`, `lane`, `units` |
//! | `transaction`: one attempt | debug | `epoch` | `attempt`, the id in `graphsink_attempts`; `attempts` so far, `units`, coalesced rows by table; `lock_wait_ms` at its end |
//! | `merge`: a transaction of merges | debug | the caller's | `attempt`, `attempts`, `merges`; `lock_wait_ms` at its end |
//! | `lane_wait`, `circuit_wait`: before a transaction | trace | `epoch` | |
//! | `pool_wait`: waiting for a connection | trace | `transaction` | |
//! | `statement`: from its sending to its last row | trace | `transaction` | `name` |
//!
//! So a slow acknowledgement can be followed from its unit's `epoch` and `attempt` to the epoch, its transaction and
//! the statement. The example `traces` does this with OpenTelemetry.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::label::{ActorKind, Disposition, EpochState, OutcomeKind, Reaction};
use crate::record::Table;

pub(crate) const UNITS: &str = "graphsink_units_total";
pub(crate) const UNITS_INVALID: &str = "graphsink_units_invalid_total";
pub(crate) const ROWS: &str = "graphsink_rows_total";
pub(crate) const ROWS_RECEIVED: &str = "graphsink_rows_received_total";
pub(crate) const ROWS_COALESCED: &str = "graphsink_rows_coalesced_total";
pub(crate) const BATCH_ROWS: &str = "graphsink_batch_rows";
pub(crate) const EPOCH_UNITS: &str = "graphsink_epoch_units";
pub(crate) const EPOCHS_SEALED: &str = "graphsink_epochs_sealed_total";
pub(crate) const COMMIT_SECONDS: &str = "graphsink_commit_seconds";
pub(crate) const STATEMENT_SECONDS: &str = "graphsink_statement_seconds";
pub(crate) const ACKNOWLEDGEMENT_SECONDS: &str = "graphsink_acknowledgement_seconds";
pub(crate) const LANE_WAIT_SECONDS: &str = "graphsink_lane_wait_seconds";
pub(crate) const POOL_WAIT_SECONDS: &str = "graphsink_pool_wait_seconds";
pub(crate) const LOCK_WAIT_SECONDS: &str = "graphsink_lock_wait_seconds";
pub(crate) const LAST_COMMIT_TIMESTAMP_SECONDS: &str = "graphsink_last_commit_timestamp_seconds";
pub(crate) const EPOCHS_IN_FLIGHT: &str = "graphsink_epochs_in_flight";
pub(crate) const ADMISSION_WAIT_SECONDS: &str = "graphsink_admission_wait_seconds";
pub(crate) const ROWS_IN_FLIGHT: &str = "graphsink_rows_in_flight";
pub(crate) const BYTES_IN_FLIGHT: &str = "graphsink_bytes_in_flight";
pub(crate) const ROWS_IN_FLIGHT_MAX: &str = "graphsink_rows_in_flight_max";
pub(crate) const BYTES_IN_FLIGHT_MAX: &str = "graphsink_bytes_in_flight_max";
pub(crate) const RETRIES: &str = "graphsink_retries_total";
pub(crate) const CIRCUIT_OPEN: &str = "graphsink_circuit_open";
pub(crate) const CIRCUIT_OPENINGS: &str = "graphsink_circuit_openings_total";
pub(crate) const DEAD_LETTERS: &str = "graphsink_dead_letters_total";
pub(crate) const KNOWN_NAMES: &str = "graphsink_known_names_total";
pub(crate) const ACTOR_RESTARTS: &str = "graphsink_actor_restarts_total";
pub(crate) const MERGES: &str = "graphsink_merges_total";
pub(crate) const MERGE_SECONDS: &str = "graphsink_merge_seconds";
pub(crate) const POOL_CONNECTIONS: &str = "graphsink_pool_connections";

/// Describes every metric to the recorder that the program installed, and registers the counters
/// that alerts are made of at zero.
pub(crate) fn describe() {
    describe_counter!(UNITS, Unit::Count, "Units by outcome");
    describe_counter!(UNITS_INVALID, Unit::Count, "Units refused before they were accepted, by rule");
    describe_counter!(ROWS, Unit::Count, "Rows of the database by table and effect of the commit");
    describe_counter!(ROWS_RECEIVED, Unit::Count, "Rows as submitted, in committed transactions");
    describe_counter!(ROWS_COALESCED, Unit::Count, "Rows saved by coalescing");
    describe_histogram!(BATCH_ROWS, Unit::Count, "Coalesced rows of a committed batch");
    describe_histogram!(EPOCH_UNITS, Unit::Count, "Units of a committed transaction");
    describe_counter!(EPOCHS_SEALED, Unit::Count, "Epochs by the reason of their seal");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "A transaction, from its connection to its commit");
    describe_histogram!(STATEMENT_SECONDS, Unit::Seconds, "A statement, from its sending to its last row");
    describe_histogram!(ACKNOWLEDGEMENT_SECONDS, Unit::Seconds, "A unit, from its acceptance to its outcome");
    describe_histogram!(LANE_WAIT_SECONDS, Unit::Seconds, "A sealed epoch, until its lane was free");
    describe_histogram!(POOL_WAIT_SECONDS, Unit::Seconds, "A transaction, until it had a connection");
    describe_histogram!(LOCK_WAIT_SECONDS, Unit::Seconds, "A transaction, while it waited for locks that others held");
    describe_gauge!(LAST_COMMIT_TIMESTAMP_SECONDS, Unit::Seconds, "Time of the last commit, since 1970");
    describe_gauge!(EPOCHS_IN_FLIGHT, Unit::Count, "Sealed epochs by state");
    describe_histogram!(ADMISSION_WAIT_SECONDS, Unit::Seconds, "Time that submit waited for admission");
    describe_gauge!(ROWS_IN_FLIGHT, Unit::Count, "Rows accepted and not yet answered");
    describe_gauge!(BYTES_IN_FLIGHT, Unit::Bytes, "Bytes accepted and not yet answered");
    describe_gauge!(ROWS_IN_FLIGHT_MAX, Unit::Count, "Maximum number of rows in flight");
    describe_gauge!(BYTES_IN_FLIGHT_MAX, Unit::Bytes, "Maximum number of bytes in flight");
    describe_counter!(RETRIES, Unit::Count, "Failed attempts by SQLSTATE and reaction");
    describe_gauge!(CIRCUIT_OPEN, Unit::Count, "1 while the circuit breaker is open, else 0");
    describe_counter!(CIRCUIT_OPENINGS, Unit::Count, "How often the circuit breaker opened");
    describe_counter!(DEAD_LETTERS, Unit::Count, "Rejected units that were kept as dead letters");
    describe_counter!(KNOWN_NAMES, Unit::Count, "Names of entities by whether they were known");
    describe_counter!(ACTOR_RESTARTS, Unit::Count, "Actors that died and were restarted");
    describe_counter!(MERGES, Unit::Count, "Merges of entities by outcome");
    describe_histogram!(MERGE_SECONDS, Unit::Seconds, "A transaction of merges, from its connection to its commit");
    describe_gauge!(POOL_CONNECTIONS, Unit::Count, "Connections of the pool");
    gauge!(CIRCUIT_OPEN).set(0.0);
    // A series that begins with its first event shows no increase for it.
    counter!(DEAD_LETTERS).increment(0);
    for actor in ActorKind::ALL {
        counter!(ACTOR_RESTARTS, "actor" => actor.as_str()).increment(0);
    }
    for reaction in Reaction::ALL {
        counter!(RETRIES, "sqlstate" => "none", "reaction" => reaction.as_str()).increment(0);
    }
    counter!(CIRCUIT_OPENINGS, "sqlstate" => "none").increment(0);
    for state in EpochState::ALL {
        epochs_in_flight(state.as_str(), 0);
    }
    for outcome in OutcomeKind::ALL {
        counter!(UNITS, "outcome" => outcome.as_str()).increment(0);
    }
    for table in Table::ALL {
        for disposition in Disposition::ALL {
            counter!(ROWS, "table" => table.as_str(), "disposition" => disposition.as_str()).increment(0);
        }
    }
}

#[cfg(feature = "resolver")]
const RESOLVER_NAMES: &str = "graphsink_resolver_names_total";
#[cfg(feature = "resolver")]
const RESOLVER_DECISIONS: &str = "graphsink_resolver_decisions_total";
#[cfg(feature = "resolver")]
const RESOLVER_CACHE: &str = "graphsink_resolver_cache_total";
#[cfg(feature = "resolver")]
const RESOLVER_LOOKUP_SECONDS: &str = "graphsink_resolver_lookup_seconds";

/// Like [`describe`], for the resolver.
#[cfg(feature = "resolver")]
pub(crate) fn describe_resolver() {
    describe_counter!(RESOLVER_NAMES, Unit::Count, "Names by the tier that found them");
    describe_counter!(RESOLVER_DECISIONS, Unit::Count, "Names by decision");
    describe_counter!(RESOLVER_CACHE, Unit::Count, "Names by whether the answer was cached");
    describe_histogram!(RESOLVER_LOOKUP_SECONDS, Unit::Seconds, "A batch's lookup in the database");
}

#[cfg(feature = "resolver")]
pub(crate) fn resolver_found(tier: &'static str, names: usize) {
    counter!(RESOLVER_NAMES, "tier" => tier).increment(names as u64);
}

#[cfg(feature = "resolver")]
pub(crate) fn resolver_decided(decision: &'static str, names: usize) {
    counter!(RESOLVER_DECISIONS, "decision" => decision).increment(names as u64);
}

#[cfg(feature = "resolver")]
pub(crate) fn resolver_remembered(hits: usize, misses: usize) {
    counter!(RESOLVER_CACHE, "result" => "hit").increment(hits as u64);
    counter!(RESOLVER_CACHE, "result" => "miss").increment(misses as u64);
}

#[cfg(feature = "resolver")]
pub(crate) fn resolver_looked_up(took: Duration) {
    histogram!(RESOLVER_LOOKUP_SECONDS).record(took);
}

pub(crate) fn statement_ran(statement: &'static str, took: Duration) {
    histogram!(STATEMENT_SECONDS, "statement" => statement).record(took);
}

pub(crate) fn retried(sqlstate: Option<&str>, reaction: &'static str) {
    let sqlstate = sqlstate.unwrap_or("none").to_owned();
    counter!(RETRIES, "sqlstate" => sqlstate, "reaction" => reaction).increment(1);
}

pub(crate) fn circuit_opened(sqlstate: Option<&str>) {
    gauge!(CIRCUIT_OPEN).set(1.0);
    let sqlstate = sqlstate.unwrap_or("none").to_owned();
    counter!(CIRCUIT_OPENINGS, "sqlstate" => sqlstate).increment(1);
}

pub(crate) fn circuit_closed() {
    gauge!(CIRCUIT_OPEN).set(0.0);
}

pub(crate) fn dead_letters_kept(units: usize) {
    counter!(DEAD_LETTERS).increment(units as u64);
}

pub(crate) fn names_known(hits: usize, misses: usize) {
    counter!(KNOWN_NAMES, "result" => "hit").increment(hits as u64);
    counter!(KNOWN_NAMES, "result" => "miss").increment(misses as u64);
}

pub(crate) fn merged(outcome: &'static str) {
    counter!(MERGES, "outcome" => outcome).increment(1);
}

pub(crate) fn merges_committed(took: Duration) {
    histogram!(MERGE_SECONDS).record(took);
}

/// The limits of an engine, for panels that show how much of them is used.
pub(crate) fn limits(rows: usize, bytes: usize) {
    gauge!(ROWS_IN_FLIGHT_MAX).set(rows as f64);
    gauge!(BYTES_IN_FLIGHT_MAX).set(bytes as f64);
}

pub(crate) fn epochs_in_flight(state: &'static str, epochs: u64) {
    gauge!(EPOCHS_IN_FLIGHT, "state" => state).set(epochs as f64);
}

pub(crate) fn sealed(reason: &'static str) {
    counter!(EPOCHS_SEALED, "reason" => reason).increment(1);
}

pub(crate) fn actor_restarted(actor: &'static str) {
    counter!(ACTOR_RESTARTS, "actor" => actor).increment(1);
}

pub(crate) fn invalid(rule: &'static str) {
    counter!(UNITS_INVALID, "rule" => rule).increment(1);
}
