//! The folder of a stack (`.lab/`): ports, names and secrets that outlive it, logs, and the lock (`lock.rs`).
//!
//! Promises: secrets and the folders that hold them are readable by their owner only; a second stack in the same folder
//! cannot take the lock; files are replaced as a whole, so that a crash leaves the old or the new one.

mod lock;
mod secrets;
mod shell;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use daemon::node;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::ports::{self, Reserved};
pub use lock::{Lock, holder, is_held, lock};
pub use secrets::Secrets;
pub use shell::{called, checkout, command, default_root, is_service, quoted, real};

/// The name and ports of one node; kept, so that the next start finds the same nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub name: String,
    pub port: u16,
    pub ops: u16,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    ports: BTreeMap<String, u16>,
    nodes: BTreeMap<String, Vec<Place>>,
}

/// The folder of a stack.
#[derive(Debug)]
pub struct LabDir {
    root: PathBuf,
    secrets: Secrets,
    kept: Mutex<Kept>,
    reserved: Mutex<BTreeMap<u16, Reserved>>,
}

/// Whether a folder holds nothing but what `lab` made, a stack or only runs or experiments: what `reset` may remove.
pub fn made_here(root: &Path) -> bool {
    let all_entries = |folder: &Path, ours: &dyn Fn(&Path) -> bool| {
        let entries = fs::read_dir(folder);
        entries.is_ok_and(|mut all| all.all(|entry| entry.is_ok_and(|entry| ours(&entry.path()))))
    };
    let run = |folder: &Path| folder.join("run.json").is_file();
    let ours = |path: &Path| match path.file_name().and_then(OsStr::to_str) {
        Some("lock") => true,
        Some("runs") => all_entries(path, &run),
        Some("experiments") => made_here(path),
        _ => false,
    };
    root.join("secrets.json").is_file() || all_entries(root, &ours)
}

/// Where the mails are kept that nodes of the stack in this folder have sent.
pub fn mails(root: &Path) -> PathBuf {
    root.join("mails.ndjson")
}

