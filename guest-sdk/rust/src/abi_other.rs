//! In place of the host, where there is none.

use crate::context::Party;
use crate::error::Failure;
use crate::{Code, Entry, Level, Page, Stat};

type Outcome<T> = Result<T, Failure>;

fn none<T>() -> Outcome<T> {
    Err(Failure { code: Code::Unavailable, message: String::new() })
}

pub(crate) fn id(_: Party) -> String {
    String::new()
}
pub(crate) fn name(_: Party) -> String {
    String::new()
}
pub(crate) fn read(_: Party, _: &str) -> Outcome<Vec<u8>> {
    none()
}
pub(crate) fn read_at(_: Party, _: &str, _: u64, _: u32) -> Outcome<Vec<u8>> {
    none()
}
pub(crate) fn write(_: Party, _: &str, _: &[u8]) -> Outcome<()> {
    none()
}
pub(crate) fn append(_: Party, _: &str, _: &[u8]) -> Outcome<()> {
    none()
}
pub(crate) fn list(_: Party, _: &str) -> Outcome<Vec<Entry>> {
    none()
}
pub(crate) fn stat(_: Party, _: &str) -> Outcome<Stat> {
    none()
}
pub(crate) fn make_directory(_: Party, _: &str) -> Outcome<()> {
    none()
}
pub(crate) fn remove(_: Party, _: &str) -> Outcome<()> {
    none()
}
pub(crate) fn get_record(_: Party, _: &str, _: &str) -> Outcome<Vec<u8>> {
    none()
}
pub(crate) fn put_record(_: Party, _: &str, _: &str, _: &[u8]) -> Outcome<()> {
    none()
}
pub(crate) fn delete_record(_: Party, _: &str, _: &str) -> Outcome<()> {
    none()
}
pub(crate) fn list_records(_: Party, _: &str, _: &str, _: &str, _: u32) -> Outcome<Page> {
    none()
}
pub(crate) fn replace_record(_: Party, _: &str, _: &str, _: Option<&[u8]>, _: &[u8]) -> Outcome<()> {
    none()
}
pub(crate) fn query_records(_: Party, _: &str, _: &str, _: &str, _: u32) -> Outcome<Page> {
    none()
}
pub(crate) fn send(_: Party, _: &str, _: &str, _: &str, _: &[u8]) -> Outcome<Vec<u8>> {
    none()
}
pub(crate) fn call(_: &str, _: &str, _: &[u8]) -> Outcome<Vec<u8>> {
    none()
}
pub(crate) fn base(_: &str, _: &[u8]) -> Outcome<Vec<u8>> {
    none()
}
pub(crate) fn entry() -> String {
    String::new()
}
pub(crate) fn log(_: Level, _: &str) {}
pub(crate) fn initialize() {}
pub(crate) fn drop_handles() {}

pub(crate) unsafe fn lift(_: *mut u8, _: usize) -> Vec<u8> {
    Vec::new()
}
