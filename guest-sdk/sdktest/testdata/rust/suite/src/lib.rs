//! The Rust guest of sdktest's suite, which says what each entry does.

use std::fmt::Write as _;
use std::io::{BufRead, Read, Seek, SeekFrom, Write};

use circles::{Context, Level, Page, Record, Violation, caller, export, log, target};

type Answer = Result<Vec<u8>, String>;

export! {
    "run" => |params| Ok::<_, String>(params),
    "op" => op,
    "record" => record,
    "others" => others,
    "queries" => |_| queries().map_err(|e| e.to_string()),
    "log-lines" => log_lines,
    "fail" => fail,
    "large" => large,
    "habits" => |_| habits().map_err(|e| e.to_string()),
    "raw" => raw,
}

/// The target, or the caller if the word is in capitals.
fn context(word: &str) -> Context {
    if word.starts_with(|c: char| c.is_ascii_uppercase()) { caller() } else { target() }
}

fn text(data: &[u8]) -> String {
    format!("{} {}", data.len(), String::from_utf8_lossy(data))
}

fn answer(result: circles::Result<String>, pass_on: bool) -> Answer {
    match result {
        Ok(text) => Ok(text.into()),
        Err(e) if pass_on => Err(e.to_string()),
        Err(e) => {
            let with = if e.message.is_empty() { "without" } else { "with" };
            let mut out = format!("code {}, {with} a message", e.code as u8);
            for Violation { path, reason } in e.violations() {
                write!(out, "; {path}: {reason}").unwrap();
            }
            Ok(out.into())
        }
    }
}

fn op(params: Vec<u8>) -> Answer {
    let params = String::from_utf8(params).map_err(|e| e.to_string())?;
    let mut words = params.splitn(3, ' ');
    let (op, path, rest) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or(""));
    let of = context(op);
    let result = match op.to_lowercase().as_str() {
        "read" => of.read(path).map(|b| text(&b)),
        "part" => of.read_at(path, rest.parse().unwrap_or(0), 3).map(|b| text(&b)),
        "write" => of.write(path, rest).map(|()| String::new()),
        "append" => of.append(path, rest).map(|()| String::new()),
        "mkdir" => of.make_directory(path).map(|()| String::new()),
        "remove" => of.remove(path).map(|()| String::new()),
        "stat" => of.stat(path).map(|s| format!("kind {} size {} modified {}", s.kind as u8, s.size, s.modified)),
        "list" => of.list(path).map(|l| l.iter().map(|e| format!("{}:{} ", e.name, e.kind as u8)).collect()),
        "who" => Ok(format!("{} {}", of.id(), of.name())),
        _ => return Err("params: no such operation".into()),
    };
    answer(result, rest == "pass on")
}

fn record(params: Vec<u8>) -> Answer {
    let params = String::from_utf8(params).map_err(|e| e.to_string())?;
    let mut words = params.splitn(3, ' ');
    let (op, name, rest) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or(""));
    let of = context(op).collection(name);
    let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
    let result = match op.to_lowercase().as_str() {
        "get" => of.get(key).map(|b| text(&b)),
        "put" => of.put(key, value).map(|()| String::new()),
        "delete" => of.delete(key).map(|()| String::new()),
        "make" => of.replace(key, None, value).map(|()| String::new()),
        "replace" => {
            let (expected, value) = value.split_once(' ').unwrap_or((value, ""));
            of.replace(key, Some(expected.as_bytes()), value).map(|()| String::new())
        }
        "list" => {
            let words: Vec<&str> = rest.split(' ').map(dash).collect();
            of.page(words[0], words[1], words[2].parse().unwrap_or(0)).map(page)
        }
        "query" => {
            let (limit, query) = value.split_once(' ').unwrap_or((value, ""));
            of.query_page(query, dash(key), limit.parse().unwrap_or(0)).map(page)
        }
        _ => return Err("params: no such operation".into()),
    };
    answer(result, false)
}

fn dash(word: &str) -> &str {
    if word == "-" { "" } else { word }
}

fn page(page: Page) -> String {
    let mut out = String::new();
    for Record { key, value } in page.records {
        let value = value.map_or("(denied)".into(), |v| String::from_utf8_lossy(&v).into_owned());
        write!(out, "{key}={value} ").unwrap();
    }
    out + "next:" + &page.next
}

fn others(params: Vec<u8>) -> Answer {
    let params = String::from_utf8(params).map_err(|e| e.to_string())?;
    let mut words: Vec<&str> = params.splitn(5, ' ').collect();
    words.resize(5, "");
    let (name, logic, entry, params) = (words[1], words[2], dash(words[3]), words[4]);
    let result = match words[0].to_lowercase().as_str() {
        "call" => circles::call(name, entry, params).map(|b| text(&b)),
        "base" => circles::base(entry, params).map(|b| text(&b)),
        "send" => context(words[0]).send(name, logic, entry, params).map(|b| text(&b)),
        _ => Ok(circles::entry()),
    };
    answer(result, false)
}

