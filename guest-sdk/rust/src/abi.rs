//! The guest's side of the Canonical ABI for wit/deps/circles-host and wit/script.wit
//! (<https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md>).
//!
//! What the host returns lies in blocks that it got from `cabi_realloc`, which are
//! Rust's own: a `list<T>` of n elements is a `Vec<T>` of that capacity.

use std::alloc::{self, Layout};
use std::mem::size_of;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::context::Party;
use crate::error::Failure;
use crate::{Code, Entry, Kind, Level, Page, Record, Stat};

type Outcome<T> = Result<T, Failure>;

#[link(wasm_import_module = "circles:host/contexts@0.1.2")]
extern "C" {
    #[link_name = "caller"]
    fn host_caller() -> u32;
    #[link_name = "target"]
    fn host_target() -> u32;
    #[link_name = "[resource-drop]context"]
    fn host_drop(this: u32);
    #[link_name = "[method]context.id"]
    fn host_id(this: u32, ret: *mut List);
    #[link_name = "[method]context.name"]
    fn host_name(this: u32, ret: *mut List);
    #[link_name = "[method]context.read"]
    fn host_read(this: u32, path: *const u8, len: usize, ret: *mut ListResult);
    #[link_name = "[method]context.read-at"]
    fn host_read_at(this: u32, path: *const u8, len: usize, offset: u64, length: u32, ret: *mut ListResult);
    #[link_name = "[method]context.write"]
    fn host_write(this: u32, path: *const u8, len: usize, data: *const u8, size: usize, ret: *mut ListResult);
    #[link_name = "[method]context.append"]
    fn host_append(this: u32, path: *const u8, len: usize, data: *const u8, size: usize, ret: *mut ListResult);
    #[link_name = "[method]context.list"]
    fn host_list(this: u32, path: *const u8, len: usize, ret: *mut ListResult);
    #[link_name = "[method]context.stat"]
    fn host_stat(this: u32, path: *const u8, len: usize, ret: *mut StatResult);
    #[link_name = "[method]context.make-directory"]
    fn host_make_directory(this: u32, path: *const u8, len: usize, ret: *mut ListResult);
    #[link_name = "[method]context.remove"]
    fn host_remove(this: u32, path: *const u8, len: usize, ret: *mut ListResult);
    #[link_name = "[method]context.get-record"]
    fn host_get_record(this: u32, name: *const u8, len: usize, key: *const u8, key_len: usize, ret: *mut ListResult);
    #[link_name = "[method]context.put-record"]
    fn host_put_record(
        this: u32, name: *const u8, len: usize, key: *const u8, key_len: usize,
        value: *const u8, size: usize, ret: *mut ListResult,
    );
    #[link_name = "[method]context.delete-record"]
    fn host_delete_record(this: u32, name: *const u8, len: usize, key: *const u8, key_len: usize, ret: *mut ListResult);
    #[link_name = "[method]context.list-records"]
    fn host_list_records(
        this: u32, name: *const u8, len: usize, start: *const u8, start_len: usize,
        prefix: *const u8, prefix_len: usize, limit: u32, ret: *mut PageResult,
    );
    #[link_name = "[method]context.replace-record"]
    fn host_replace_record(
        this: u32, name: *const u8, len: usize, key: *const u8, key_len: usize,
        some: u32, expected: *const u8, expected_size: usize, value: *const u8, size: usize, ret: *mut ListResult,
    );
    #[link_name = "[method]context.query-records"]
    fn host_query_records(
        this: u32, name: *const u8, len: usize, query: *const u8, query_len: usize,
        start: *const u8, start_len: usize, limit: u32, ret: *mut PageResult,
    );
    #[link_name = "[method]context.send"]
    fn host_send(
        this: u32, to: *const u8, to_len: usize, logic: *const u8, logic_len: usize,
        entry: *const u8, entry_len: usize, params: *const u8, size: usize, ret: *mut ListResult,
    );
}

#[link(wasm_import_module = "circles:host/modules@0.1.2")]
extern "C" {
    #[link_name = "call"]
    fn host_call(
        name: *const u8, len: usize, entry: *const u8, entry_len: usize,
        params: *const u8, size: usize, ret: *mut ListResult,
    );
    #[link_name = "base"]
    fn host_base(entry: *const u8, len: usize, params: *const u8, size: usize, ret: *mut ListResult);
    #[link_name = "entry"]
    fn host_entry(ret: *mut List);
}

