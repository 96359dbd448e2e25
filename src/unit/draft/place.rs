//! Observed places of restaurants.

use serde_json::Value;

use crate::record::Timestamp;

/// One observation of a restaurant's place. The newest observation wins as a whole.
///
/// ```
/// use graphsink::{PlaceObservation, UnitOfWork};
///
/// let place = PlaceObservation::new("2024-01-11T00:00:00Z".parse()?)
///     .location(30.270_12, -97.731_27)
///     .address("900 E 11th St, Austin")
///     .google_place_id("ChIJ")
///     .metadata(serde_json::json!({"price_level": 2}));
/// UnitOfWork::new().restaurant("franklin bbq").place(place);
/// # Ok::<(), chrono::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PlaceObservation {
    /// Degrees, -90 to 90; only together with a longitude. Stored with eight decimals.
    pub latitude: Option<f64>,
    /// Degrees, -180 to 180; only together with a latitude. Stored with eight decimals.
    pub longitude: Option<f64>,
    /// Postal address, at most 500 characters.
    pub address: Option<String>,
    /// Google's identifier, at most 255 characters, unique among restaurants.
    pub google_place_id: Option<String>,
    /// Any further facts: a JSON object, nested at most 64 deep.
    pub metadata: Option<Value>,
    /// When this was observed.
    pub observed_at: Timestamp,
}

impl PlaceObservation {
    /// An observation without data.
    ///
    /// ```
    /// use graphsink::PlaceObservation;
    ///
    /// let place = PlaceObservation::new(chrono::Utc::now());
    /// assert!(place.address.is_none() && place.google_place_id.is_none());
    /// ```
    #[must_use]
    pub const fn new(observed_at: Timestamp) -> Self {
        Self { latitude: None, longitude: None, address: None, google_place_id: None, metadata: None, observed_at }
    }

    /// Sets latitude and longitude in degrees.
    ///
    /// ```
    /// use graphsink::PlaceObservation;
    ///
    /// let place = PlaceObservation::new(chrono::Utc::now()).location(30.2701, -97.7313);
    /// assert_eq!((place.latitude, place.longitude), (Some(30.2701), Some(-97.7313)));
    /// ```
    #[must_use]
    pub const fn location(mut self, latitude: f64, longitude: f64) -> Self {
        self.latitude = Some(latitude);
        self.longitude = Some(longitude);
        self
    }

    /// Sets the postal address.
    ///
    /// ```
    /// use graphsink::PlaceObservation;
    ///
    /// let place = PlaceObservation::new(chrono::Utc::now()).address("900 E 11th St");
    /// assert_eq!(place.address.as_deref(), Some("900 E 11th St"));
    /// ```
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Sets Google's identifier.
    ///
    /// ```
    /// use graphsink::PlaceObservation;
    ///
    /// let place = PlaceObservation::new(chrono::Utc::now()).google_place_id("ChIJ1");
    /// assert_eq!(place.google_place_id.as_deref(), Some("ChIJ1"));
    /// ```
    #[must_use]
    pub fn google_place_id(mut self, id: impl Into<String>) -> Self {
        self.google_place_id = Some(id.into());
        self
    }

    /// Sets the metadata, a JSON object.
    ///
    /// ```
    /// use graphsink::PlaceObservation;
    ///
    /// let place = PlaceObservation::new(chrono::Utc::now())
    ///     .metadata(serde_json::json!({ "price_level": 2 }));
    /// assert_eq!(place.metadata.unwrap()["price_level"], 2);
    /// ```
    #[must_use]
    pub fn metadata(mut self, metadata: Value) -> Self {
        self.metadata = Some(metadata);
        self
    }
}
