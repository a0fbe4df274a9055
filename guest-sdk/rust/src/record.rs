use crate::abi;
use crate::{Context, Result};

/// The records of one name in a context: values by key, in the order of the bytes of
/// their keys.
///
/// The name is in kebab case and has at most 64 bytes; a key is any text of 1 to 1,024
/// bytes without control characters; a value has at most 1 MiB. A collection is there as
/// long as there are records in it. Values that are JSON are kept as such, for the
/// context's owner to read.
///
/// A script is one transaction: what it gets nobody changes before it puts.
#[derive(Clone, Copy, Debug)]
pub struct Collection<'a> {
    pub(crate) context: Context,
    pub(crate) name: &'a str,
}

/// One record of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is got by.
    pub key: String,
    /// None if the policy lets the script see that there is this record, and not what
    /// is in it.
    pub value: Option<Vec<u8>>,
}

/// Some records of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys, or of the query.
    pub records: Vec<Record>,
    /// Where to go on from, as `start`; empty at the end. Of a query it is for that query.
    pub next: String,
}

impl<'a> Collection<'a> {
    fn subject(self, key: &str) -> String {
        format!("{}/{key}", self.name)
    }

    /// A record's value.
    pub fn get(self, key: &str) -> Result<Vec<u8>> {
        abi::get_record(self.context.0, self.name, key).map_err(|e| e.of("get", self.subject(key)))
    }

    /// Makes a record, or replaces its value.
    pub fn put(self, key: &str, value: impl AsRef<[u8]>) -> Result<()> {
        abi::put_record(self.context.0, self.name, key, value.as_ref()).map_err(|e| e.of("put", self.subject(key)))
    }

    /// Puts a record if its value is `expected`, and for none if there is no such record.
    /// Otherwise it is [`Code::Conflict`], and nothing changes. It is for what a caller read
    /// in an earlier script: within one, get and then put is the same.
    ///
    /// [`Code::Conflict`]: crate::Code::Conflict
    pub fn replace(self, key: &str, expected: Option<&[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        abi::replace_record(self.context.0, self.name, key, expected, value.as_ref())
            .map_err(|e| e.of("replace", self.subject(key)))
    }

    /// Removes a record. One that is not there is [`Code::NotFound`].
    ///
    /// [`Code::NotFound`]: crate::Code::NotFound
    pub fn delete(self, key: &str) -> Result<()> {
        abi::delete_record(self.context.0, self.name, key).map_err(|e| e.of("delete", self.subject(key)))
    }

    /// Records whose keys begin with `prefix` and are not less than `start`; both may be
    /// empty. There are at most `limit` of them, or, with 0, as many as the host gives at
    /// once.
    pub fn page(self, start: &str, prefix: &str, limit: u32) -> Result<Page> {
        abi::list_records(self.context.0, self.name, start, prefix, limit).map_err(|e| e.of("list", self.name))
    }

    /// The records whose keys begin with `prefix`, a page at a time: what is put or
    /// deleted meanwhile may be among them, or not. An error is the last item.
    pub fn iter(self, prefix: &'a str) -> Records<'a> {
        Records { of: self, which: Which::Prefix(prefix), page: Vec::new().into_iter(), next: Some(String::new()) }
    }

    /// A page of the records that a query is true of, a JSON text that host.wit describes.
    /// `start` is empty, or the `next` of the page before.
    pub fn query_page(self, query: &str, start: &str, limit: u32) -> Result<Page> {
        abi::query_records(self.context.0, self.name, query, start, limit).map_err(|e| e.of("query", self.name))
    }

    /// The records that a query is true of, a page at a time. A query is a JSON text, or
    /// whatever shows as one:
    ///
    /// ```
    /// let late = r#"{"where": {"field": "/starts", "from": "18:00"}, "order": [{"field": "/starts"}]}"#;
    /// for record in circles::target().collection("bookings").query(late) {
    ///     // record?.key
    /// #   assert!(record.is_err());
    /// }
    /// ```
    ///
    /// With serde_json that is `.query(json!({"where": {"field": "/starts", "from": now}}))`.
    pub fn query(self, query: impl ToString) -> Records<'a> {
        Records { of: self, which: Which::Query(query.to_string()), page: Vec::new().into_iter(), next: Some(String::new()) }
    }
}

/// What [`Collection::iter`] and [`Collection::query`] return.
pub struct Records<'a> {
    of: Collection<'a>,
    which: Which<'a>,
    page: std::vec::IntoIter<Record>,
    next: Option<String>, // None at the end
}

enum Which<'a> {
    Prefix(&'a str),
    Query(String),
}

impl Iterator for Records<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        loop {
            if let Some(record) = self.page.next() {
                return Some(Ok(record));
            }
            let start = self.next.take()?;
            let page = match &self.which {
                Which::Prefix(prefix) => self.of.page(&start, prefix, 0),
                Which::Query(query) => self.of.query_page(query, &start, 0),
            };
            match page {
                Ok(page) => {
                    self.page = page.records.into_iter();
                    self.next = Some(page.next).filter(|key| !key.is_empty());
                }
                Err(e) => return Some(Err(e)),
            }
        }
    }
}
