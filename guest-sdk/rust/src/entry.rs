use std::fmt::Display;

use crate::abi;

/// Defines the entries of a module, those that a script can name.
///
/// ```no_run
/// circles::export! {
///     "run" => sign,
///     "sign-twice" => |params| sign([params.clone(), params].concat()),
/// }
///
/// fn sign(params: Vec<u8>) -> Result<Vec<u8>, String> {
///     Ok(params)
/// }
/// # fn main() {}
/// ```
///
/// Names are in kebab case. A handler is anything that can be called with the params and
/// returns a result of bytes, or of text, whose error can be shown. An error fails the
/// script with its text; nothing that the script wrote remains.
///
/// A module has it once.
#[macro_export]
macro_rules! export {
    ($($name:literal => $handler:expr),+ $(,)?) => {
        $(const _: () = {
            #[cfg(target_family = "wasm")]
            #[export_name = $name]
            extern "C" fn entry(params: *mut u8, len: usize) -> *const $crate::Returned {
                // Sound, as the host calls it with a block of its own from cabi_realloc.
                unsafe { $crate::returning(params, len, $handler) }
            }
            // So that a handler of a wrong type is found on every platform.
            #[cfg(not(target_family = "wasm"))]
            #[allow(dead_code)]
            fn entry() {
                let _ = || unsafe { $crate::returning(std::ptr::null_mut(), 0, $handler) };
            }
        };)+
        const _: () = {
            #[cfg(target_family = "wasm")]
            #[export_name = "_initialize"]
            extern "C" fn initialize() {
                $crate::initialize()
            }
        };
    };
}

/// What a reactor's host calls first, for [`export!`]. Rust makes a cdylib without it; the
/// linker would then have each export, `cabi_realloc` too, run all constructors anew,
/// those among them that ask for the preopened directories.
pub fn initialize() {
    abi::initialize()
}

/// `result<list<u8>, string>` as it lies in memory.
#[repr(C)]
pub struct Returned {
    is_err: u8,
    data: *const u8,
    len: usize,
}

#[cfg(target_pointer_width = "32")]
const _: () = assert!(std::mem::size_of::<Returned>() == 12);

/// Runs an entry, for [`export!`].
///
/// # Safety
///
/// `params` is a block of `len` bytes that `cabi_realloc` returned, and nobody else's.
pub unsafe fn returning<T, E>(
    params: *mut u8,
    len: usize,
    handler: impl FnOnce(Vec<u8>) -> Result<T, E>,
) -> *const Returned
where
    T: Into<Vec<u8>>,
    E: Display,
{
    // One result is enough, and there is no cabi_post_ to free it: an instance runs one
    // entry at a time, and the host has read the result before it calls the next.
    static mut RESULT: Vec<u8> = Vec::new();
    static mut RETURNED: Returned = Returned { is_err: 0, data: std::ptr::null(), len: 0 };
    let result = &raw mut RESULT;
    let returned = &raw mut RETURNED;
    *result = Vec::new();

    let (is_err, bytes) = match handler(abi::lift(params, len)) {
        Ok(v) => (0, v.into()),
        Err(e) => (1, e.to_string().into_bytes()),
    };
    abi::drop_handles();
    *result = bytes;
    *returned = Returned { is_err, data: (*result).as_ptr(), len: (*result).len() };
    returned
}

/// A handler whose params and result are JSON, for [`export!`](crate::export!):
///
/// ```no_run
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Greeting { name: String }
///
/// circles::export! {
///     "greet" => circles::json(|g: Greeting| Ok::<_, String>(format!("hello, {}", g.name))),
/// }
/// # fn main() {}
/// ```
///
/// No params at all count as `{}`. Params that are not JSON, or not such, fail the script
/// and say so.
#[cfg(feature = "json")]
pub fn json<In, Out, E>(handler: impl FnOnce(In) -> Result<Out, E>) -> impl FnOnce(Vec<u8>) -> Result<Vec<u8>, String>
where
    In: serde::de::DeserializeOwned,
    Out: serde::Serialize,
    E: Display,
{
    |params| {
        let text = if params.trim_ascii().is_empty() { b"{}" } else { params.as_slice() };
        let params = serde_json::from_slice(text).map_err(|e| format!("params: {e}"))?;
        let result = handler(params).map_err(|e| e.to_string())?;
        serde_json::to_vec(&result).map_err(|e| format!("encode result: {e}"))
    }
}

#[cfg(all(test, feature = "json"))]
mod tests {
    #[test]
    fn json_params_and_results() {
        let double = |params: &str| super::json(|n: Vec<u32>| n.first().map(|n| n * 2).ok_or("no number"))(params.into());
        assert_eq!(double(" [3] "), Ok(b"6".to_vec()));
        assert_eq!(double("[]"), Err("no number".into()));
        assert!(double("[1] []").unwrap_err().starts_with("params: trailing characters"));
        assert!(double("").unwrap_err().starts_with("params: invalid type: map"));
    }
}
