//! The table of metrics. One entry is all that is said of a metric: its function, its description to recorders, its
//! line in the documentation, its start at zero and what tests expect of it follow.
//!
//! An entry names the kind with what is measured or counted, the function that gives the handle, the labels with their
//! values, and the name. `..` stands for values that are not listed. A metric `from 0` is registered with every
//! combination of the listed values when the engine starts: a series that begins with its first event shows no increase
//! for it, so counters that alerts are made of need that.

use super::Metric;

/// Makes of each group a module with a function for each metric and the list `METRICS`, and of all of them the lines of
/// the documentation's table, as the macro `documentation`. A function that is not called is a warning: its metric is
/// documented and never emitted.
macro_rules! metrics {
    ($(
        $(#[$attribute:meta])*
        $group:ident { $(
            #[doc = $meaning:literal]
            $kind:ident $(($unit:literal))? $function:ident($($label:ident: $values:literal),*)
                $name:literal $(from $zero:literal)?;
        )* }
    )*) => {
        $(
            $(#[$attribute])*
            pub(crate) mod $group {
                use super::Metric;

                pub(crate) const METRICS: &[Metric] = &[$(Metric {
                    name: $name,
                    kind: stringify!($kind),
                    unit: concat!($($unit)?),
                    labels: &[$((stringify!($label), $values)),*],
                    meaning: $meaning,
                    from_zero: !concat!($($zero)?).is_empty(),
                }),*];

                $(
                    #[doc = $meaning]
                    pub(crate) fn $function($($label: impl Into<metrics::SharedString>),*) -> handle!($kind) {
                        metrics::$kind!($name $(, stringify!($label) => $label)*)
                    }
                )*
            }
        )*

        macro_rules! documentation {
            () => {
                concat!($($(
                    "| `", $name, "` | ", stringify!($kind), $(" (", $unit, ")",)? " |",
                    $(" `", stringify!($label), "`: ", $values, ".",)* " |", $meaning, " |\n",
                )*)*)
            };
        }
        pub(super) use documentation;

        /// The metrics of all groups.
        #[doc(hidden)]
        pub const METRICS: &[&[Metric]] = &[$($group::METRICS),*];
    };
}

/// The type of a metric's handle.
macro_rules! handle {
    (counter) => {
        metrics::Counter
    };
    (gauge) => {
        metrics::Gauge
    };
    (histogram) => {
        metrics::Histogram
    };
}

metrics! {
    engine {
        /// units by outcome
        counter units(outcome: "committed, rejected, unavailable") "graphsink_units_total" from 0;
        /// units refused before they were accepted
        counter units_invalid(rule: "..") "graphsink_units_invalid_total";
        /// rows of the database by the effect of the commit
        counter rows(table: "entities, connections, mentions", disposition: "inserted, updated, unchanged")
            "graphsink_rows_total" from 0;
        /// rows as submitted, in committed transactions
        counter rows_received(table: "entities, connections, mentions") "graphsink_rows_received_total";
        /// rows saved by coalescing
        counter rows_coalesced(table: "entities, connections, mentions") "graphsink_rows_coalesced_total";
        /// coalesced rows of a committed batch
        histogram("rows") batch_rows(table: "entities, connections, mentions") "graphsink_batch_rows";
        /// units of a committed transaction
        histogram("units") epoch_units() "graphsink_epoch_units";
        /// why an epoch was sealed
        counter epochs_sealed(reason: "lane_free, full, flush") "graphsink_epochs_sealed_total";
        /// a transaction, from its connection to its commit
        histogram("seconds") commit_seconds() "graphsink_commit_seconds";
        /// a statement, from its sending to its last row
        histogram("seconds") statement_seconds(statement: "..") "graphsink_statement_seconds";
        /// a unit, from its acceptance to its outcome
        histogram("seconds") acknowledgement_seconds(outcome: "committed, rejected, unavailable")
            "graphsink_acknowledgement_seconds";
        /// a sealed epoch, until its lane was free
        histogram("seconds") lane_wait_seconds() "graphsink_lane_wait_seconds";
        /// a transaction, until it had a connection
        histogram("seconds") pool_wait_seconds() "graphsink_pool_wait_seconds";
        /// a transaction, while it waited for locks that others held
        histogram("seconds") lock_wait_seconds() "graphsink_lock_wait_seconds";
        /// time of the last commit
        gauge("seconds since 1970") last_commit_timestamp() "graphsink_last_commit_timestamp_seconds";
        /// sealed epochs: waiting for their lane, writing
        gauge("epochs") epochs_in_flight(state: "waiting, writing") "graphsink_epochs_in_flight" from 0;
        /// time that `submit` waited for admission
        histogram("seconds") admission_wait_seconds() "graphsink_admission_wait_seconds";
        /// rows accepted and not yet answered
        gauge("rows") rows_in_flight() "graphsink_rows_in_flight";
        /// bytes accepted and not yet answered
        gauge("bytes") bytes_in_flight() "graphsink_bytes_in_flight";
        /// maximum number of rows in flight
        gauge("rows") rows_in_flight_max() "graphsink_rows_in_flight_max";
        /// maximum number of bytes in flight
        gauge("bytes") bytes_in_flight_max() "graphsink_bytes_in_flight_max";
        /// failed attempts by reaction
        counter retries(sqlstate: "none, ..", reaction: "retry, split, reject") "graphsink_retries_total" from 0;
        /// whether the circuit breaker is open: the database cannot be used
        gauge("0 or 1") circuit_open() "graphsink_circuit_open" from 0;
        /// how often the circuit breaker opened
        counter circuit_openings(sqlstate: "none, ..") "graphsink_circuit_openings_total" from 0;
        /// rejected units that were kept as dead letters
        counter dead_letters() "graphsink_dead_letters_total" from 0;
        /// names of entities by whether they were known, with all stated facts
        counter known_names(result: "hit, miss") "graphsink_known_names_total";
        /// actors that died and were restarted
        counter actor_restarts(
            actor: "supervisor, entity_batcher, connection_batcher, mention_batcher, transaction_coordinator"
        ) "graphsink_actor_restarts_total" from 0;
        /// merges of entities
        counter merges(outcome: "merged, already_merged, rejected, unavailable") "graphsink_merges_total";
        /// a transaction of merges, from its connection to its commit
        histogram("seconds") merge_seconds() "graphsink_merge_seconds";
        /// connections of the pool
        gauge("connections") pool_connections(state: "open, idle, max") "graphsink_pool_connections";
    }

    #[cfg_attr(not(feature = "resolver"), allow(dead_code))]
    resolver {
        /// names by the tier that found them
        counter names(tier: "exact, alias, fuzzy, none") "graphsink_resolver_names_total";
        /// names by decision
        counter decisions(decision: "existing, new, ambiguous") "graphsink_resolver_decisions_total";
        /// names by whether the answer was cached
        counter cache(result: "hit, miss") "graphsink_resolver_cache_total";
        /// a batch's lookup in the database
        histogram("seconds") lookup_seconds() "graphsink_resolver_lookup_seconds";
    }
}
