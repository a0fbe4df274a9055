//! What a script can reach: `caller` and `target`, `log`, `modules` and `base`, and
//! what host functions throw.

use crate::json;
use circles::{Code, Context, Kind, Level};
use rhai::{Array, Blob, Dynamic, Engine, EvalAltResult, ImmutableString, Map, Module, Position, FLOAT, INT};
use std::cell::Cell;
use std::fmt;

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// What a host function throws: `err.code` tells them apart, `err.message` is for people.
#[derive(Clone)]
pub struct Failure {
    code: &'static str,
    message: String,
    violations: Array, // of a schema: #{path, reason}
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    fn thrown<T>(code: &'static str, message: impl Into<String>) -> Result<T> {
        Failure { code, message: message.into(), violations: Array::new() }.throw()
    }

    fn throw<T>(self) -> Result<T> {
        Err(EvalAltResult::ErrorRuntime(Dynamic::from(self), Position::NONE).into())
    }
}

fn code(of: Code) -> &'static str {
    match of {
        Code::NotFound => "not-found",
        Code::Denied => "denied",
        Code::Exists => "exists",
        Code::NotDirectory => "not-directory",
        Code::IsDirectory => "is-directory",
        Code::NotEmpty => "not-empty",
        Code::Invalid => "invalid",
        Code::TooLarge => "too-large",
        Code::ReadOnly => "read-only",
        Code::Unavailable => "unavailable",
        Code::Conflict => "conflict",
        Code::Violates => "violates",
        Code::Failed => "failed",
        _ => "io",
    }
}

fn done<T>(outcome: circles::Result<T>) -> Result<T> {
    outcome.or_else(|e| {
        let violation = |v: circles::Violation| map([("path", v.path.into()), ("reason", v.reason.into())]);
        let violations = e.violations().into_iter().map(violation).collect();
        Failure { code: code(e.code), message: e.to_string(), violations }.throw()
    })
}

/// What a script wants instead of what is not there, or an error.
fn or<T: Into<Dynamic>>(outcome: Result<T>, default: Dynamic) -> Result<Dynamic> {
    match outcome {
        Ok(v) => Ok(v.into()),
        Err(e) => match &*e {
            EvalAltResult::ErrorRuntime(v, _) if v.read_lock::<Failure>().is_some_and(|f| f.code == "not-found") => Ok(default),
            _ => Err(e),
        },
    }
}

/// What the value is as the contents of a file.
fn contents(v: Dynamic) -> Result<Vec<u8>> {
    if let Some(text) = json::text(&v) {
        return Ok(text.as_bytes().to_vec());
    }
    match v.try_cast_result::<Blob>() {
        Ok(blob) => Ok(blob),
        Err(_) => Failure::thrown("invalid", "a file is written as text or as a blob; make text of other values with to_string() or to_json(value)"),
    }
}

fn text(of: Vec<u8>, path: &str) -> Result<String> {
    String::from_utf8(of).or_else(|_| Failure::thrown("invalid", format!("{path} is not text in UTF-8; read_blob(path) gives its bytes")))
}

fn encode(v: &Dynamic) -> Result<String> {
    json::encode(v).or_else(|e| Failure::thrown("invalid", e))
}

fn kind(of: Kind) -> &'static str {
    match of {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Link => "link",
        Kind::Other => "other",
    }
}

thread_local! {
    /// Whether the text is being loaded: there is no caller then, and no target.
    pub static LOADING: Cell<bool> = const { Cell::new(false) };
}

/// Every function that asks the host goes through here.
fn reach() -> Result<()> {
    if LOADING.get() {
        return Failure::thrown(
            "unavailable",
            "there is no call yet: what stands outside of functions runs once, when the text is loaded; put this into a function, \
             or write private before each fn, and the whole text is the entry run",
        );
    }
    Ok(())
}

fn log(level: Level, message: &str) -> Result<()> {
    reach()?;
    circles::log(level, message);
    Ok(())
}