fn queries() -> circles::Result<String> {
    let all = target().collection("found");
    for n in 0..25 {
        all.put(&format!("{n:02}"), format!("{{\"n\":{n}}}"))?;
    }
    let found = |query: &str| -> circles::Result<String> {
        Ok(all.query(query).map(|r| r.map(|r| r.key)).collect::<circles::Result<Vec<_>>>()?.join(" "))
    };
    assert_eq!(found(r#"{"limit": 12}"#)?, "00 01 02 03 04 05 06 07 08 09 10 11");
    let late = r#"{"where": {"and": [{"field": "/n", "from": 5, "below": 20}, {"or": [{"field": "/n", "above": 8}, {"field": "/n", "equals": 6}]}]},
                   "order": [{"field": "/n", "descending": true}], "limit": 12}"#;
    assert_eq!(found(late)?, "19 18 17 16 15 14 13 12 11 10 09 06");
    assert_eq!(found(r#"{"where": {"field": "/n", "prefix": "1"}}"#)?, "");
    assert!(found("no query").is_err());
    Ok("ok".into())
}

fn log_lines(params: Vec<u8>) -> Answer {
    for level in [Level::Debug, Level::Info, Level::Warn, Level::Error] {
        log(level, String::from_utf8_lossy(&params));
    }
    Ok(Vec::new())
}

fn fail(params: Vec<u8>) -> Answer {
    if params == b"trap" {
        panic!("as it was told to");
    }
    Err(String::from_utf8_lossy(&params).into_owned())
}

fn large(params: Vec<u8>) -> Answer {
    const PART: usize = 16 << 20;
    let parts: usize = String::from_utf8_lossy(&params).parse().map_err(|_| "params: want a number")?;
    let byte = |part: usize, i: usize| (i * 7 + i / 251 + part) as u8;
    let mut part = vec![0; PART];
    for n in 0..parts {
        part.iter_mut().enumerate().for_each(|(i, b)| *b = byte(n, i));
        let done = if n == 0 { target().write("/large", &part) } else { target().append("/large", &part) };
        done.map_err(|e| e.to_string())?;
    }
    drop(part);
    let mut total = 0;
    for n in 0..parts {
        let got = target().read_at("/large", (n * PART) as u64, PART as u32).map_err(|e| e.to_string())?;
        if let Some(i) = (0..PART).find(|&i| got.get(i) != Some(&byte(n, i))) {
            return Err(format!("byte {i} of part {n} is another"));
        }
        total += got.len();
    }
    Ok(total.to_string().into())
}

/// What std::io and iterators make of files and records.
fn habits() -> std::io::Result<String> {
    let mut out = target().create("/habits")?;
    for n in 0..100_000 {
        writeln!(out, "line {n}")?;
    }
    drop(out);
    let mut file = target().open("/habits")?;
    let size = file.seek(SeekFrom::End(0))?;
    assert_eq!(size, target().stat("/habits")?.size);
    file.seek(SeekFrom::Start(5))?;
    let mut first = String::new();
    file.read_line(&mut first)?;
    assert_eq!((first.as_str(), file.stream_position()?), ("0\n", 7));
    assert_eq!(file.seek(SeekFrom::Current(5))?, 12);
    for (n, line) in (1..).zip(file.by_ref().lines()) {
        let line = line?;
        let want = format!("line {n}");
        assert!(line == want || n == 1 && line == "1", "{line} is not {want}");
    }
    assert_eq!(file.read(&mut [0; 9])?, 0);
    assert!(file.seek(SeekFrom::Current(-2_000_000)).is_err());
    assert_eq!(target().open("/none").unwrap_err().code, circles::Code::NotFound);
    assert_eq!(target().open("/dir").unwrap_err().code, circles::Code::IsDirectory);
    assert_eq!(std::io::Error::from(target().read("/none").unwrap_err()).kind(), std::io::ErrorKind::NotFound);

    assert_eq!(std::fs::read("/dir/file")?, b"abcdefgh");
    assert_eq!(std::fs::read("/none").unwrap_err().kind(), std::io::ErrorKind::NotFound);

    let many = target().collection("many");
    for n in 0..25 {
        many.put(&format!("{n:02}"), n.to_string())?;
    }
    let mut sum = 0;
    for record in many.iter("1") {
        sum += String::from_utf8_lossy(&record?.value.unwrap()).parse::<u32>().unwrap();
    }
    assert_eq!(sum, (10..20).sum());
    assert!(target().collection("NOT").iter("").next().unwrap().is_err());
    Ok("ok".into())
}

fn raw(params: Vec<u8>) -> Answer {
    #[link(wasm_import_module = "circles:host/contexts@0.1.2")]
    unsafe extern "C" {
        #[link_name = "[method]context.read"]
        fn read(this: u32, path: u32, len: u32, ret: u32);
        #[link_name = "[method]context.list-records"]
        fn list(this: u32, name: u32, len: u32, start: u32, start_len: u32, prefix: u32, prefix_len: u32, limit: u32, ret: u32);
        #[link_name = "[resource-drop]context"]
        fn release(this: u32);
        #[link_name = "target"]
        fn open() -> u32;
    }
    #[link(wasm_import_module = "circles:host/log@0.1.2")]
    unsafe extern "C" {
        #[link_name = "write"]
        fn write(level: u32, message: u32, len: u32);
    }
    let params = String::from_utf8_lossy(&params);
    let mut words = params.split(' ');
    let what = words.next().unwrap_or("");
    let n: Vec<u32> = words.map(|w| w.parse().unwrap()).collect();
    unsafe {
        match what {
            "read" => read(n[0], n[1], n[2], n[3]),
            "list" => list(n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8]),
            "drop" => release(n[0]),
            "log" => write(n[0], n[1], n[2]),
            "open" => (0..n[0]).for_each(|_| _ = open()),
            _ => return Err("params: no such function".into()),
        }
    }
    Ok(Vec::new())
}
