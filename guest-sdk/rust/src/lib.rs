//! What a script module written in Rust imports: the contexts of the two peers that
//! a script concerns, a log, and the entries that a host calls.
//!
//! ```no_run
//! circles::export! { "run" => greet }
//!
//! fn greet(_params: Vec<u8>) -> circles::Result<Vec<u8>> {
//!     let card = circles::caller().read("/card.txt")?;
//!     Ok([b"hello, ", card.as_slice()].concat())
//! }
//! # fn main() {}
//! ```
//!
//! in a crate whose `Cargo.toml` says
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//! ```
//!
//! is a module, a reactor, which `cargo build --release --target wasm32-wasip1` makes.
//! What it names in [`export!`] a script can name, `run` is the default. A program with a
//! `main` is a command: it has its params on stdin and its result on stdout, and may
//! use [`caller`], [`target`] and [`log`] too.
//!
//! The target's files are also the program's own, at `/`, through [`std::fs`]. Both
//! ways go through the policy of the target's owner and one transaction: when an entry
//! returns an error, panics or runs into a limit, nothing that it wrote remains.
//!
//! # What differs from an ordinary program
//!
//! A host gives every call a fresh instance, and may make it by copying one that has
//! been initialised, without any context in reach. Statics start from the same values
//! in every call. A panic ends the instance: its message goes to stderr, and so to the
//! receipt's log.
//!
//! # Tests
//!
//! The crate also compiles for other platforms, where every operation fails with
//! [`Code::Unavailable`] and nothing is logged, so that `cargo test` runs what does
//! not ask the host.
//!
//! # Features
//!
//! `json` brings [`json`], for params and results by `serde`. Without it the crate has
//! no dependencies.

#![warn(missing_docs)]

mod context;
mod entry;
mod error;
mod file;
mod module;
mod record;

#[cfg_attr(target_family = "wasm", path = "abi.rs")]
#[cfg_attr(not(target_family = "wasm"), path = "abi_other.rs")]
mod abi;

pub use context::{caller, target, Context, Entry, Kind, Stat};
#[cfg(feature = "json")]
pub use entry::json;
pub use error::{Code, Error, Result, Violation};
pub use file::{Reader, Writer};
pub use module::{base, call, entry};
pub use record::{Collection, Page, Record, Records};

#[doc(hidden)]
pub use entry::{initialize, returning, Returned};

/// How much a line of the log matters; `log.level` in host.wit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// For whoever writes the module.
    Debug,
    /// For whoever reads the receipt.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something failed.
    Error,
}

/// Adds a line to the log that is kept with the receipt, and that both peers may
/// read. The host cuts what is over its limit.
///
/// ```
/// let n = 3;
/// circles::log(circles::Level::Info, format!("signed as number {n}"));
/// ```
pub fn log(level: Level, message: impl AsRef<str>) {
    abi::log(level, message.as_ref())
}