#[link(wasm_import_module = "circles:host/log@0.1.2")]
extern "C" {
    #[link_name = "write"]
    fn host_log(level: u32, message: *const u8, len: usize);
}

// ---- Memory ----

/// The host makes room for what it returns here. It does not return null: when memory
/// runs out the instance ends, as the ABI wants it.
///
/// # Safety
///
/// As the Canonical ABI says of `realloc`.
#[no_mangle]
pub unsafe extern "C" fn cabi_realloc(old: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
    if size == 0 && old_size == 0 {
        return align as *mut u8; // stands for an empty list, and is never read
    }
    let (Ok(was), Ok(is)) = (Layout::from_size_align(old_size, align), Layout::from_size_align(size, align)) else {
        std::process::abort();
    };
    let block = if old_size == 0 { alloc::alloc(is) } else { alloc::realloc(old, was, size.max(1)) };
    if block.is_null() {
        std::process::abort();
    }
    block
}

/// A `list` or `string`.
#[repr(C)]
#[derive(Clone, Copy)]
struct List {
    data: *mut u8,
    len: usize,
}

impl List {
    const NONE: List = List { data: std::ptr::null_mut(), len: 0 };

    unsafe fn bytes(self) -> Vec<u8> {
        self.elements()
    }

    /// The host sends UTF-8 only; whether it did is worth no trust.
    unsafe fn text(self) -> String {
        String::from_utf8(self.bytes()).unwrap_or_default()
    }

    unsafe fn elements<T>(self) -> Vec<T> {
        if self.len == 0 {
            return Vec::new();
        }
        Vec::from_raw_parts(self.data.cast(), self.len, self.len)
    }
}

/// The params of an entry.
pub(crate) unsafe fn lift(data: *mut u8, len: usize) -> Vec<u8> {
    List { data, len }.bytes()
}

// A tag, a code and a kind are one byte; the host leaves the bytes after it as they
// were.

#[repr(C)]
#[derive(Clone, Copy)]
struct RawError {
    code: u8,
    message: List,
}

impl RawError {
    unsafe fn failure(self) -> Failure {
        Failure { code: Code::from_host(self.code), message: self.message.text() }
    }
}

/// `result<list<T>, error>`, or `result<_, error>`.
#[repr(C)]
struct ListResult {
    is_err: u8,
    v: ListOrError,
}

#[repr(C)]
#[derive(Clone, Copy)]
union ListOrError {
    list: List,
    error: RawError,
}

impl ListResult {
    fn room() -> ListResult {
        ListResult { is_err: 0, v: ListOrError { error: RawError { code: 0, message: List::NONE } } }
    }

    unsafe fn list(self) -> Outcome<List> {
        if self.is_err != 0 {
            return Err(self.v.error.failure());
        }
        Ok(self.v.list)
    }

    unsafe fn bytes(self) -> Outcome<Vec<u8>> {
        Ok(self.list()?.bytes())
    }

    unsafe fn nothing(self) -> Outcome<()> {
        self.list().map(|_| ())
    }
}

/// `result<stat, error>`.
#[repr(C)]
struct StatResult {
    is_err: u8,
    v: StatOrError,
}

#[repr(C)]
#[derive(Clone, Copy)]
union StatOrError {
    stat: RawStat,
    error: RawError,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RawStat {
    kind: u8,
    size: u64,
    modified: u64,
}

/// `result<page, error>`.
#[repr(C)]
struct PageResult {
    is_err: u8,
    v: PageOrError,
}

#[repr(C)]
#[derive(Clone, Copy)]
union PageOrError {
    page: RawPage,
    error: RawError,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RawPage {
    items: List,
    next: List,
}

impl PageResult {
    fn room() -> PageResult {
        PageResult { is_err: 0, v: PageOrError { page: RawPage { items: List::NONE, next: List::NONE } } }
    }

