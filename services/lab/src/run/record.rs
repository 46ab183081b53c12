//! What a run's own side writes down while it goes on: append-only text, a line per fact.
//!
//! A line is in the kernel's hands when `append` returns: killing the process loses at most what comes after, and a torn last
//! line is not a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::marker::PhantomData;
use std::path::Path;

use super::RunDir;

/// A fact as a line of text.
pub trait Line: Sized {
    /// The record's name in the folder of a run.
    const FILE: &'static str;
    /// What the record is called.
    const WHAT: &'static str;

    /// With its end.
    fn write(&self, text: &mut Vec<u8>) -> io::Result<()>;

    /// Without its end; none: it is damaged.
    fn parse(text: &[u8]) -> Option<Self>;
}

/// The writing end.
#[derive(Debug)]
pub struct Recorder<L> {
    file: File,
    text: Vec<u8>,
    broken: bool,
    kind: PhantomData<fn(L)>,
}

impl<L: Line> Recorder<L> {
    /// Begins the record of a run, which has none yet.
    pub fn create(run: &RunDir) -> io::Result<Self> {
        let mut options = File::options();
        let file = options
            .append(true)
            .create_new(true)
            .open(run.path(L::FILE))?;
        Ok(Self {
            file,
            text: Vec::new(),
            broken: false,
            kind: PhantomData,
        })
    }

    /// Adds lines; they outlive this process when it returns.
    pub fn append(&mut self, lines: &[L]) -> io::Result<()> {
        // half a line may stand there now; nothing may come after it
        if self.broken {
            return Err(io::Error::other(format!("{} is broken", L::WHAT)));
        }
        self.text.clear();
        for line in lines {
            line.write(&mut self.text)?;
        }
        let written = self.file.write_all(&self.text);
        self.broken = written.is_err();
        written
    }
}

/// Reads a record line by line, in memory that does not grow.
pub fn read<L: Line>(path: &Path) -> io::Result<impl Iterator<Item = io::Result<L>> + use<L>> {
    Ok(Lines {
        input: BufReader::with_capacity(1 << 16, File::open(path)?),
        text: Vec::new(),
        count: 0,
        kind: PhantomData,
    })
}

struct Lines<R, L> {
    input: R,
    text: Vec<u8>,
    count: u64,
    kind: PhantomData<fn() -> L>,
}

impl<R: BufRead, L: Line> Iterator for Lines<R, L> {
    type Item = io::Result<L>;

    fn next(&mut self) -> Option<Self::Item> {
        self.text.clear();
        if let Err(error) = self.input.read_until(b'\n', &mut self.text) {
            return Some(Err(error));
        }
        // nothing, or torn
        let text = self.text.strip_suffix(b"\n")?;
        self.count += 1;
        Some(L::parse(text).ok_or_else(|| {
            let place = format!("line {} of {} is damaged", self.count, L::WHAT);
            io::Error::new(io::ErrorKind::InvalidData, place)
        }))
    }
}
