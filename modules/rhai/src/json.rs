//! JSON and the values of Rhai. Whole numbers stay 64 bits wide; an object becomes a
//! map, whose keys Rhai keeps in their order.

use rhai::{Array, Blob, Dynamic, ImmutableString, Map, FLOAT, INT};
use std::fmt::Write;

/// Arrays and objects within each other, in and out; what reads and writes them
/// is recursive.
const MAX_DEPTH: usize = 100;

/// What bytes from outside are to a script: the value if they are JSON, else text, else a
/// blob; and `()` if there are none.
pub fn value(bytes: Vec<u8>) -> Dynamic {
    if bytes.is_empty() {
        return Dynamic::UNIT;
    }
    match String::from_utf8(bytes) {
        Ok(text) => decode(&text).unwrap_or_else(|_| text.into()),
        Err(e) => Dynamic::from_blob(e.into_bytes()),
    }
}

/// The bytes of a result or of params: text and blobs as they are, nothing of `()`, and
/// anything else as JSON.
pub fn bytes(v: Dynamic) -> Result<Vec<u8>, String> {
    if v.is_unit() {
        return Ok(Vec::new());
    }
    if let Some(text) = text(&v) {
        return Ok(text.as_bytes().to_vec());
    }
    match v.try_cast_result::<Blob>() {
        Ok(blob) => Ok(blob),
        Err(v) => encode(&v).map(String::into_bytes),
    }
}

/// The text that a value is.
pub fn text(v: &Dynamic) -> Option<ImmutableString> {
    v.is_string().then(|| v.clone().into_immutable_string().unwrap_or_default())
}

pub fn encode(v: &Dynamic) -> Result<String, String> {
    let mut out = String::new();
    put(&mut out, v, 0)?;
    Ok(out)
}

fn put(out: &mut String, v: &Dynamic, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("the value has more than {MAX_DEPTH} arrays and maps within each other, which JSON here may not have"));
    }
    if v.is_unit() {
        out.push_str("null");
    } else if let Ok(b) = v.as_bool() {
        out.push_str(if b { "true" } else { "false" });
    } else if let Ok(n) = v.as_int() {
        let _ = write!(out, "{n}");
    } else if let Ok(x) = v.as_float() {
        if !x.is_finite() {
            return Err(format!("{x} is not a number that JSON has"));
        }
        let _ = write!(out, "{x:?}");
    } else if let Some(s) = text(v) {
        put_string(out, &s);
    } else if let Ok(c) = v.as_char() {
        put_string(out, c.encode_utf8(&mut [0; 4]));
    } else if let Some(list) = v.read_lock::<Array>() {
        out.push('[');
        for (i, v) in list.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            put(out, v, depth + 1)?;
        }
        out.push(']');
    } else if let Some(map) = v.read_lock::<Map>() {
        out.push('{');
        for (i, (k, v)) in map.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            put_string(out, k);
            out.push(':');
            put(out, v, depth + 1)?;
        }
        out.push('}');
    } else if v.is_blob() {
        return Err("a blob has no form in JSON; make text of it with as_string(), or an array with to_array()".into());
    } else {
        return Err(format!("{} has no form in JSON; take what you need of it", crate::report::type_name(v)));
    }
    Ok(())
}

fn put_string(out: &mut String, s: &str) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Reads JSON as RFC 8259 has it, without objects that have a key twice: of these others may
/// take the one value, and others the other.
pub fn decode(text: &str) -> Result<Dynamic, String> {
    let mut r = Reader { s: text.as_bytes(), text, at: 0 };
    let v = r.value(0)?;
    r.blanks();
    if r.at < r.s.len() {
        return r.wrong("the value ends before");
    }
    Ok(v)
}

