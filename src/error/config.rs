//! The error of settings and connection strings.

/// A setting that cannot work.
///
/// ```
/// let error = graphsink::Config::builder("postgresql://localhost/evidence").in_flight_commits(65).build().unwrap_err();
/// assert_eq!(error.to_string(), "setting in_flight_commits: must be at most 64");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting {setting}: {reason}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The setting's name.
    pub setting: &'static str,
    /// The fault, and the values that would be right.
    pub reason: String,
}

impl ConfigError {
    pub(crate) fn new(setting: &'static str, reason: impl Into<String>) -> Self {
        Self { setting, reason: reason.into() }
    }
}
