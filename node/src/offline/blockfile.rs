//! Block files: `blk*.dat` of IoP Core, bootstrap files, and files written by `export`.
//!
//! Lives here: finding blocks in such a file (`LoadExternalBlockFile`) and writing them. Does not live here: what
//! is done with the blocks. An entry is the network's magic, a length (four bytes, little-endian), and the block.
//! Zeros between blocks are padding; anything else that is no block is skipped byte by byte to the next magic.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use bitcoin::Block;
use bitcoin::block::Header;
use bitcoin::consensus::encode::deserialize;
use iop_consensus::wire::read_block;

/// Bytes of magic and length.
pub(crate) const FRAME: usize = 8;
/// Minimum length of a block, bytes: a header.
const SHORTEST: usize = 80;
/// Greatest length of a block, bytes (`MAX_BLOCK_SERIALIZED_SIZE`).
pub(crate) const LONGEST: usize = 4_000_000;
/// Bytes per read.
const CHUNK: usize = 4 << 20;

/// A block and its position.
#[derive(Debug)]
pub(crate) struct Found {
    /// Offset of its magic, bytes from the file's start.
    pub(crate) offset: u64,
    /// The block.
    pub(crate) block: Block,
}

/// Finds the blocks of a file in order. Uses at most about 12 MB, whatever the file contains.
#[derive(Debug)]
pub(crate) struct Finder<R> {
    source: R,
    magic: [u8; 4],
    /// Bytes that were read but not passed yet.
    buffer: Vec<u8>,
    /// Position of the search in `buffer`.
    at: usize,
    /// Offset of `buffer` in the file.
    base: u64,
    ended: bool,
    /// Bytes that are neither blocks nor zeros.
    pub(crate) skipped: u64,
}

impl<R: Read> Finder<R> {
    pub(crate) fn new(source: R, magic: [u8; 4]) -> Self {
        Self { source, magic, buffer: Vec::new(), at: 0, base: 0, ended: false, skipped: 0 }
    }

    /// Offset of the search, bytes from the file's start.
    pub(crate) fn position(&self) -> u64 {
        self.base + self.at as u64
    }

    /// The next block; `None` at the file's end.
    ///
    /// # Errors
    /// Only when the file cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Found>> {
        loop {
            let Some(length) = self.next_frame()? else { return Ok(None) };
            self.fill(FRAME + length)?;
            let rest = &self.buffer[self.at + FRAME..];
            let whole = &rest[..length.min(rest.len())];
            let mut left = whole;
            if let Ok(block) = read_block(&mut left) {
                let offset = self.position();
                // As in the reference, a length beyond the block's end is ignored.
                self.at += FRAME + whole.len() - left.len();
                return Ok(Some(Found { offset, block }));
            }
            self.step_over();
        }
    }

    /// Advances to the next magic followed by a plausible length, and returns the length.
    fn next_frame(&mut self) -> io::Result<Option<usize>> {
        loop {
            self.fill(FRAME)?;
            let rest = &self.buffer[self.at..];
            if rest.len() < FRAME {
                self.skipped += rest.iter().filter(|&&byte| byte != 0).count() as u64;
                self.at = self.buffer.len();
                return Ok(None);
            }
            if rest[..4] == self.magic {
                let length = u32::from_le_bytes(rest[4..8].try_into().expect("four bytes")) as usize;
                if (SHORTEST..=LONGEST).contains(&length) {
                    return Ok(Some(length));
                }
            }
            self.step_over();
            self.seek_first_byte();
        }
    }

    /// Skips a byte that does not start a block.
    fn step_over(&mut self) {
        self.skipped += u64::from(self.buffer[self.at] != 0);
        self.at += 1;
    }

    /// Advances to the next byte in the buffer that could start a magic, or to the buffer's end.
    fn seek_first_byte(&mut self) {
        let rest = &self.buffer[self.at..];
        let ahead = rest.iter().position(|&byte| byte == self.magic[0]).unwrap_or(rest.len());
        self.skipped += rest[..ahead].iter().filter(|&&byte| byte != 0).count() as u64;
        self.at += ahead;
    }

    /// Reads until `count` bytes are available, if the file has as many.
    fn fill(&mut self, count: usize) -> io::Result<()> {
        while !self.ended && self.buffer.len() - self.at < count {
            self.buffer.drain(..self.at);
            self.base += self.at as u64;
            self.at = 0;
            let read = (&mut self.source).take(CHUNK as u64).read_to_end(&mut self.buffer)?;
            self.ended = read == 0;
        }
        Ok(())
    }
}