impl LabDir {
    /// Opens the folder, making what is missing.
    pub fn open(root: &Path) -> Result<Self> {
        // others may pass through (PostgreSQL runs as another user when we are root), but not look around
        make_folder(root, 0o711)?;
        let root = root.canonicalize()?;
        if root
            .to_string_lossy()
            .contains(['"', '\n', '\'', ';', '{', '}', '$'])
        {
            bail!(
                "the path {} holds a character that the servers' settings cannot; choose another with --lab-dir",
                root.display()
            );
        }
        make_folder(&root.join("logs"), 0o700)?;
        let file = root.join("secrets.json");
        let kept: Option<Secrets> = read_json(&file)?;
        let is_new = kept.is_none();
        let mut secrets = kept.unwrap_or_else(Secrets::new);
        if secrets.complete() || is_new {
            write_secret(&file, &serde_json::to_string_pretty(&secrets)?)?;
        }
        let kept = Mutex::new(read_json(&root.join("places.json"))?.unwrap_or_default());
        Ok(Self {
            root,
            secrets,
            kept,
            reserved: Mutex::default(),
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// A few letters that differ from folder to folder.
    pub fn tag(&self) -> String {
        tag(&self.root)
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// A folder of one server, made where missing.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        make_folder(&path, 0o700)?;
        Ok(path)
    }

    /// The port of a server: the one of last time where it is still free.
    pub fn port(&self, name: &str) -> Result<u16> {
        let mut kept = self.kept();
        if let Some(port) = kept
            .ports
            .get(name)
            .copied()
            .filter(|port| self.reserve(*port))
        {
            return Ok(port);
        }
        let port = self.free_port()?;
        kept.ports.insert(name.to_owned(), port);
        self.save(&kept)?;
        Ok(port)
    }

    /// The nth place of a service: the one of last time, with other ports where those are taken.
    pub fn place(&self, service: &str, nth: usize) -> Result<Place> {
        let mut kept = self.kept();
        let taken: Vec<String> = kept
            .nodes
            .values()
            .flatten()
            .map(|place| place.name.clone())
            .collect();
        let places = kept.nodes.entry(service.to_owned()).or_default();
        if let Some(place) = places.get(nth)
            && self.reserve(place.port)
            && self.reserve(place.ops)
        {
            return Ok(place.clone());
        }
        let (port, ops) = (self.free_port()?, self.free_port()?);
        let name = match places.get(nth) {
            Some(place) => place.name.clone(),
            None => fresh_name(service, &taken),
        };
        let place = Place { name, port, ops };
        places.truncate(nth);
        places.push(place.clone());
        self.save(&kept)?;
        Ok(place)
    }

    fn reserve(&self, port: u16) -> bool {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if reserved.contains_key(&port) {
            return ports::is_free(port);
        }
        ports::reserve(port).is_some_and(|new| reserved.insert(port, new).is_none())
    }

    fn free_port(&self) -> Result<u16> {
        let (port, new) = ports::free()?;
        self.reserved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(port, new);
        Ok(port)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, kept: &Kept) -> Result<()> {
        write_secret(
            &self.root.join("places.json"),
            &serde_json::to_string_pretty(kept)?,
        )
    }
}

/// A few letters that differ from path to path.
pub fn tag(path: &Path) -> String {
    // FNV-1a: the standard library's hasher may differ between two builds, and folders are found by this
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = path.as_os_str().as_bytes().iter().fold(0x811c_9dc5, mix);
    format!("{hash:08x}")
}

/// A name that is new, in a colour that no more nodes have than any other.
fn fresh_name(service: &str, taken: &[String]) -> String {
    let with = |colour| {
        taken
            .iter()
            .filter(|name| node::colour(name) == colour)
            .count()
    };
    let fewest = (1..=8).map(with).min().unwrap_or(0);
    loop {
        let name = format!("{service}-{:04x}", rand::random::<u16>());
        if with(node::colour(&name)) == fewest && !taken.contains(&name) {
            return name;
        }
    }
}

/// Makes a folder with these rights; one that exists keeps its own.
pub fn make_folder(path: &Path, mode: u32) -> Result<()> {
    if !path.is_dir() {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Writes a file that only its owner may read, as a whole or not at all.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    write_whole(path, text, 0o600)
}

/// Writes a file with these rights, as a whole or not at all: who reads it meanwhile, and who looks after a crash, finds
/// the old or the new one. Two that write at once do not mix.
pub fn write_whole(path: &Path, text: &str, mode: u32) -> Result<()> {
    let fresh = path.with_extension(format!("{:08x}.new", rand::random::<u32>()));
    let write = || -> std::io::Result<()> {
        let mut file = File::options()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| {
            let reset = command(path.parent().unwrap_or(path), "reset");
            format!("{} is damaged; `{reset}` starts afresh", path.display())
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_nodes_have_eight_colours() {
        let mut taken: Vec<String> = Vec::new();
        for n in 0..8 {
            taken.push(fresh_name(
                if n < 3 { "sender" } else { "receiver" },
                &taken,
            ));
        }
        let mut colours: Vec<u8> = taken.iter().map(|name| node::colour(name)).collect();
        colours.sort_unstable();
        assert_eq!(colours, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn only_what_was_made_here_is_known_as_such() {
        let root = fresh();
        let file = |name: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        assert!(!made_here(&root), "there is nothing");
        file("lock");
        file("runs/r1/run.json");
        file("experiments/lock");
        assert!(made_here(&root));
        file("experiments/secrets.json");
        file("experiments/logs/x");
        assert!(made_here(&root));
        file("runs/mine/notes.txt");
        assert!(!made_here(&root));
        fs::remove_dir_all(root.join("runs")).unwrap();
        file("thesis.tex");
        assert!(!made_here(&root));
        file("secrets.json");
        assert!(made_here(&root));
        fs::remove_dir_all(&root).unwrap();
    }

    pub(super) fn fresh() -> PathBuf {
        std::env::temp_dir().join(format!("lab-dir-{:08x}", rand::random::<u32>()))
    }

    #[test]
    fn names_ports_and_secrets_outlive_the_stack() {
        let root = fresh();
        let first = LabDir::open(&root).unwrap();
        let place = first.place("sender", 0).unwrap();
        let (port, secret) = (first.port("redis").unwrap(), first.secrets().redis.clone());
        drop(first);
        let second = LabDir::open(&root).unwrap();
        assert_eq!(second.place("sender", 0).unwrap(), place);
        assert_ne!(second.place("sender", 1).unwrap().name, place.name);
        assert_eq!(second.port("redis").unwrap(), port);
        assert_eq!(second.secrets().redis, secret);
        let mode = fs::metadata(root.join("secrets.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_file_is_the_old_or_the_new_one_whoever_writes_at_once() {
        let root = fresh();
        make_folder(&root, 0o700).unwrap();
        let path = root.join("audit.json");
        let texts = ["a", "b"].map(|letter| letter.repeat(200_000));
        write_whole(&path, &texts[0], 0o644).unwrap();
        std::thread::scope(|scope| {
            for text in &texts {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        write_whole(path, text, 0o644).unwrap();
                        let found = fs::read_to_string(path).unwrap();
                        assert!(texts_are(&found), "{} bytes", found.len());
                    }
                });
            }
        });
        let left = fs::read_dir(&root).unwrap().count();
        assert_eq!(left, 1, "nothing is left beside it");
        // what cannot be put in its place leaves nothing either
        fs::create_dir_all(root.join("taken/x")).unwrap();
        write_whole(&root.join("taken"), "x", 0o644).unwrap_err();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 2);
        fs::remove_dir_all(root).unwrap();
    }

    fn texts_are(found: &str) -> bool {
        let first = found.as_bytes().first();
        found.len() == 200_000 && found.bytes().all(|byte| Some(&byte) == first)
    }

    #[test]
    fn a_taken_port_is_left_to_its_holder() {
        let root = fresh();
        let dir = LabDir::open(&root).unwrap();
        let port = dir.port("redis").unwrap();
        let _holder = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert_ne!(dir.port("redis").unwrap(), port);
        fs::remove_dir_all(root).unwrap();
    }
}