/// The methods by name, for whoever got one wrong.
const USAGE: &[(&str, &str)] = &[
    ("read", "read(path), whose result is text, and read(path, default)"),
    ("read_blob", "read_blob(path), and read_blob(path, default)"),
    ("read_at", "read_at(path, offset, length), whose result is a blob"),
    ("write", "write(path, text)"),
    ("append", "append(path, text)"),
    ("list", "list(path) and list(path, default) of a context, list() and list(start, prefix, limit) of records"),
    ("stat", "stat(path), and stat(path, default)"),
    ("remove", "remove(path)"),
    ("make_directory", "make_directory(path)"),
    ("records", "records(collection)"),
    ("get", "get(key), and get(key, default)"),
    ("put", "put(key, value)"),
    ("replace", "replace(key, expected, value)"),
    ("delete", "delete(key)"),
    ("query", "query(query, start, limit), of which the last two may be left out"),
    ("send", "send(to, logic, entry, params)"),
    ("modules.call", "modules.call(name, entry, params), of which the last two may be left out"),
    ("base.call", "base.call(params) and base.call(entry, params)"),
];

pub fn usage(name: &str) -> &'static str {
    USAGE.iter().find(|(known, _)| *known == name).map_or("", |(_, usage)| usage)
}

#[derive(Clone)]
struct Collection {
    context: Context,
    name: ImmutableString,
}

#[derive(Clone)]
struct Log;

#[derive(Clone)]
struct Modules;

#[derive(Clone)]
struct Base;

/// The constants that every script sees.
pub fn constants() -> Module {
    let mut m = Module::new();
    m.set_var("caller", Dynamic::from(circles::caller()));
    m.set_var("target", Dynamic::from(circles::target()));
    m.set_var("log", Dynamic::from(Log));
    m.set_var("modules", Dynamic::from(Modules));
    m.set_var("base", Dynamic::from(Base));
    m
}

pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Failure>("error");
    engine.register_get("code", |e: &mut Failure| e.code);
    engine.register_get("violations", |e: &mut Failure| e.violations.clone());
    engine.register_get("message", |e: &mut Failure| e.message.clone());
    engine.register_fn("to_string", |e: &mut Failure| e.message.clone());
    engine.register_fn("to_debug", |e: &mut Failure| e.message.clone());

    engine.register_type_with_name::<Context>("context");
    engine.register_get("id", |c: &mut Context| reach().map(|()| c.id()));
    engine.register_get("name", |c: &mut Context| reach().map(|()| c.name()));
    engine.register_fn("read", |c: &mut Context, path: &str| text(read(c, path)?, path));
    engine.register_fn("read", |c: &mut Context, path: &str, default: Dynamic| or(read(c, path).and_then(|b| text(b, path)), default));
    engine.register_fn("read_blob", |c: &mut Context, path: &str| read(c, path));
    engine.register_fn("read_blob", |c: &mut Context, path: &str, default: Dynamic| or(read(c, path).map(Dynamic::from_blob), default));
    engine.register_fn("read_at", |c: &mut Context, path: &str, offset: INT, length: INT| {
        reach()?;
        let (Ok(offset), Ok(length)) = (u64::try_from(offset), u32::try_from(length)) else {
            return Failure::thrown("invalid", format!("read {path}: {length} bytes from {offset} are none that a file has"));
        };
        done(c.read_at(path, offset, length))
    });
    engine.register_fn("write", |c: &mut Context, path: &str, data: Dynamic| {
        reach()?;
        done(c.write(path, contents(data)?))
    });
    engine.register_fn("append", |c: &mut Context, path: &str, data: Dynamic| {
        reach()?;
        done(c.append(path, contents(data)?))
    });
    engine.register_fn("list", |c: &mut Context, path: &str| list(c, path));
    engine.register_fn("list", |c: &mut Context, path: &str, default: Dynamic| or(list(c, path), default));
    engine.register_fn("stat", |c: &mut Context, path: &str| stat(c, path));
    engine.register_fn("stat", |c: &mut Context, path: &str, default: Dynamic| or(stat(c, path), default));
    engine.register_fn("remove", |c: &mut Context, path: &str| {
        reach()?;
        done(c.remove(path))
    });
    engine.register_fn("make_directory", |c: &mut Context, path: &str| {
        reach()?;
        done(c.make_directory(path))
    });
    engine.register_fn("records", |c: &mut Context, name: ImmutableString| Collection { context: *c, name });

    engine.register_fn("send", |c: &mut Context, to: &str, logic: &str, entry: &str, params: Dynamic| {
        reach()?;
        done(c.send(to, logic, entry, given(params)?)).map(json::value)
    });

    engine.register_type_with_name::<Collection>("records");
    engine.register_fn("get", |c: &mut Collection, key: &str| get(c, key));
    engine.register_fn("get", |c: &mut Collection, key: &str, default: Dynamic| or(get(c, key), default));
    engine.register_fn("put", |c: &mut Collection, key: &str, value: Dynamic| {
        reach()?;
        done(c.context.collection(&c.name).put(key, record(value)?))
    });
    engine.register_fn("replace", |c: &mut Collection, key: &str, expected: Dynamic, value: Dynamic| {
        reach()?;
        replace(c, key, expected, value)
    });
    engine.register_fn("delete", |c: &mut Collection, key: &str| {
        reach()?;
        done(c.context.collection(&c.name).delete(key))
    });
    engine.register_fn("list", |c: &mut Collection| page(c, "", "", 0));
    engine.register_fn("list", |c: &mut Collection, start: &str, prefix: &str, limit: INT| page(c, start, prefix, limit));

    engine.register_fn("query", |c: &mut Collection, query: Dynamic| queried(c, query, "", 0));
    engine.register_fn("query", |c: &mut Collection, query: Dynamic, start: &str, limit: INT| queried(c, query, start, limit));

    engine.register_type_with_name::<Modules>("modules");
    engine.register_fn("modules.call", |_: &mut Modules, name: &str| call(name, "", Dynamic::UNIT));
    engine.register_fn("modules.call", |_: &mut Modules, name: &str, entry: &str| call(name, entry, Dynamic::UNIT));
    engine.register_fn("modules.call", |_: &mut Modules, name: &str, entry: &str, params: Dynamic| call(name, entry, params));
    engine.register_type_with_name::<Base>("base");
    engine.register_fn("base.call", |_: &mut Base| base("", Dynamic::UNIT));
    engine.register_fn("base.call", |_: &mut Base, params: Dynamic| base("", params));
    engine.register_fn("base.call", |_: &mut Base, entry: &str, params: Dynamic| base(entry, params));

    engine.register_type_with_name::<Log>("log");
    // Rhai gives what a function of this name returns to on_debug.
    engine.register_fn("debug", |_: &mut Log, message: Dynamic| message.to_string());
    engine.register_fn("info", |_: &mut Log, message: Dynamic| log(Level::Info, &message.to_string()));
    engine.register_fn("warn", |_: &mut Log, message: Dynamic| log(Level::Warn, &message.to_string()));
    engine.register_fn("error", |_: &mut Log, message: Dynamic| log(Level::Error, &message.to_string()));
    // Before there is a call there is no log, and what is printed then is lost; on_print
    // cannot fail.
    engine.on_print(|text| drop(log(Level::Info, text)));
    engine.on_debug(|text, _, _| drop(log(Level::Debug, text)));

    // Rhai's own would have the script wait, and be charged for it.
    const NO_SLEEP: &str = "sleep is not to be had; a script ends as soon as it can";
    engine.register_fn("sleep", |_: INT| Failure::thrown::<()>("unavailable", NO_SLEEP));
    engine.register_fn("sleep", |_: FLOAT| Failure::thrown::<()>("unavailable", NO_SLEEP));
    // Rhai's own would ask for more than there are addresses, at which nothing can be said
    // any more. What is less than that runs into the limit of memory.
    engine.register_fn("pad", |a: &mut Array, len: INT, item: Dynamic| {
        let len = size(len)?;
        if a.len() < len {
            a.resize(len, item);
        }
        Ok::<(), Box<EvalAltResult>>(())
    });
    engine.register_fn("pad", |b: &mut Blob, len: INT, byte: INT| {
        let len = size(len)?;
        if b.len() < len {
            b.resize(len, byte as u8);
        }
        Ok::<(), Box<EvalAltResult>>(())
    });
    engine.register_fn("blob", |len: INT| Ok::<Blob, Box<EvalAltResult>>(vec![0; size(len)?]));
    engine.register_fn("blob", |len: INT, byte: INT| Ok::<Blob, Box<EvalAltResult>>(vec![byte as u8; size(len)?]));
    engine.register_fn("to_json", |v: &mut Map| encode(&Dynamic::from_map(std::mem::take(v))));
    engine.register_fn("to_json", |v: Dynamic| encode(&v));
    engine.register_fn("parse_json", |text: &str| json::decode(text).or_else(|e| Failure::thrown("invalid", e)));
}

