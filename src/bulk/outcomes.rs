//! The outcome of each unit, kept on disk until it is read.

use std::sync::Arc;

use uuid::Uuid;

use super::ids::Ids;
use super::refusals::{Refusal, RefusalReader};
use super::rows::{Fields, Malformed, PutFields};
use super::spill::{SpillDirectory, SpillError, Spool, SpoolReader, SpoolWriter};
use crate::outcome::{Committed, CommittedRow, Disposition, Outcome, Rejection};
use crate::record::Table;
use crate::unit::{Labels, Row, Unit};

/// Logs the outcomes of units in the case of a commit, in the order of their numbers.
#[derive(Debug)]
pub(super) struct OutcomeLog {
    writer: SpoolWriter,
    record: Vec<u8>,
    ids: Ids,
}

impl OutcomeLog {
    pub(super) fn create(directory: &Arc<SpillDirectory>, ids: Ids) -> Result<Self, SpillError> {
        Ok(Self { writer: SpoolWriter::create(directory)?, record: Vec::new(), ids })
    }

    pub(super) fn push(&mut self, number: u64, unit: Unit<'_>) -> Result<(), SpillError> {
        self.record.clear();
        let record = &mut self.record;
        record.put_number(number);
        record.put_number(unit.nonce());
        for table in Table::ALL {
            let count = unit.names(table).len();
            record.put_number(count as u64);
            for row in 0..count {
                record.put_name(self.ids.row(unit, table, row).as_u128());
            }
        }
        for (label, row) in unit.temp_ids().into_iter().flat_map(|labels| labels.iter()) {
            record.put_text(label);
            record.put_byte(row.table as u8);
            record.put_number(row.index as u64);
        }
        self.writer.push(record)
    }

    pub(super) fn finish(self) -> Result<Spool, SpillError> {
        self.writer.finish()
    }
}

fn read(record: &[u8]) -> Result<(u64, Committed), Malformed> {
    let mut fields = Fields(record);
    let (number, nonce) = (fields.number()?, fields.number()?);
    let mut rows = || -> Result<Vec<CommittedRow>, Malformed> {
        let count = fields.number()?;
        let mut row = || Ok(CommittedRow { id: Uuid::from_u128(fields.name()?), disposition: Disposition::Inserted });
        (0..count).map(|_| row()).collect()
    };
    let (entities, connections, mentions) = (rows()?, rows()?, rows()?);
    let mut labels = Labels::default();
    while !fields.rest().is_empty() {
        let label = fields.text()?;
        let table = *Table::ALL.get(fields.byte()? as usize).ok_or(Malformed)?;
        labels.push(label, Row { table, index: fields.number()? as usize });
    }
    let temp_ids = (!labels.is_empty()).then(|| Arc::new(labels));
    Ok((number, Committed { entities, connections, mentions, temp_ids, nonce }))
}

/// Rejected units with their numbers, in ascending order: see
/// [`BulkReport::rejections`](crate::BulkReport::rejections). Read from a file, block by block.
///
/// ```no_run
/// # fn show(report: &graphsink::BulkReport) -> Result<(), graphsink::SpillError> {
/// for rejected in report.rejections()? {
///     let (number, why) = rejected?;
///     println!("unit {number}: {why}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BulkRejections(pub(super) Option<RefusalReader>);

impl Iterator for BulkRejections {
    type Item = Result<(u64, Rejection), SpillError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.0.as_mut()?.next();
        if !matches!(next, Ok(Some(_))) {
            self.0 = None;
        }
        next.map(|next| next.map(|(number, refusal)| (number, refusal.into_rejection()))).transpose()
    }
}

/// The outcome of each unit, in the order of submission: see [`BulkReport::outcomes`](crate::BulkReport::outcomes).
/// Read from files, block by block.
///
/// ```no_run
/// # fn show(report: &graphsink::BulkReport) -> Result<(), graphsink::SpillError> {
/// for told in report.outcomes()?.into_iter().flatten() {
///     let (number, outcome) = told?;
///     println!("unit {number} was {}", outcome.as_str());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BulkOutcomes {
    log: SpoolReader,
    record: Vec<u8>,
    refusals: RefusalReader,
    refused: Option<(u64, Refusal)>,
    is_over: bool,
}

impl BulkOutcomes {
    pub(super) fn new(log: SpoolReader, mut refusals: RefusalReader) -> Result<Self, SpillError> {
        let refused = refusals.next()?;
        Ok(Self { log, record: Vec::new(), refusals, refused, is_over: false })
    }

    /// Units that were rejected at once are not in the log; units that were rejected at the end are in both.
    fn advance(&mut self) -> Result<Option<(u64, Outcome)>, SpillError> {
        if self.record.is_empty() && !self.log.next(&mut self.record)? {
            self.record.clear();
        }
        let logged = if self.record.is_empty() { None } else { Some(Fields(&self.record).number()?) };
        match self.refused.take() {
            Some((number, refusal)) if logged.is_none_or(|logged| number <= logged) => {
                if logged == Some(number) {
                    self.record.clear();
                }
                self.refused = self.refusals.next()?;
                Ok(Some((number, Outcome::Rejected(refusal.into_rejection()))))
            }
            later => {
                self.refused = later;
                if logged.is_none() {
                    return Ok(None);
                }
                let (number, committed) = read(&self.record)?;
                self.record.clear();
                Ok(Some((number, Outcome::Committed(committed))))
            }
        }
    }
}

impl Iterator for BulkOutcomes {
    type Item = Result<(u64, Outcome), SpillError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.advance();
        self.is_over = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}
