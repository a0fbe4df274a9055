use crate::abi;
use crate::Result;

/// Runs an entry of another module of the target's context; an empty `entry` is `run`. It
/// does what it does in the same transaction, in an instance of its own, with no more than
/// the policy permits both. If it fails, that is [`Code::Failed`] with its own words, and
/// nothing that it wrote remains.
///
/// [`Code::Failed`]: crate::Code::Failed
pub fn call(module: &str, entry: &str, params: impl AsRef<[u8]>) -> Result<Vec<u8>> {
    abi::call(module, entry, params.as_ref()).map_err(|e| e.of("call", module))
}

/// Runs an entry of what this module stands before: the next of its chain, or the module of
/// the same name in the layer below. An empty `entry` is the one that this one was entered
/// by. Without anything below it is [`Code::NotFound`].
///
/// [`Code::NotFound`]: crate::Code::NotFound
pub fn base(entry: &str, params: impl AsRef<[u8]>) -> Result<Vec<u8>> {
    abi::base(entry, params.as_ref()).map_err(|e| e.of("call the base,", entry))
}

/// The entry that was asked for. A module of a chain that has no such entry is entered by
/// `run`.
pub fn entry() -> String {
    abi::entry()
}
