//! The types of settings: how their values are written in a file, and shown.

use std::time::Duration;

use super::as_of::AsOf;
use crate::record::{Timestamp, truncate};

/// A value of a setting.
pub(super) trait Value: Sized {
    /// Its form in a file, the environment and the builder.
    type Written;

    /// The written form; `None` is the default.
    fn write(self) -> Option<Self::Written>;

    /// The value of a written form, possible or not: it is checked after that.
    fn read(written: Self::Written) -> Self;

    /// The value for reports, in the units of a file.
    fn shown(&self) -> String;
}

/// Values that are written as they are.
macro_rules! written_as_they_are {
    ($($type:ty),*) => {$(
        impl Value for $type {
            type Written = Self;

            fn write(self) -> Option<Self> {
                Some(self)
            }

            fn read(written: Self) -> Self {
                written
            }

            fn shown(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

written_as_they_are!(String, usize, bool);

/// Written in seconds.
impl Value for Duration {
    type Written = f64;

    fn write(self) -> Option<f64> {
        Some(self.as_secs_f64())
    }

    fn read(seconds: f64) -> Self {
        // Zero is as impossible as what is negative, no number, or too large for a duration.
        Self::try_from_secs_f64(seconds).unwrap_or(Self::ZERO)
    }

    fn shown(&self) -> String {
        self.as_secs_f64().to_string()
    }
}

/// Written as a time; the clock is not written.
impl Value for AsOf {
    type Written = Timestamp;

    fn write(self) -> Option<Timestamp> {
        match self {
            Self::Clock => None,
            Self::Fixed(time) => Some(time),
        }
    }

    fn read(time: Timestamp) -> Self {
        Self::Fixed(truncate(time))
    }

    fn shown(&self) -> String {
        match self {
            Self::Clock => "the clock".to_owned(),
            Self::Fixed(time) => time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
        }
    }
}
