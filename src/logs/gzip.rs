//! Compressed files that can be read from any place: BGZF, gzip in blocks.
//!
//! ```text
//!   member: 18 bytes of header, among them its length | deflate of at most 65,280 bytes | CRC-32 | length
//!   ... member, and at the end one that is empty
//! ```
//! Any tool that knows gzip reads it as one file (zcat, zless, zgrep), for members one after the other are
//! one stream to them. And because each says how long it is, a block is found without decompressing
//! those before it. The format is that of the SAM specification, chapter 4.1.
//!
//! Invariants: memory is bounded by two blocks; nothing is held open between two reads.
//!
//! Failure paths: a file of another making, or one that is damaged, is an error that says so.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};

/// The most that a block holds; compressed or not, its member fits into 64 KiB then.
pub(super) const BLOCK: usize = 0xff00;

/// What a member begins with: gzip, deflate, with an extra field of two bytes named `BC`.
const BEGINNING: [u8; 16] = *b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0";

/// With the length of the member.
const HEAD: usize = 18;

/// CRC and length of the content.
const TAIL: usize = 8;

/// The member that tells the end.
const LAST: [u8; 28] = *b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0\x1b\0\x03\0\0\0\0\0\0\0\0\0";

/// How hard it is tried: the quickest. What is written while others wait is not compressed at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effort {
    /// Two hundred megabytes a second, to a third of the size.
    Some,
    /// As fast as the memory.
    None,
}

impl Effort {
    fn level(self) -> Compression {
        match self {
            Self::Some => Compression::fast(),
            Self::None => Compression::none(),
        }
    }
}

/// Compresses what is written to it.
pub(super) struct Packer<W> {
    out: W,
    block: Vec<u8>,
    effort: Effort,
    deflate: Compress,
    member: Vec<u8>,
}

impl<W: Write> Packer<W> {
    pub(super) fn new(out: W) -> Self {
        let effort = Effort::Some;
        let deflate = Compress::new(effort.level(), false);
        Self { out, block: Vec::with_capacity(BLOCK), effort, deflate, member: Vec::new() }
    }

    /// How hard it is tried from now on.
    pub(super) fn set_effort(&mut self, effort: Effort) -> io::Result<()> {
        if self.effort != effort {
            self.end_block()?;
            self.effort = effort;
            self.deflate = Compress::new(effort.level(), false);
        }
        Ok(())
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK {
                self.end_block()?;
            }
        }
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.member.clear();
        self.member.extend_from_slice(&BEGINNING);
        self.member.resize(HEAD, 0);
        self.member.reserve(BLOCK + 1024);
        self.deflate.reset();
        let status =
            self.deflate.compress_vec(&self.block, &mut self.member, FlushCompress::Finish)?;
        if status != Status::StreamEnd {
            return Err(io::Error::other("a block does not fit"));
        }
        let mut crc = Crc::new();
        crc.update(&self.block);
        self.member.extend_from_slice(&crc.sum().to_le_bytes());
        let length = u32::try_from(self.block.len()).map_err(io::Error::other)?;
        self.member.extend_from_slice(&length.to_le_bytes());
        let size = u16::try_from(self.member.len() - 1).map_err(io::Error::other)?;
        self.member[HEAD - 2..HEAD].copy_from_slice(&size.to_le_bytes());
        self.block.clear();
        self.out.write_all(&self.member)
    }

    /// Writes what is left, and the end.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.end_block()?;
        self.out.write_all(&LAST)?;
        Ok(self.out)
    }
}

/// Where a block lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    /// In the content.
    begins: u64,
    length: u32,
    /// In the file.
    at: u64,
    size: u32,
}

/// Where all blocks of a file lie.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Table {
    places: Vec<Place>,
    /// The length of the content.
    pub(super) length: u64,
}

impl Table {
    /// Walks through a file whose members begin at `from`.
    pub(super) fn read(file: &File, from: u64) -> io::Result<Self> {
        let end = file.metadata()?.len();
        let mut table = Self::default();
        let mut at = from;
        while at < end {
            let mut head = [0; HEAD];
            file.read_exact_at(&mut head, at).map_err(cut_short)?;
            if head[..16] != BEGINNING {
                return Err(damaged("it was not compressed by stigmer; zcat may read it"));
            }
            let size = u32::from(u16::from_le_bytes([head[16], head[17]])) + 1;
            let mut length = [0; 4];
            file.read_exact_at(&mut length, at + u64::from(size) - 4).map_err(cut_short)?;
            let length = u32::from_le_bytes(length);
            if length as usize > BLOCK {
                return Err(damaged("a block says that it is too long"));
            }
            if length > 0 {
                table.places.push(Place { begins: table.length, length, at, size });
            }
            table.length += u64::from(length);
            at += u64::from(size);
        }
        Ok(table)
    }