/// Elements that a script asks for by a number.
fn size(len: INT) -> Result<usize> {
    const MOST: usize = 1 << 26;
    match usize::try_from(len.max(0)) {
        Ok(n) if n <= MOST => Ok(n),
        _ => Failure::thrown("too-large", format!("{len} elements are more than the {MOST} that there may be")),
    }
}

fn map<const N: usize>(of: [(&str, Dynamic); N]) -> Dynamic {
    Dynamic::from_map(of.into_iter().map(|(k, v)| (k.into(), v)).collect())
}

fn read(c: &mut Context, path: &str) -> Result<Vec<u8>> {
    reach()?;
    done(c.read(path))
}

fn list(c: &mut Context, path: &str) -> Result<Array> {
    reach()?;
    let entry = |e: circles::Entry| map([("name", e.name.into()), ("kind", kind(e.kind).into())]);
    Ok(done(c.list(path))?.into_iter().map(entry).collect())
}

fn stat(c: &mut Context, path: &str) -> Result<Dynamic> {
    reach()?;
    let s = done(c.stat(path))?;
    Ok(map([("kind", kind(s.kind).into()), ("size", (s.size as INT).into()), ("modified", (s.modified as INT).into())]))
}

fn get(c: &mut Collection, key: &str) -> Result<Dynamic> {
    reach()?;
    done(c.context.collection(&c.name).get(key)).map(json::value)
}

/// A record is JSON, or the bytes that a blob is.
fn record(value: Dynamic) -> Result<Vec<u8>> {
    match value.try_cast_result::<Blob>() {
        Ok(blob) => Ok(blob),
        Err(value) => encode(&value).map(String::into_bytes),
    }
}

/// Replaces a record that is `expected`, by what that means and not by how it is written:
/// others may have put it with another order of its keys. `()` expects none.
fn replace(c: &mut Collection, key: &str, expected: Dynamic, value: Dynamic) -> Result<()> {
    let of = c.context.collection(&c.name);
    let value = record(value)?;
    if expected.is_unit() {
        return done(of.replace(key, None, value));
    }
    let expected = record(expected)?;
    let same = |is: &Vec<u8>| *is == expected || record(json::value(is.clone())).is_ok_and(|is| is == expected);
    let is = of.get(key).ok().filter(same).unwrap_or(expected);
    done(of.replace(key, Some(&is), value))
}

/// What another module or script is called with.
fn given(params: Dynamic) -> Result<Vec<u8>> {
    json::bytes(params).or_else(|e| Failure::thrown("invalid", e))
}

fn call(name: &str, entry: &str, params: Dynamic) -> Result<Dynamic> {
    reach()?;
    done(circles::call(name, entry, given(params)?)).map(json::value)
}

fn base(entry: &str, params: Dynamic) -> Result<Dynamic> {
    reach()?;
    done(circles::base(entry, given(params)?)).map(json::value)
}

fn limited(limit: INT) -> Result<u32> {
    u32::try_from(limit).or_else(|_| Failure::thrown("invalid", format!("a limit of {limit} is none; 0 is as many as there may be")))
}

fn page(c: &mut Collection, start: &str, prefix: &str, limit: INT) -> Result<Dynamic> {
    reach()?;
    done(c.context.collection(&c.name).page(start, prefix, limited(limit)?)).map(paged)
}

/// A query is JSON, as text or as a map.
fn queried(c: &mut Collection, query: Dynamic, start: &str, limit: INT) -> Result<Dynamic> {
    reach()?;
    let query = match json::text(&query) {
        Some(text) => text.into(),
        None => encode(&query)?,
    };
    done(c.context.collection(&c.name).query_page(&query, start, limited(limit)?)).map(paged)
}

fn paged(page: circles::Page) -> Dynamic {
    let item = |r: circles::Record| map([("key", r.key.into()), ("value", r.value.map_or(Dynamic::UNIT, json::value))]);
    let items: Array = page.records.into_iter().map(item).collect();
    map([("items", items.into()), ("next", page.next.into())])
}
