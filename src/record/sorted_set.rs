//! A set kept as a sorted vector: the form in which arrays are stored.

use super::Merge;

/// A set as a sorted vector without duplicates. Text sorts by code point (`str`'s order), uuids by
/// their bytes; both agree with PostgreSQL's `collate "C"` and `uuid` order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SortedSet<T>(Vec<T>);

impl<T> Default for SortedSet<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> SortedSet<T> {
    /// The empty set.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> SortedSet<T> {
    /// The members in ascending order.
    #[must_use]
    pub(crate) fn as_slice(&self) -> &[T] {
        &self.0
    }

    /// Whether nothing is in it.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The members in ascending order.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.as_slice().iter()
    }

    /// Adds a member; says whether it was new.
    pub(crate) fn insert(&mut self, member: T) -> bool {
        match self.0.binary_search(&member) {
            Ok(_) => false,
            Err(place) => {
                self.0.insert(place, member);
                true
            }
        }
    }

    /// Takes a member out; says whether it was there.
    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, member: &Q) -> bool
    where
        T: std::borrow::Borrow<Q>,
    {
        match self.0.binary_search_by(|own| own.borrow().cmp(member)) {
            Ok(place) => {
                self.0.remove(place);
                true
            }
            Err(_) => false,
        }
    }

    /// Whether every member of `other` is in `self`.
    #[must_use]
    pub(crate) fn contains_all(&self, other: &Self) -> bool {
        other.0.iter().all(|member| self.0.binary_search(member).is_ok())
    }
}

impl SortedSet<std::sync::Arc<str>> {
    /// Adds a text, and makes it one that can be shared only if it is not there yet.
    pub(crate) fn insert_text(&mut self, member: impl AsRef<str> + Into<std::sync::Arc<str>>) {
        if let Err(place) = self.0.binary_search_by(|own| (**own).cmp(member.as_ref())) {
            self.0.insert(place, member.into());
        }
    }
}

impl<T: Ord> FromIterator<T> for SortedSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(members: I) -> Self {
        let mut members: Vec<T> = members.into_iter().collect();
        members.sort_unstable();
        members.dedup();
        Self(members)
    }
}

impl<'a, T: Ord> IntoIterator for &'a SortedSet<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Ord> IntoIterator for SortedSet<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Set union.
impl<T: Ord> Merge for SortedSet<T> {
    fn merge(&mut self, other: Self) {
        if self.0.is_empty() {
            self.0 = other.0;
            return;
        }
        if other.0.is_empty() {
            return;
        }
        let mut own = std::mem::take(&mut self.0).into_iter().peekable();
        let mut others = other.0.into_iter().peekable();
        while let (Some(left), Some(right)) = (own.peek(), others.peek()) {
            match left.cmp(right) {
                std::cmp::Ordering::Less => self.0.extend(own.next()),
                std::cmp::Ordering::Greater => self.0.extend(others.next()),
                std::cmp::Ordering::Equal => {
                    self.0.extend(own.next());
                    others.next();
                }
            }
        }
        self.0.extend(own);
        self.0.extend(others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_sorted_and_unique_whatever_the_order_of_arrival() {
        let mut set: SortedSet<&str> = ["b", "a", "b"].into_iter().collect();
        assert!(!set.insert("a"));
        assert!(set.insert("B"));
        assert_eq!(set.as_slice(), ["B", "a", "b"]);
        assert_eq!((&set).into_iter().collect::<Vec<_>>(), [&"B", &"a", &"b"]);
        assert!(set.remove("a") && !set.remove("a"));
        assert_eq!(set.as_slice().len(), 2);
    }

    #[test]
    fn merging_sets_is_their_union() {
        let mut left: SortedSet<u8> = [3, 1].into_iter().collect();
        let right: SortedSet<u8> = [2, 3].into_iter().collect();
        left.merge(right.clone());
        assert_eq!(left.as_slice(), [1, 2, 3]);
        assert!(left.contains_all(&right) && !right.contains_all(&left));
    }
}
