use std::fmt;
use std::io;

/// What the operations of a context return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a context did not do what it was asked. As a [`std::io::Error`], into which it
/// converts, it has the kind that its code says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Tells errors apart.
    pub code: Code,
    /// What was tried: "read", "put".
    pub operation: &'static str,
    /// On what: a path, or a record as "COLLECTION/KEY".
    pub subject: String,
    /// A sentence by the host, for the person who reads the receipt.
    pub message: String,
}

impl Error {
    /// In which ways a value is not as its collection's schema says, of an error of
    /// [`Code::Violates`]; none of any other.
    pub fn violations(&self) -> Vec<Violation> {
        if self.code != Code::Violates {
            return Vec::new();
        }
        let lines = self.message.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(path, _)| path.is_empty() || path.starts_with('/'))
            .map(|(path, reason)| Violation { path: path.into(), reason: reason.into() })
            .collect()
    }
}

/// One way in which a value is not as its collection's schema says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where in the value, a JSON Pointer (RFC 6901); empty for all of it.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A host that names the path in its sentence has said what was tried too.
        if self.message.is_empty() {
            write!(f, "{} {}: {}", self.operation, self.subject, self.code)
        } else if self.message.contains(&self.subject) {
            f.write_str(&self.message)
        } else {
            write!(f, "{} {}: {}", self.operation, self.subject, self.message)
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(e: Error) -> io::Error {
        io::Error::new(e.code.kind(), e)
    }
}

/// What it says, so that `?` works in entries whose errors are text.
impl From<Error> for String {
    fn from(e: Error) -> String {
        e.to_string()
    }
}

/// Tells errors apart; `contexts.error-code` in host.wit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Code {
    /// No such file, directory or record, or one that the policy hides.
    NotFound,
    /// The policy of the context's owner does not allow it.
    Denied,
    /// There is something with that name.
    Exists,
    /// A path component is not a directory, or a file was expected.
    NotDirectory,
    /// A directory, where a file was expected.
    IsDirectory,
    /// A directory that has entries.
    NotEmpty,
    /// A path or argument that can never be right.
    Invalid,
    /// More than a limit or quota allows.
    TooLarge,
    /// The context cannot be changed by this script; the caller's never can.
    ReadOnly,
    /// The context's host cannot be reached now, or there is no host.
    Unavailable,
    /// The host failed; its own log says more.
    Io,
    /// The record is not as it was expected to be.
    Conflict,
    /// A value is not as the collection's schema says; [`Error::violations`] say where.
    Violates,
    /// The module or script that was called failed; the message is its own.
    Failed,
}

impl Code {
    const ALL: [Code; 14] = [
        Code::NotFound,
        Code::Denied,
        Code::Exists,
        Code::NotDirectory,
        Code::IsDirectory,
        Code::NotEmpty,
        Code::Invalid,
        Code::TooLarge,
        Code::ReadOnly,
        Code::Unavailable,
        Code::Io,
        Code::Conflict,
        Code::Violates,
        Code::Failed,
    ];

    /// Of the number that the host has for it. A host of this version sends no other.
    #[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
    pub(crate) fn from_host(n: u8) -> Code {
        Code::ALL.get(n as usize).copied().unwrap_or(Code::Io)
    }

    /// The closest that [`std::io`] has.
    pub fn kind(self) -> io::ErrorKind {
        match self {
            Code::NotFound => io::ErrorKind::NotFound,
            Code::Denied => io::ErrorKind::PermissionDenied,
            Code::Exists => io::ErrorKind::AlreadyExists,
            Code::NotDirectory => io::ErrorKind::NotADirectory,
            Code::IsDirectory => io::ErrorKind::IsADirectory,
            Code::NotEmpty => io::ErrorKind::DirectoryNotEmpty,
            Code::Invalid => io::ErrorKind::InvalidInput,
            Code::TooLarge => io::ErrorKind::QuotaExceeded,
            Code::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            Code::Unavailable => io::ErrorKind::HostUnreachable,
            Code::Violates => io::ErrorKind::InvalidData,
            Code::Io | Code::Conflict | Code::Failed => io::ErrorKind::Other,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Code::NotFound => "not found",
            Code::Denied => "denied",
            Code::Exists => "exists",
            Code::NotDirectory => "not a directory",
            Code::IsDirectory => "is a directory",
            Code::NotEmpty => "not empty",
            Code::Invalid => "invalid",
            Code::TooLarge => "too large",
            Code::ReadOnly => "read-only",
            Code::Unavailable => "unavailable",
            Code::Io => "input/output error",
            Code::Conflict => "conflict",
            Code::Violates => "violates the schema",
            Code::Failed => "failed",
        })
    }
}

/// A host function's error, before it is said what was tried.
pub(crate) struct Failure {
    pub code: Code,
    pub message: String,
}

impl Failure {
    pub(crate) fn of(self, operation: &'static str, subject: impl Into<String>) -> Error {
        Error { code: self.code, operation, subject: subject.into(), message: self.message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_what_they_are_to_the_host() {
        for (n, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, n);
            assert_eq!(Code::from_host(n as u8), code);
        }
        assert_eq!(Code::from_host(14), Code::Io);
    }

    #[test]
    fn violations_are_lines_that_begin_with_where() {
        let message = "cannot put record c/k:\n/seats/0: not a number: \"two\"\n: no object\nno pointer: said";
        let e = |code| Failure { code, message: message.into() }.of("put", "c/k");
        let v = |path: &str, reason: &str| Violation { path: path.into(), reason: reason.into() };
        assert_eq!(e(Code::Violates).violations(), [v("/seats/0", "not a number: \"two\""), v("", "no object")]);
        assert_eq!(e(Code::Invalid).violations(), []);
    }

    #[test]
    fn an_error_says_what_was_tried_once() {
        let e = |message: &str| Failure { code: Code::NotFound, message: message.into() }.of("read", "/a");
        assert_eq!(e("").to_string(), "read /a: not found");
        assert_eq!(e("there is no such file").to_string(), "read /a: there is no such file");
        assert_eq!(e("there is no /a").to_string(), "there is no /a");
        let e: io::Error = e("").into();
        assert_eq!((e.kind(), e.to_string()), (io::ErrorKind::NotFound, "read /a: not found".into()));
    }
}
