//! The language module of Rhai (<https://rhai.rs/book>): scripts as text.
//!
//! `load` is called once for a text, without a caller or a target: it parses the text, and
//! the memory that this leaves is what each call begins with. `call` runs the entry
//! that the host names.
//!
//! A text whose functions take what an entry is given, one parameter or none, has these
//! as its entries: `sign_book` is sign-book. What stands outside of them runs in `load`,
//! and leaves constants. In any other text, and where all functions are `private`, the
//! whole is the entry run.

mod json;
mod objects;
mod report;
mod text;

use circles::Returned;
use std::cell::Cell;
use text::Text;

thread_local! {
    static LANGUAGE: Cell<Option<text::Language>> = const { Cell::new(None) };
    /// Leaked: an instance ends with its call, and to free what the call used would take
    /// longer than most of them.
    static TEXT: Cell<Option<&'static mut Text>> = const { Cell::new(None) };
}

/// The functions that Rhai brings are registered here, so that they are in the image of
/// the module that all texts begin with.
#[export_name = "_initialize"]
extern "C" fn initialize() {
    circles::initialize();
    LANGUAGE.set(Some(text::Language::new()));
}

#[export_name = "load"]
extern "C" fn load(source: *mut u8, len: usize) -> *const Returned {
    unsafe {
        circles::returning(source, len, |source| {
            let language = LANGUAGE.take().ok_or("a text has been loaded already")?;
            let text = language.load(source)?;
            let described = text.describe();
            TEXT.set(Some(Box::leak(Box::new(text))));
            Ok::<_, String>(described)
        })
    }
}

#[export_name = "call"]
extern "C" fn call(params: *mut u8, len: usize) -> *const Returned {
    unsafe {
        circles::returning(params, len, |params| -> Result<_, String> {
            let text = TEXT.take().ok_or("no text has been loaded")?;
            let result = text.call(&circles::entry(), params);
            TEXT.set(Some(text));
            result
        })
    }
}