impl<R: Read + Seek> Finder<R> {
    /// The next block's header, without reading the block: the length before a `sound` header is trusted. `None` at
    /// the file's end. Blocks that a wrong length skips are not found.
    ///
    /// # Errors
    /// Only when the file cannot be read.
    pub(crate) fn next_header(&mut self, sound: impl Fn(&Header) -> bool) -> io::Result<Option<Header>> {
        loop {
            let Some(length) = self.next_frame()? else { return Ok(None) };
            self.fill(FRAME + SHORTEST)?;
            let bytes = self.buffer.get(self.at + FRAME..self.at + FRAME + SHORTEST);
            let header = bytes.and_then(|bytes| deserialize::<Header>(bytes).ok());
            if let Some(header) = header.filter(&sound) {
                self.pass(FRAME + length)?;
                return Ok(Some(header));
            }
            self.step_over();
        }
    }

    /// Advances by this many bytes, without reading those that are not in the buffer.
    fn pass(&mut self, count: usize) -> io::Result<()> {
        let ahead = self.buffer.len() - self.at;
        if count <= ahead {
            self.at += count;
            return Ok(());
        }
        self.source.seek(SeekFrom::Current((count - ahead) as i64))?;
        self.base = self.position() + count as u64;
        self.buffer.clear();
        self.at = 0;
        Ok(())
    }
}

/// Reads the block whose magic is at `offset`, where [`Finder`] found it before. Does not move the file's read
/// position.
///
/// # Errors
/// When it can no longer be read.
pub(crate) fn read_at(file: &File, offset: u64) -> io::Result<Block> {
    let mut frame = [0; FRAME];
    file.read_exact_at(&mut frame, offset)?;
    let length = u32::from_le_bytes(frame[4..].try_into().expect("four bytes")) as usize;
    let changed = || io::Error::new(io::ErrorKind::InvalidData, "the file has changed");
    if length > LONGEST {
        return Err(changed());
    }
    let left = file.metadata()?.len().saturating_sub(offset + FRAME as u64);
    let mut bytes = vec![0; usize::try_from(left).unwrap_or(length).min(length)];
    file.read_exact_at(&mut bytes, offset + FRAME as u64)?;
    read_block(&mut bytes.as_slice()).map_err(|_| changed())
}

