//! Labels that the program gives to rows, to find them in the outcome.

use super::Row;
use crate::record::Table;

/// Labels with their rows; all texts are in one buffer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels {
    text: String,
    rows: Vec<Labelled>,
}

/// A row with a label: units wait in flight by the thousand, so it is small.
#[derive(Debug, Clone, Copy)]
struct Labelled {
    /// Where the label ends.
    end: usize,
    index: u32,
    table: Table,
}

impl Labels {
    pub(crate) fn push(&mut self, label: &str, row: Row) {
        self.text.push_str(label);
        self.rows.push(Labelled { end: self.text.len(), index: row.index as u32, table: row.table });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + self.rows.len() * size_of::<Labelled>()
    }

    /// The labels in the order in which they were added.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Row)> {
        self.rows.iter().scan(0, |start, Labelled { end, index, table }| {
            let label = &self.text[std::mem::replace(start, *end)..*end];
            Some((label, Row { table: *table, index: *index as usize }))
        })
    }
}