    unsafe fn page(self) -> Outcome<Page> {
        if self.is_err != 0 {
            return Err(self.v.error.failure());
        }
        let page = self.v.page;
        let items: Vec<RawItem> = page.items.elements();
        let record = |i: RawItem| Record { key: i.key.text(), value: (i.some != 0).then(|| i.value.bytes()) };
        Ok(Page { records: items.into_iter().map(record).collect(), next: page.next.text() })
    }
}

#[repr(C)]
struct RawEntry {
    name: List,
    kind: u8,
}

#[repr(C)]
struct RawItem {
    key: List,
    some: u8,
    value: List,
}

// The layouts that the ABI gives them; a difference does not compile.
const _: () = {
    assert!(size_of::<ListResult>() == 16);
    assert!(size_of::<StatResult>() == 32);
    assert!(size_of::<PageResult>() == 20);
    assert!(size_of::<RawEntry>() == 12);
    assert!(size_of::<RawItem>() == 20);
};

// ---- Life ----

/// Runs the constructors of the C library and the like.
pub(crate) fn initialize() {
    extern "C" {
        fn __wasm_call_ctors();
    }
    unsafe { __wasm_call_ctors() }
}

// ---- Handles ----

/// Handles are got when first needed and dropped after each entry: a host may initialise
/// a module once, without any context, and copy it. 0 is none; a handle is kept with
/// bit 32 set, since any number may be one.
static HANDLES: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

fn handle(party: Party) -> u32 {
    let held = &HANDLES[party as usize];
    if held.load(Relaxed) == 0 {
        let got = unsafe {
            match party {
                Party::Caller => host_caller(),
                Party::Target => host_target(),
            }
        };
        held.store(1 << 32 | u64::from(got), Relaxed);
    }
    held.load(Relaxed) as u32
}

pub(crate) fn drop_handles() {
    for held in &HANDLES {
        let got = held.swap(0, Relaxed);
        if got != 0 {
            unsafe { host_drop(got as u32) }
        }
    }
}

// ---- Host functions ----

pub(crate) fn id(of: Party) -> String {
    let mut ret = List::NONE;
    unsafe {
        host_id(handle(of), &mut ret);
        ret.text()
    }
}

pub(crate) fn name(of: Party) -> String {
    let mut ret = List::NONE;
    unsafe {
        host_name(handle(of), &mut ret);
        ret.text()
    }
}

pub(crate) fn read(of: Party, path: &str) -> Outcome<Vec<u8>> {
    let mut ret = ListResult::room();
    unsafe {
        host_read(handle(of), path.as_ptr(), path.len(), &mut ret);
        ret.bytes()
    }
}

pub(crate) fn read_at(of: Party, path: &str, offset: u64, length: u32) -> Outcome<Vec<u8>> {
    let mut ret = ListResult::room();
    unsafe {
        host_read_at(handle(of), path.as_ptr(), path.len(), offset, length, &mut ret);
        ret.bytes()
    }
}

pub(crate) fn write(of: Party, path: &str, data: &[u8]) -> Outcome<()> {
    let mut ret = ListResult::room();
    unsafe {
        host_write(handle(of), path.as_ptr(), path.len(), data.as_ptr(), data.len(), &mut ret);
        ret.nothing()
    }
}

pub(crate) fn append(of: Party, path: &str, data: &[u8]) -> Outcome<()> {
    let mut ret = ListResult::room();
    unsafe {
        host_append(handle(of), path.as_ptr(), path.len(), data.as_ptr(), data.len(), &mut ret);
        ret.nothing()
    }
}

pub(crate) fn list(of: Party, path: &str) -> Outcome<Vec<Entry>> {
    let mut ret = ListResult::room();
    unsafe {
        host_list(handle(of), path.as_ptr(), path.len(), &mut ret);
        let entries: Vec<RawEntry> = ret.list()?.elements();
        Ok(entries.into_iter().map(|e| Entry { name: e.name.text(), kind: Kind::from_host(e.kind) }).collect())
    }
}

pub(crate) fn stat(of: Party, path: &str) -> Outcome<Stat> {
    let mut ret = StatResult { is_err: 0, v: StatOrError { stat: RawStat { kind: 0, size: 0, modified: 0 } } };
    unsafe {
        host_stat(handle(of), path.as_ptr(), path.len(), &mut ret);
        if ret.is_err != 0 {
            return Err(ret.v.error.failure());
        }
        let s = ret.v.stat;
        Ok(Stat { kind: Kind::from_host(s.kind), size: s.size, modified: s.modified })
    }
}

pub(crate) fn make_directory(of: Party, path: &str) -> Outcome<()> {
    let mut ret = ListResult::room();
    unsafe {
        host_make_directory(handle(of), path.as_ptr(), path.len(), &mut ret);
        ret.nothing()
    }
}

pub(crate) fn remove(of: Party, path: &str) -> Outcome<()> {
    let mut ret = ListResult::room();
    unsafe {
        host_remove(handle(of), path.as_ptr(), path.len(), &mut ret);
        ret.nothing()
    }
}

pub(crate) fn get_record(of: Party, name: &str, key: &str) -> Outcome<Vec<u8>> {
    let mut ret = ListResult::room();
    unsafe {
        host_get_record(handle(of), name.as_ptr(), name.len(), key.as_ptr(), key.len(), &mut ret);
        ret.bytes()
    }
}

pub(crate) fn put_record(of: Party, name: &str, key: &str, value: &[u8]) -> Outcome<()> {
    let mut ret = ListResult::room();
    let (data, size) = (value.as_ptr(), value.len());
    unsafe {
        host_put_record(handle(of), name.as_ptr(), name.len(), key.as_ptr(), key.len(), data, size, &mut ret);
        ret.nothing()
    }
}

pub(crate) fn delete_record(of: Party, name: &str, key: &str) -> Outcome<()> {
    let mut ret = ListResult::room();
    unsafe {
        host_delete_record(handle(of), name.as_ptr(), name.len(), key.as_ptr(), key.len(), &mut ret);
        ret.nothing()
    }
}

pub(crate) fn list_records(of: Party, name: &str, start: &str, prefix: &str, limit: u32) -> Outcome<Page> {
    let mut ret = PageResult::room();
    unsafe {
        host_list_records(
            handle(of), name.as_ptr(), name.len(), start.as_ptr(), start.len(),
            prefix.as_ptr(), prefix.len(), limit, &mut ret,
        );
        ret.page()
    }
}

pub(crate) fn replace_record(of: Party, name: &str, key: &str, expected: Option<&[u8]>, value: &[u8]) -> Outcome<()> {
    let mut ret = ListResult::room();
    let was = expected.unwrap_or_default();
    unsafe {
        host_replace_record(
            handle(of), name.as_ptr(), name.len(), key.as_ptr(), key.len(),
            expected.is_some().into(), was.as_ptr(), was.len(), value.as_ptr(), value.len(), &mut ret,
        );
        ret.nothing()
    }
}

pub(crate) fn query_records(of: Party, name: &str, query: &str, start: &str, limit: u32) -> Outcome<Page> {
    let mut ret = PageResult::room();
    unsafe {
        host_query_records(
            handle(of), name.as_ptr(), name.len(), query.as_ptr(), query.len(),
            start.as_ptr(), start.len(), limit, &mut ret,
        );
        ret.page()
    }
}

pub(crate) fn send(of: Party, to: &str, logic: &str, entry: &str, params: &[u8]) -> Outcome<Vec<u8>> {
    let mut ret = ListResult::room();
    unsafe {
        host_send(
            handle(of), to.as_ptr(), to.len(), logic.as_ptr(), logic.len(),
            entry.as_ptr(), entry.len(), params.as_ptr(), params.len(), &mut ret,
        );
        ret.bytes()
    }
}

pub(crate) fn call(name: &str, entry: &str, params: &[u8]) -> Outcome<Vec<u8>> {
    let mut ret = ListResult::room();
    let (data, size) = (params.as_ptr(), params.len());
    unsafe {
        host_call(name.as_ptr(), name.len(), entry.as_ptr(), entry.len(), data, size, &mut ret);
        ret.bytes()
    }
}

pub(crate) fn base(entry: &str, params: &[u8]) -> Outcome<Vec<u8>> {
    let mut ret = ListResult::room();
    unsafe {
        host_base(entry.as_ptr(), entry.len(), params.as_ptr(), params.len(), &mut ret);
        ret.bytes()
    }
}

pub(crate) fn entry() -> String {
    let mut ret = List::NONE;
    unsafe {
        host_entry(&mut ret);
        ret.text()
    }
}

pub(crate) fn log(level: Level, message: &str) {
    unsafe { host_log(level as u32, message.as_ptr(), message.len()) }
}