/// The magic and length before a block of `length` bytes.
pub(crate) fn frame(magic: [u8; 4], length: usize) -> [u8; FRAME] {
    let length = u32::try_from(length).expect("a block has a few megabytes");
    let mut frame = [0; FRAME];
    frame[..4].copy_from_slice(&magic);
    frame[4..].copy_from_slice(&length.to_le_bytes());
    frame
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bitcoin::consensus::encode::serialize;
    use iop_consensus::params::Params;

    const MAGIC: [u8; 4] = [0x35, 0xb2, 0xcc, 0x9e];

    fn framed(block: &Block) -> Vec<u8> {
        let bytes = serialize(block);
        [&frame(MAGIC, bytes.len())[..], &bytes].concat()
    }

    fn find(bytes: &[u8]) -> (Vec<(u64, Block)>, u64) {
        let mut finder = Finder::new(bytes, MAGIC);
        let mut found = Vec::new();
        while let Some(Found { offset, block }) = finder.next().unwrap() {
            found.push((offset, block));
        }
        assert_eq!(finder.position(), bytes.len() as u64);
        (found, finder.skipped)
    }

    #[test]
    fn blocks_are_found_between_padding_and_garbage_and_a_cut_one_is_not() {
        let blocks = [Params::regtest(), Params::main(), Params::devnet()].map(|p| p.genesis.block());
        let [first, second, third] = blocks.each_ref().map(framed);
        let cut = &third[..third.len() - 1];
        // A magic with an impossible length, one with a length and garbage, and a lone first byte.
        let garbage = [&MAGIC[..], &[1, 0, 0, 0], &MAGIC, &[90, 0, 0, 0, 7, 0x35]].concat();
        let file = [&[0; 9][..], &first, &[0; 1000], &garbage, &second, &third, cut].concat();
        let (found, skipped) = find(&file);
        let at = [9, 9 + first.len() + 1000 + garbage.len()];
        let offsets: Vec<u64> = found.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, [at[0] as u64, at[1] as u64, (at[1] + second.len()) as u64]);
        assert!(found.into_iter().map(|(_, block)| block).eq(blocks));
        let not_zero = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte != 0).count() as u64;
        assert_eq!(skipped, not_zero(&garbage) + not_zero(cut));
    }

    #[test]
    fn a_block_whose_length_says_too_much_or_that_hides_in_another_ones_length_is_found() {
        let block = Params::regtest().genesis.block();
        let mut long = framed(&block);
        long[4..8].copy_from_slice(&3_000_000u32.to_le_bytes());
        let two = [&long[..], &framed(&block)].concat();
        assert_eq!(find(&two).0.len(), 2);
        // The first length ends within its own block: that block is skipped, and the search continues after its
        // magic.
        let mut short = framed(&block);
        short[4..8].copy_from_slice(&100u32.to_le_bytes());
        assert_eq!(find(&[&short[..], &framed(&block)].concat()).0.len(), 1);
    }

    #[test]
    fn headers_are_found_as_the_blocks_are_between_padding_and_garbage_and_over_chunks() {
        let blocks = [Params::regtest(), Params::main(), Params::devnet()].map(|p| p.genesis.block());
        let mut large = Params::regtest().genesis.block();
        large.txdata[0].output[0].script_pubkey = vec![0x35; 3_000_000].into();
        let mut unsound = framed(&blocks[0]);
        unsound[FRAME] ^= 1;
        let [first, second, third] = blocks.each_ref().map(framed);
        // The length before an unsound header is not trusted: the block hidden within it is found.
        let hides = [&unsound[..FRAME + SHORTEST], &second[..]].concat();
        let file =
            [&[0; 9][..], &first, &[0; 1000], &hides, &framed(&large), &framed(&large), &third].concat();
        let mut finder = Finder::new(io::Cursor::new(&file), MAGIC);
        let is_sound =
            |header: &Header| header.version.to_consensus() != blocks[0].header.version.to_consensus() ^ 1;
        let mut found = Vec::new();
        while let Some(header) = finder.next_header(is_sound).unwrap() {
            found.push(header);
        }
        let expected = [&blocks[0], &blocks[1], &large, &large, &blocks[2]];
        assert_eq!(found, expected.map(|block| block.header));
        assert_eq!(finder.position(), file.len() as u64);
        // A file that ends within a header.
        let mut finder = Finder::new(io::Cursor::new(&first[..50]), MAGIC);
        assert!(finder.next_header(|_| true).unwrap().is_none());
    }

    #[test]
    fn blocks_that_span_the_chunks_are_found() {
        let mut block = Params::regtest().genesis.block();
        block.txdata[0].output[0].script_pubkey = vec![0x35; 700_000].into();
        let one = framed(&block);
        let file: Vec<u8> = std::iter::repeat_n(one, 20).flatten().collect();
        assert_eq!(find(&file).0.len(), 20);
    }
}
