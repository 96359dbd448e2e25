//! The origins of units, kept in a file until the rejected units are known: a bulk load reports them at its end.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::path::Path;

use graphsink::loader::Origin;

use crate::AnyError;

/// Records origins, in the order of the units' numbers. The file has no name: it is removed with the process.
#[derive(Debug)]
pub(crate) struct Origins(BufWriter<File>);

impl Origins {
    pub(crate) fn create(directory: &Path) -> Result<Self, AnyError> {
        let file = tempfile::tempfile_in(directory);
        let file = file.map_err(|error| format!("nothing can be written to {}: {error}", directory.display()))?;
        Ok(Self(BufWriter::new(file)))
    }

    pub(crate) fn push(&mut self, origin: &Origin) -> Result<(), AnyError> {
        serde_json::to_writer(&mut self.0, origin)?;
        Ok(self.0.write_all(b"\n")?)
    }

    /// Reopens the file at its beginning.
    pub(crate) fn reopen(&mut self) -> io::Result<KeptOrigins> {
        self.0.rewind()?;
        let file = self.0.get_ref().try_clone()?;
        Ok(KeptOrigins { lines: BufReader::new(file), next: 0, line: Vec::new() })
    }
}

/// Recorded origins.
#[derive(Debug)]
pub(crate) struct KeptOrigins {
    lines: BufReader<File>,
    /// The number of the unit whose origin comes next.
    next: u64,
    line: Vec<u8>,
}

impl KeptOrigins {
    /// The origin of a unit. Units must be requested in the order of their numbers.
    pub(crate) fn of(&mut self, number: u64) -> Result<Origin, AnyError> {
        while self.next <= number {
            self.line.clear();
            self.lines.read_until(b'\n', &mut self.line)?;
            self.next += 1;
        }
        Ok(serde_json::from_slice(&self.line)?)
    }
}
