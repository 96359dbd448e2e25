//! The classes of errors, by SQLSTATE: each class has one reaction.

/// The class of an error, which decides the reaction to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ErrorClass {
    /// Same work again, in a new transaction.
    Transient,
    /// The statement took too long: again once, then in halves.
    TooLong,
    /// Same work again, on a new connection.
    Reconnect,
    /// The server lacks something: same work again, slowly.
    Resource,
    /// Some row of the transaction is refused: find its unit.
    Poison,
    /// The cause is not known: again, on a new connection, and then like [`Poison`](Self::Poison).
    Unknown,
    /// Nothing helps until the database's set-up is mended.
    Configuration,
    /// The engine did something that it must never do.
    Bug,
}

/// The class of a SQLSTATE, or of all that begin with the same characters; the longest match counts. A SQLSTATE without
/// a match is [`Unknown`](ErrorClass::Unknown).
///
/// Source: PostgreSQL's appendix "Error Codes", its chapter "Serialization Failure Handling", and
/// Npgsql's `PostgresException.IsTransient`. The differences to the latter:
///
/// - 40003 and 08007 are never simply retried: at a commit they are ambiguous.
/// - 53xxx and 58xxx stop the line, and are never charged to a unit.
/// - 23503 is tried three times before it counts as the unit's fault: the check does not wait for a parent that is
///   about to be committed.
/// - Missing privileges and tables stop the line until the deadlines of the units, in case a migration is under way. So
///   does 42501 from a policy of row-level security, although one unit causes it: such policies do not belong on these
///   tables.
#[rustfmt::skip]
const CLASSES: &[(&str, ErrorClass)] = &[
    ("07", ErrorClass::Bug),              // dynamic SQL error: wrong use of the protocol
    ("08", ErrorClass::Reconnect),        // connection exceptions; 08P01 is how poolers report all of theirs
    ("21000", ErrorClass::Bug),           // cardinality violation: a key twice in one statement
    ("22", ErrorClass::Poison),           // data exceptions
    ("23", ErrorClass::Poison),           // constraints
    ("25006", ErrorClass::Reconnect),     // read-only: a standby, or a primary that became one
    ("25P02", ErrorClass::Bug),           // statement in a failed transaction
    ("25P03", ErrorClass::Transient),     // idle in transaction for too long
    ("25P04", ErrorClass::Transient),     // transaction timeout
    ("26000", ErrorClass::Reconnect),     // unknown prepared statement: the session is not the one that it was
    ("27", ErrorClass::Poison),           // triggered data change
    ("28", ErrorClass::Configuration),    // wrong user or password
    ("2F", ErrorClass::Poison),           // error in an SQL function
    ("38", ErrorClass::Poison),           // error in a function, external
    ("39", ErrorClass::Poison),           // error in a function, its call
    ("3D", ErrorClass::Configuration),    // no such database
    ("3F", ErrorClass::Configuration),    // no such schema
    ("40001", ErrorClass::Transient),     // serialization failure
    ("40002", ErrorClass::Poison),        // integrity violation at the end of the transaction
    ("40003", ErrorClass::Transient),     // not known; at a commit the fence is asked first
    ("40P01", ErrorClass::Transient),     // deadlock
    ("42", ErrorClass::Configuration),    // no such table, column or privilege; wrong types
    ("428C9", ErrorClass::Poison),        // a generated column was written
    ("42P02", ErrorClass::Bug),           // no such parameter
    ("42P05", ErrorClass::Reconnect),     // a prepared statement of that name is there: another client's, before a pooler
    ("44", ErrorClass::Poison),           // check option of a view
    ("53", ErrorClass::Resource),         // disk full, out of memory, a limit of the configuration
    ("53300", ErrorClass::Reconnect),     // too many connections
    ("54", ErrorClass::Poison),           // program limits: a row too big for an index
    ("55000", ErrorClass::Resource),      // not in prerequisite state: updates published without a replica identity, ..
    ("55006", ErrorClass::Transient),     // object in use
    ("55P03", ErrorClass::Transient),     // lock timeout
    ("57014", ErrorClass::TooLong),       // cancelled: our own statement timeout, or pg_cancel_backend
    ("57P01", ErrorClass::Reconnect),     // shutdown by the administrator
    ("57P02", ErrorClass::Reconnect),     // shutdown by a crash
    ("57P03", ErrorClass::Reconnect),     // cannot connect now
    ("57P05", ErrorClass::Transient),     // idle session timeout
    ("58", ErrorClass::Resource),         // I/O and other system errors
    ("P0", ErrorClass::Poison),           // raised by a trigger
    ("XX001", ErrorClass::Configuration), // corrupt data
    ("XX002", ErrorClass::Configuration), // corrupt index
    // Unknown on purpose: 0A000 (a cached plan whose result type changed, or a feature that a trigger
    // lacks), XX000 (extensions raise it for passing trouble), and whatever comes in future.
];

pub(super) fn classify(code: &str) -> ErrorClass {
    let matching = CLASSES.iter().filter(|(prefix, _)| code.starts_with(prefix));
    matching.max_by_key(|(prefix, _)| prefix.len()).map_or(ErrorClass::Unknown, |(_, class)| *class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_the_sqlstates_of_its_kind() {
        for (codes, class) in [
            (&["40001", "40P01", "55P03"][..], ErrorClass::Transient),
            (&["XX000", "0A000", "ZZ999"], ErrorClass::Unknown),
            (&["57014"], ErrorClass::TooLong),
            (&["57P01", "57P03", "53300", "25006", "08006", "08P01", "26000", "42P05"], ErrorClass::Reconnect),
            (&["53100", "53200", "58030"], ErrorClass::Resource),
            (
                &["22001", "22021", "22P05", "23505", "23514", "23503", "54000", "P0001", "38000", "428C9"],
                ErrorClass::Poison,
            ),
            (&["28P01", "3D000", "3F000", "42P01", "42501", "42703", "XX001"], ErrorClass::Configuration),
            (&["21000", "25P02", "42P02"], ErrorClass::Bug),
        ] {
            for code in codes {
                assert_eq!(classify(code), class, "{code}");
            }
        }
    }

    #[test]
    fn the_table_of_classes_is_sorted_and_has_no_duplicates() {
        assert!(CLASSES.is_sorted_by(|left, right| left.0 < right.0));
    }
}
