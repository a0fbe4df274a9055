use crate::abi;
use crate::{Collection, Reader, Result, Writer};

/// The named environment of a peer: its files and records, as far as that peer's policy
/// lets this script at them. It is a name rather than an open handle: it may be kept,
/// copied, and used in any later call.
///
/// Paths are slash-separated and start at the context's root; a leading `/` may be left
/// out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context(pub(crate) Party);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Party {
    Caller,
    Target,
}

/// The context of the peer that sent this script. What it allows is what that peer lent
/// in the script; it can never be changed.
pub const fn caller() -> Context {
    Context(Party::Caller)
}

/// The context that this script runs in.
pub const fn target() -> Context {
    Context(Party::Target)
}

impl Context {
    /// The peer's identity, `did:key:z6Mk…`.
    pub fn id(self) -> String {
        abi::id(self.0)
    }

    /// The name that the target's owner gave this peer; empty for a stranger. It
    /// identifies nobody outside of this target: store ids, show names.
    pub fn name(self) -> String {
        abi::name(self.0)
    }

    /// The whole contents of a file. One over 16 MiB is [`Code::TooLarge`]; read it
    /// through [`Context::open`].
    ///
    /// [`Code::TooLarge`]: crate::Code::TooLarge
    pub fn read(self, path: &str) -> Result<Vec<u8>> {
        abi::read(self.0, path).map_err(|e| e.of("read", path))
    }

    /// The whole contents of a file that is text. Bytes that are not UTF-8 are
    /// replaced by U+FFFD.
    pub fn read_to_string(self, path: &str) -> Result<String> {
        Ok(match String::from_utf8(self.read(path)?) {
            Ok(text) => text,
            Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
        })
    }

    /// Up to `length` bytes from `offset`: fewer at the file's end, none beyond it.
    pub fn read_at(self, path: &str, offset: u64, length: u32) -> Result<Vec<u8>> {
        abi::read_at(self.0, path, offset, length).map_err(|e| e.of("read", path))
    }

    /// A file, to be read in parts.
    pub fn open(self, path: &str) -> Result<Reader> {
        Reader::open(self, path)
    }

    /// Replaces the contents of a file, or makes one. Directories on the way must be
    /// there. Data over 16 MiB is [`Code::TooLarge`]; write it through
    /// [`Context::create`].
    ///
    /// [`Code::TooLarge`]: crate::Code::TooLarge
    pub fn write(self, path: &str, data: impl AsRef<[u8]>) -> Result<()> {
        abi::write(self.0, path, data.as_ref()).map_err(|e| e.of("write", path))
    }

    /// Adds to the end of a file, or makes one.
    pub fn append(self, path: &str, data: impl AsRef<[u8]>) -> Result<()> {
        abi::append(self.0, path, data.as_ref()).map_err(|e| e.of("append", path))
    }

    /// A file, made or emptied, to be written in parts.
    pub fn create(self, path: &str) -> Result<Writer> {
        Writer::create(self, path)
    }

    /// The entries of a directory, in name order.
    pub fn list(self, path: &str) -> Result<Vec<Entry>> {
        abi::list(self.0, path).map_err(|e| e.of("list", path))
    }

    /// What is there, behind any links.
    pub fn stat(self, path: &str) -> Result<Stat> {
        abi::stat(self.0, path).map_err(|e| e.of("stat", path))
    }

    /// Makes one directory; the one above it must be there.
    pub fn make_directory(self, path: &str) -> Result<()> {
        abi::make_directory(self.0, path).map_err(|e| e.of("make directory", path))
    }

    /// Removes a file, a link or an empty directory.
    pub fn remove(self, path: &str) -> Result<()> {
        abi::remove(self.0, path).map_err(|e| e.of("remove", path))
    }

    /// Sends a script from this context's peer, which is to be the target, to another one,
    /// and returns its result. `to` is a did:key or the name that the context's owner gave
    /// the peer; `logic` a module's name, or `sha256:` and a digest in hex; an empty `entry`
    /// is `run`. A script that fails is [`Code::Failed`], with its own words.
    ///
    /// [`Code::Failed`]: crate::Code::Failed
    pub fn send(self, to: &str, logic: &str, entry: &str, params: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        abi::send(self.0, to, logic, entry, params.as_ref()).map_err(|e| e.of("send to", to))
    }

    /// The records of that name.
    pub fn collection(self, name: &str) -> Collection<'_> {
        Collection { context: self, name }
    }
}

/// What a name stands for; `contexts.kind` in host.wit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// An ordinary file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, wherever it leads.
    Link,
    /// Anything else.
    Other,
}

impl Kind {
    #[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
    pub(crate) fn from_host(n: u8) -> Kind {
        match n {
            0 => Kind::File,
            1 => Kind::Directory,
            2 => Kind::Link,
            _ => Kind::Other,
        }
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Without the directory's.
    pub name: String,
    /// Of the name itself: a link is a link here.
    pub kind: Kind,
}

/// What is known of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Never [`Kind::Link`], since links are followed.
    pub kind: Kind,
    /// Bytes; 0 for a directory.
    pub size: u64,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub modified: u64,
}

impl Stat {
    /// When it was last changed.
    pub fn modified_time(&self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH + std::time::Duration::from_millis(self.modified)
    }
}
