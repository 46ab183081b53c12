//! What programs say of themselves in a log that grows: each byte is read once.
//!
//! A log is appended to by one process after the other. Kept are the lines in which one names itself by its pid, for these
//! are all that is asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Of some files, by their inodes: a log that is put aside keeps its own.
#[derive(Debug, Default)]
pub struct Appended(BTreeMap<u64, Known>);

#[derive(Debug, Default)]
struct Known {
    /// So far it was read: to the end of a line.
    read: u64,
    lines: Vec<String>,
}

impl Appended {
    /// The lines of these files in which this process names itself, the oldest file first. A file that is not there has none.
    pub fn lines_of(&mut self, pid: &str, files: &[&Path]) -> Result<String> {
        let mut found = String::new();
        for path in files {
            let known = match File::open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file.and_then(|file| self.read_on(file)),
            };
            let known = known.with_context(|| format!("cannot read {}", path.display()))?;
            for line in known.lines.iter().filter(|line| is_of(line, pid)) {
                found.push_str(line);
                found.push('\n');
            }
        }
        Ok(found)
    }

    fn read_on(&mut self, mut file: File) -> std::io::Result<&Known> {
        let about = file.metadata()?;
        let known = self.0.entry(about.ino()).or_default();
        // another file that got the number of one that is gone
        if about.len() < known.read {
            *known = Known::default();
        }
        file.seek(SeekFrom::Start(known.read))?;
        let mut new = Vec::new();
        file.read_to_end(&mut new)?;
        // the last line may still be written
        let whole = new
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        known.read += whole as u64;
        let text = String::from_utf8_lossy(&new[..whole]);
        let naming = text.lines().filter(|line| line.contains("pid"));
        known.lines.extend(naming.map(str::to_owned));
        Ok(known)
    }
}

/// Whether it has the field `pid`, in JSON or for people.
fn is_of(line: &str, pid: &str) -> bool {
    ["\"pid\":", "pid="].iter().any(|field| {
        let mut after = line.split(field).skip(1);
        after.any(|rest| {
            let rest = rest.strip_prefix(pid);
            rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
        })
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;

    use super::*;

    struct Log(PathBuf);

    impl Log {
        fn new() -> Self {
            let name = format!("lab-appended-{:016x}", rand::random::<u64>());
            Self(std::env::temp_dir().join(name))
        }

        fn say(&self, text: &str) {
            let log = File::options().create(true).append(true).open(&self.0);
            log.unwrap().write_all(text.as_bytes()).unwrap();
        }
    }

    impl Drop for Log {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
            let _ = fs::remove_file(self.0.with_extension("1"));
        }
    }

    #[test]
    fn only_what_was_appended_is_read() {
        let (log, mut appended) = (Log::new(), Appended::default());
        log.say("one pid=7\nnobody\n{\"pid\":7} tw");
        assert_eq!(appended.lines_of("7", &[&log.0]).unwrap(), "one pid=7\n");
        // what was read may say anything by now
        let mut file = File::options().write(true).open(&log.0).unwrap();
        file.write_all(b"ONE").unwrap();
        log.say("o\n");
        let both = "one pid=7\n{\"pid\":7} two\n";
        assert_eq!(appended.lines_of("7", &[&log.0]).unwrap(), both);
    }

    #[test]
    fn a_log_that_is_put_aside_is_the_same_and_a_new_one_begins() {
        let (log, mut appended) = (Log::new(), Appended::default());
        let aside = log.0.with_extension("1");
        let files = [&*aside, &*log.0];
        log.say("one pid=7\n");
        assert_eq!(appended.lines_of("7", &files).unwrap(), "one pid=7\n");
        fs::rename(&log.0, &aside).unwrap();
        log.say("two pid=7\n");
        let both = "one pid=7\ntwo pid=7\n";
        assert_eq!(appended.lines_of("7", &files).unwrap(), both);
    }

    #[test]
    fn another_process_in_the_same_log_is_another() {
        let line = "a fail point acts pid=71";
        assert!(is_of(line, "71"));
        assert!(!is_of(line, "7"));
        assert!(is_of(r#"{"pid":71,"a":1}"#, "71"));
        assert!(!is_of(r#"{"pid":71}"#, "1"));
    }
}
