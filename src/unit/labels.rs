//! Labels that the program gives to rows, to find them in the outcome.

use super::Row;

/// Labels with their rows; all texts are in one buffer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels {
    text: String,
    /// Where each label ends, and its row.
    rows: Vec<(usize, Row)>,
}

impl Labels {
    pub(crate) fn push(&mut self, label: &str, row: Row) {
        self.text.push_str(label);
        self.rows.push((self.text.len(), row));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + self.rows.len() * size_of::<(usize, Row)>()
    }

    /// The labels in the order in which they were added.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Row)> {
        self.rows.iter().scan(0, |start, (end, row)| {
            let label = &self.text[std::mem::replace(start, *end)..*end];
            Some((label, *row))
        })
    }
}
