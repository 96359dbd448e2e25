//! A file of checksummed blocks, written once from its beginning to its end.
//!
//! Each block is preceded by its length, its number, and a CRC-32 of both and of its bytes. The number of blocks is
//! kept in memory, so that a truncated file is also detected, and a reader may follow the writer: it waits for blocks
//! that are not written yet. To the layers above, the file is a stream of bytes with arbitrary block boundaries.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::directory::{SpillDirectory, create_private_file};
use super::error::SpillError;

/// Bytes of a block's header: length, number, checksum.
const HEAD: usize = 12;

/// A file. It is removed when its writer and its last reader are dropped.
#[derive(Debug)]
pub(super) struct SpillFile {
    path: PathBuf,
    growth: Mutex<Growth>,
    has_grown: Condvar,
    /// The directory exists as long as its files.
    directory: Arc<SpillDirectory>,
}

/// How much of a file is written.
#[derive(Debug)]
struct Growth {
    blocks: u32,
    state: GrowthState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GrowthState {
    Growing,
    Whole,
    /// The writer was dropped before the end.
    Abandoned,
}

impl SpillFile {
    fn growth(&self) -> MutexGuard<'_, Growth> {
        self.growth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grow(&self, change: impl FnOnce(&mut Growth)) {
        change(&mut self.growth());
        self.has_grown.notify_all();
    }

    /// Whether the file has a block with this number. Waits until that is known.
    fn has_block(&self, number: u32) -> Result<bool, SpillError> {
        let is_open = |growth: &mut Growth| growth.state == GrowthState::Growing && growth.blocks <= number;
        let growth = self.has_grown.wait_while(self.growth(), is_open).unwrap_or_else(PoisonError::into_inner);
        match growth.state {
            GrowthState::Abandoned => Err(SpillError::Ended),
            GrowthState::Growing | GrowthState::Whole => Ok(number < growth.blocks),
        }
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        // A file that cannot be removed now is removed with the directory.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A file being written.
#[derive(Debug)]
pub(super) struct BlockWriter {
    file: File,
    written: Arc<SpillFile>,
    /// Number of blocks written.
    blocks: u32,
    /// The block being filled, after space for its header.
    block: Vec<u8>,
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        self.written.grow(|growth| {
            if growth.state == GrowthState::Growing {
                growth.state = GrowthState::Abandoned;
            }
        });
    }
}

impl BlockWriter {
    pub(super) fn create(directory: &Arc<SpillDirectory>) -> Result<Self, SpillError> {
        let path = directory.next_path();
        let file = create_private_file(&path).map_err(SpillError::write(&path))?;
        let mut block = Vec::with_capacity(HEAD + directory.block_bytes());
        block.resize(HEAD, 0);
        let written = SpillFile {
            path,
            growth: Mutex::new(Growth { blocks: 0, state: GrowthState::Growing }),
            has_grown: Condvar::new(),
            directory: Arc::clone(directory),
        };
        Ok(Self { file, written: Arc::new(written), blocks: 0, block })
    }

    /// The file, for readers that follow.
    pub(super) fn file(&self) -> Arc<SpillFile> {
        Arc::clone(&self.written)
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), SpillError> {
        while !bytes.is_empty() {
            let room = HEAD + self.written.directory.block_bytes() - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if now.len() == room {
                self.write_block()?;
            }
        }
        Ok(())
    }

    /// Writes a number in as few bytes as possible.
    pub(super) fn write_varint(&mut self, mut number: u64) -> Result<(), SpillError> {
        let mut bytes = [0; 10];
        let mut length = 0;
        loop {
            let last = number < 0x80;
            bytes[length] = number as u8 & 0x7f | if last { 0 } else { 0x80 };
            length += 1;
            if last {
                return self.write(&bytes[..length]);
            }
            number >>= 7;
        }
    }

    fn write_block(&mut self) -> Result<(), SpillError> {
        self.written.directory.expect_open()?;
        let (head, bytes) = self.block.split_at_mut(HEAD);
        head[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        head[4..8].copy_from_slice(&self.blocks.to_le_bytes());
        let sum = checksum(&head[..8], bytes);
        head[8..].copy_from_slice(&sum.to_le_bytes());
        self.file.write_all(&self.block).map_err(SpillError::write(&self.written.path))?;
        self.written.directory.wrote(self.block.len());
        self.blocks += 1;
        self.written.grow(|growth| growth.blocks = self.blocks);
        self.block.truncate(HEAD);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: File) {
        self.file = file;
    }

    /// Writes the last block. The file is not synced: no other process ever reads it.
    pub(super) fn finish(mut self) -> Result<Arc<SpillFile>, SpillError> {
        if self.block.len() > HEAD {
            self.write_block()?;
        }
        self.written.grow(|growth| growth.state = GrowthState::Whole);
        Ok(self.file())
    }
}

fn checksum(head: &[u8], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(bytes);
    hasher.finalize()
}

/// Reads a file from its beginning, block by block.
#[derive(Debug)]
pub(super) struct BlockReader {
    file: File,
    /// Released when this is dropped.
    spilled: Arc<SpillFile>,
    block: Vec<u8>,
    /// Number of bytes of the block already read.
    read: usize,
    next_block: u32,
}

impl BlockReader {
    pub(super) fn open(spilled: Arc<SpillFile>) -> Result<Self, SpillError> {
        let file = File::open(&spilled.path).map_err(SpillError::read(&spilled.path))?;
        Ok(Self { file, spilled, block: Vec::new(), read: 0, next_block: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.spilled.path
    }

    /// Whether everything was read.
    fn is_at_end(&self) -> Result<bool, SpillError> {
        Ok(self.read == self.block.len() && !self.spilled.has_block(self.next_block)?)
    }

    /// Appends `length` bytes; fails if there are fewer.
    pub(super) fn read_into(&mut self, mut length: usize, into: &mut Vec<u8>) -> Result<(), SpillError> {
        while length > 0 {
            if self.read == self.block.len() {
                self.read_block()?;
            }
            let now = length.min(self.block.len() - self.read);
            into.extend_from_slice(&self.block[self.read..self.read + now]);
            self.read += now;
            length -= now;
        }
        Ok(())
    }

    /// The next number, or `None` at the end of the file.
    pub(super) fn read_varint(&mut self) -> Result<Option<u64>, SpillError> {
        if self.is_at_end()? {
            return Ok(None);
        }
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            if self.read == self.block.len() {
                self.read_block()?;
            }
            let byte = self.block[self.read];
            self.read += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(Some(number));
            }
        }
        Err(self.corrupt())
    }

    fn read_block(&mut self) -> Result<(), SpillError> {
        self.spilled.directory.expect_open()?;
        if !self.spilled.has_block(self.next_block)? {
            return Err(self.corrupt());
        }
        let mut head = [0; HEAD];
        self.read_exact(&mut head)?;
        let field = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (length, number, sum) = (field(0) as usize, field(4), field(8));
        if number != self.next_block || length == 0 || length > self.spilled.directory.block_bytes() {
            return Err(self.corrupt());
        }
        let mut block = std::mem::take(&mut self.block);
        block.resize(length, 0);
        self.read_exact(&mut block)?;
        if checksum(&head[..8], &block) != sum {
            return Err(self.corrupt());
        }
        self.block = block;
        self.read = 0;
        self.next_block += 1;
        Ok(())
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), SpillError> {
        self.file.read_exact(buffer).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.corrupt(),
            _ => SpillError::read(&self.spilled.path)(error),
        })
    }

    fn corrupt(&self) -> SpillError {
        SpillError::corrupt(&self.spilled.path)
    }
}
