//! Records of a fixed size in a file, by number, in memory that does not grow: what is too much to hold is paged out.
//!
//! The file has no name by the time anything is in it, so nothing is left behind however the process ends. A record that
//! was never written is all zeroes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PAGE: usize = 4_096;
const NOTHING: u64 = u64::MAX;

/// Records of `N` bytes each; `N` divides 4,096.
#[derive(Debug)]
pub(super) struct Pages<const N: usize> {
    file: File,
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    page: u64,
    changed: bool,
    bytes: Box<[u8; PAGE]>,
}

impl<const N: usize> Pages<N> {
    const PER_PAGE: u64 = (PAGE / N) as u64;

    /// Holds so many pages in memory.
    pub(super) fn new(folder: &Path, held: usize) -> io::Result<Self> {
        const { assert!(PAGE.is_multiple_of(N)) };
        let path = folder.join(format!("audit-{:016x}.tmp", rand::random::<u64>()));
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        fs::remove_file(&path)?;
        let nothing = || Held {
            page: NOTHING,
            changed: false,
            bytes: Box::new([0; PAGE]),
        };
        Ok(Self {
            file,
            held: std::iter::repeat_with(nothing).take(held.max(1)).collect(),
        })
    }

    /// To be read.
    pub(super) fn get(&mut self, record: u64) -> io::Result<[u8; N]> {
        let (held, at) = self.find(record)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&held.bytes[at..at + N]);
        Ok(bytes)
    }

    /// To be written.
    pub(super) fn set(&mut self, record: u64, bytes: [u8; N]) -> io::Result<()> {
        let (held, at) = self.find(record)?;
        held.bytes[at..at + N].copy_from_slice(&bytes);
        held.changed = true;
        Ok(())
    }

    fn find(&mut self, record: u64) -> io::Result<(&mut Held, usize)> {
        let page = record / Self::PER_PAGE;
        #[expect(clippy::cast_possible_truncation, reason = "smaller than a page")]
        let at = (record % Self::PER_PAGE) as usize * N;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "smaller than the number of pages held"
        )]
        let place = (page % self.held.len() as u64) as usize;
        let held = &mut self.held[place];
        if held.page != page {
            if held.changed {
                self.file
                    .write_all_at(&held.bytes[..], held.page * PAGE as u64)?;
                held.changed = false;
            }
            // in case the reading fails half-way
            held.page = NOTHING;
            read(&self.file, &mut held.bytes[..], page * PAGE as u64)?;
            held.page = page;
        }
        Ok((held, at))
    }
}

/// Beyond the end there are zeroes.
fn read(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, at) {
            Ok(0) => break,
            Ok(read) => {
                bytes = &mut bytes[read..];
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.fill(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::run::tests::Root;

    #[test]
    fn records_outlive_being_paged_out_in_any_order() {
        let root = Root::new();
        fs::create_dir_all(&root.0).unwrap();
        // four pages of 256 records each in memory, and thirty in use
        let mut pages: Pages<16> = Pages::new(&root.0, 4).unwrap();
        let mut right: HashMap<u64, [u8; 16]> = HashMap::new();
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..20_000 {
            let record = random.random_range(0..30 * 256);
            if random.random() {
                let bytes = random.random();
                pages.set(record, bytes).unwrap();
                right.insert(record, bytes);
            } else {
                let expected = right.get(&record).copied().unwrap_or_default();
                assert_eq!(pages.get(record).unwrap(), expected, "{record}");
            }
        }
    }

    #[test]
    fn records_at_the_edges_of_pages_are_their_own() {
        let root = Root::new();
        fs::create_dir_all(&root.0).unwrap();
        let mut pages: Pages<4> = Pages::new(&root.0, 1).unwrap();
        let records = [0, 1_023, 1_024, 2_047, 2_048, 9_999_999_999];
        for (value, record) in (1..).zip(records) {
            pages.set(record, [value; 4]).unwrap();
        }
        for (value, record) in (1..).zip(records) {
            assert_eq!(pages.get(record).unwrap(), [value; 4], "{record}");
        }
        assert_eq!(pages.get(1).unwrap(), [0; 4]);
        assert_eq!(pages.get(10_000_000_000_000).unwrap(), [0; 4]);
    }

    #[test]
    fn nothing_is_left_behind() {
        let root = Root::new();
        fs::create_dir_all(&root.0).unwrap();
        let mut pages: Pages<4> = Pages::new(&root.0, 1).unwrap();
        pages.set(5, [1; 4]).unwrap();
        assert_eq!(fs::read_dir(&root.0).unwrap().count(), 0);
    }
}