struct Reader<'a> {
    s: &'a [u8],
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn wrong<T>(&self, what: &str) -> Result<T, String> {
        Err(format!("this is not JSON: at byte {}, {what}", self.at + 1))
    }

    fn blanks(&mut self) {
        while matches!(self.s.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, c: u8) -> bool {
        self.blanks();
        let is = self.s.get(self.at) == Some(&c);
        self.at += usize::from(is);
        is
    }

    fn value(&mut self, depth: usize) -> Result<Dynamic, String> {
        if depth > MAX_DEPTH {
            return self.wrong("arrays and objects are too deep within each other");
        }
        self.blanks();
        match self.s.get(self.at) {
            Some(b'{') => {
                self.at += 1;
                let mut map = Map::new();
                if !self.eat(b'}') {
                    loop {
                        self.blanks();
                        let key = self.string()?;
                        if !self.eat(b':') {
                            return self.wrong("a colon is missing");
                        }
                        if map.insert(key.as_str().into(), self.value(depth + 1)?).is_some() {
                            return self.wrong("a key is there twice before");
                        }
                        if self.eat(b'}') {
                            break;
                        }
                        if !self.eat(b',') {
                            return self.wrong("a comma or } is missing");
                        }
                    }
                }
                Ok(map.into())
            }
            Some(b'[') => {
                self.at += 1;
                let mut list = Array::new();
                if !self.eat(b']') {
                    loop {
                        list.push(self.value(depth + 1)?);
                        if self.eat(b']') {
                            break;
                        }
                        if !self.eat(b',') {
                            return self.wrong("a comma or ] is missing");
                        }
                    }
                }
                Ok(Dynamic::from_array(list))
            }
            Some(b'"') => Ok(self.string()?.into()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                for (word, v) in [("true", Dynamic::TRUE), ("false", Dynamic::FALSE), ("null", Dynamic::UNIT)] {
                    if self.s[self.at..].starts_with(word.as_bytes()) {
                        self.at += word.len();
                        return Ok(v);
                    }
                }
                self.wrong("there is no value")
            }
        }
    }

    fn digits(&mut self) -> bool {
        let from = self.at;
        while matches!(self.s.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at > from
    }

    fn number(&mut self) -> Result<Dynamic, String> {
        let from = self.at;
        self.at += usize::from(self.s[self.at] == b'-');
        let zero = self.s.get(self.at) == Some(&b'0');
        let first = self.at;
        if !self.digits() || (zero && self.at > first + 1) {
            return self.wrong("a number is not as JSON has it");
        }
        let mut whole = true;
        if self.s.get(self.at) == Some(&b'.') {
            self.at += 1;
            whole = false;
            if !self.digits() {
                return self.wrong("a number is not as JSON has it");
            }
        }
        if matches!(self.s.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            whole = false;
            if matches!(self.s.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.digits() {
                return self.wrong("a number is not as JSON has it");
            }
        }
        let s = &self.text[from..self.at];
        if whole {
            if let Ok(n) = s.parse::<INT>() {
                return Ok(n.into());
            }
        }
        match s.parse::<FLOAT>() {
            Ok(x) if x.is_finite() => Ok(x.into()),
            _ => self.wrong("a number is too large"),
        }
    }

    fn hex4(&mut self) -> Option<u32> {
        let s = self.s.get(self.at..self.at + 4)?;
        self.at += 4;
        s.iter().try_fold(0, |v, c| Some(v << 4 | (*c as char).to_digit(16)?))
    }

    fn string(&mut self) -> Result<String, String> {
        if self.s.get(self.at) != Some(&b'"') {
            return self.wrong("a text is missing");
        }
        self.at += 1;
        let mut out = String::new();
        loop {
            let from = self.at;
            while !matches!(self.s.get(self.at), None | Some(b'"' | b'\\' | 0..=0x1F)) {
                self.at += 1;
            }
            out.push_str(&self.text[from..self.at]);
            match self.s.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {}
                _ => return self.wrong("a text does not end, or has a control character in it"),
            }
            self.at += 2;
            match self.s.get(self.at - 1) {
                Some(c @ (b'"' | b'\\' | b'/')) => out.push(*c as char),
                Some(b'b') => out.push('\x08'),
                Some(b'f') => out.push('\x0C'),
                Some(b'n') => out.push('\n'),
                Some(b'r') => out.push('\r'),
                Some(b't') => out.push('\t'),
                Some(b'u') => {
                    let mut unit = self.hex4();
                    if let Some(high @ 0xD800..=0xDBFF) = unit {
                        unit = None;
                        if self.s[self.at..].starts_with(b"\\u") {
                            self.at += 2;
                            if let Some(low @ 0xDC00..=0xDFFF) = self.hex4() {
                                unit = Some(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
                            }
                        }
                    }
                    match unit.and_then(char::from_u32) {
                        Some(c) => out.push(c),
                        None => return self.wrong("an escape is not that of a character"),
                    }
                }
                _ => return self.wrong("an escape is not one of JSON's"),
            }
        }
    }
}