    /// Reads content from `offset` on: what the block there has of it; 0 at the end.
    pub(super) fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let behind = self.places.partition_point(|place| place.begins <= offset);
        let Some(place) = behind.checked_sub(1).and_then(|index| self.places.get(index)) else {
            return Ok(0);
        };
        let block = place.unpack(file)?;
        let inside = usize::try_from(offset - place.begins).unwrap_or(usize::MAX);
        let rest = block.get(inside..).unwrap_or_default();
        let taken = rest.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&rest[..taken]);
        Ok(taken)
    }
}

impl Place {
    fn unpack(&self, file: &File) -> io::Result<Vec<u8>> {
        let mut member = vec![0; self.size as usize];
        file.read_exact_at(&mut member, self.at).map_err(cut_short)?;
        let (Some(deflated), Some(crc)) = (
            member.get(HEAD..member.len() - TAIL),
            member.last_chunk::<TAIL>().and_then(|tail| tail.first_chunk::<4>()),
        ) else {
            return Err(damaged("a block is too short"));
        };
        let mut block = Vec::with_capacity(self.length as usize);
        let status = Decompress::new(false)
            .decompress_vec(deflated, &mut block, FlushDecompress::Finish)
            .map_err(|error| damaged(&error.to_string()))?;
        let mut found = Crc::new();
        found.update(&block);
        let is_whole = status == Status::StreamEnd && block.len() == self.length as usize;
        if !is_whole || found.sum() != u32::from_le_bytes(*crc) {
            return Err(damaged("the checksum of a block is wrong"));
        }
        Ok(block)
    }
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is damaged: {why}"))
}

fn cut_short(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof { damaged("it is cut short") } else { error }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn packed(parts: &[(Effort, &[u8])]) -> File {
        let mut packer = Packer::new(tempfile::tempfile().unwrap());
        for (effort, bytes) in parts {
            packer.set_effort(*effort).unwrap();
            packer.write(bytes).unwrap();
        }
        packer.finish().unwrap()
    }

    fn unpacked(file: &File, piece: usize) -> Vec<u8> {
        let table = Table::read(file, 0).unwrap();
        let (mut all, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            match table.read_at(file, &mut buffer, all.len() as u64).unwrap() {
                0 => break,
                read => all.extend_from_slice(&buffer[..read]),
            }
        }
        assert_eq!(table.length, all.len() as u64);
        all
    }

    #[test]
    fn what_gzip_reads_is_what_was_written() {
        let noise: Vec<u8> =
            (0..300_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let text = b"a line of a log\n".repeat(20_000);
        let mut file =
            packed(&[(Effort::Some, &text), (Effort::None, &noise), (Effort::Some, b"end")]);
        let all = [&text[..], &noise, b"end"].concat();
        assert_eq!(unpacked(&file, 100_000), all);
        file.rewind().unwrap();
        let gzip = Command::new("gzip")
            .arg("-dc")
            .stdin(Stdio::from(file))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(gzip.status.success());
        assert!(gzip.stdout == all, "gzip reads something else");
    }

    #[test]
    fn damage_and_foreign_files_are_errors() {
        let file = packed(&[(Effort::Some, &b"line\n".repeat(30_000))]);
        let length = file.metadata().unwrap().len();
        file.set_len(length - 40).unwrap();
        let error = Table::read(&file, 0).unwrap_err().to_string();
        assert_eq!(error, "it is damaged: it is cut short");
        let file = packed(&[(Effort::None, &b"line\n".repeat(100))]);
        file.write_all_at(b"X", 40).unwrap();
        let table = Table::read(&file, 0).unwrap();
        let error = table.read_at(&file, &mut [0; 10], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        let foreign = tempfile::tempfile().unwrap();
        foreign.write_all_at(b"\x1f\x8b\x08\0\0\0\0\0\0\x03 and so on and so forth", 0).unwrap();
        let error = Table::read(&foreign, 0).unwrap_err().to_string();
        assert!(error.contains("not compressed by stigmer"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_survive_the_trip(
            parts in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(any::<u8>(), 0..70_000)), 0..4),
            piece in 1_usize..70_000,
        ) {
            let parts: Vec<(Effort, &[u8])> = parts
                .iter()
                .map(|(hard, bytes)| (if *hard { Effort::Some } else { Effort::None }, &bytes[..]))
                .collect();
            let all: Vec<u8> = parts.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
            let piece = piece.max(1000);
            prop_assert!(unpacked(&packed(&parts), piece) == all);
        }
    }
}
