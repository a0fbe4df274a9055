//! What people are told: "LINE:COLUMN: what happened; what to do about it", and a
//! line for each call on the way there.

use crate::objects::{self, Failure};
use rhai::{Dynamic, EvalAltResult, LexError, ParseError, ParseErrorType, Position};
use std::fmt::Write;

/// Calls that an error names, the innermost.
const MAX_FRAMES: usize = 6;

/// The error of a run.
///
/// A text that is thrown is the script's own sentence for whoever sent it, and stays
/// as it is.
pub fn run(error: &EvalAltResult) -> String {
    let mut calls = Vec::new();
    let mut inner = error;
    while let EvalAltResult::ErrorInFunctionCall(name, _, cause, at) = inner {
        calls.push((name.as_str(), *at));
        inner = cause;
    }
    if let EvalAltResult::ErrorRuntime(thrown, _) = inner {
        if let Some(sentence) = crate::json::text(thrown) {
            return sentence.into();
        }
    }
    let mut out = at(inner.position(), &what(inner));
    for (name, position) in calls.iter().rev().take(MAX_FRAMES) {
        let name = if name.starts_with("anon$") { "a closure" } else { name };
        let _ = write!(out, "\n{}", at(*position, &format!("called {name}")));
    }
    if calls.len() > MAX_FRAMES {
        let _ = write!(out, "\nand {} calls before", calls.len() - MAX_FRAMES);
    }
    out
}

/// The error of a text that cannot be parsed.
pub fn parse(error: &ParseError) -> String {
    at(error.1, &syntax(&error.0))
}

/// Puts a position before a sentence. An error that has none is one of the whole.
pub fn at(position: Position, what: &str) -> String {
    format!("{}:{}: {what}", position.line().unwrap_or(1), position.position().unwrap_or(1))
}

pub fn type_name(v: &Dynamic) -> &'static str {
    match v.type_name() {
        "rhai::types::fn_ptr::FnPtr" | "Fn" => "a function",
        name if name.contains("Context") => "a context",
        name if name.contains("Collection") => "a collection",
        name if name.contains("Failure") => "an error",
        name if name.contains("objects::") => "this object",
        name if name.contains("ange") => "a range",
        _ => "this value",
    }
}

fn what(error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorRuntime(thrown, _) => match thrown.read_lock::<Failure>() {
            Some(failure) => failure.to_string(),
            None if thrown.is_unit() => "the script threw an error without a word".into(),
            None => match crate::json::encode(thrown) {
                Ok(text) => format!("the script threw {text}"),
                Err(_) => format!("the script threw {}", type_name(thrown)),
            },
        },
        EvalAltResult::ErrorTerminated(reason, _) => reason.to_string(),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => {
            let signature = signature.replace("&str | ImmutableString | String", "string");
            let name = signature.split(" (").next().unwrap_or_default();
            let known = objects::usage(name);
            if known.is_empty() {
                format!("there is no function {signature}; look at the name, and at the number and types of what it is given")
            } else {
                format!("there is no function {signature}; there is {known}")
            }
        }
        EvalAltResult::ErrorVariableNotFound(name, _) => undefined(name),
        EvalAltResult::ErrorStackOverflow(_) => TOO_DEEP.into(),
        EvalAltResult::ErrorTooManyOperations(_) => {
            "what stands outside of functions computes for too long; it runs when the text is loaded, so put it into a function".into()
        }
        EvalAltResult::ErrorParsing(kind, _) => syntax(kind),
        other => {
            // Without the position that it ends with.
            let mut text = other.to_string();
            if !other.position().is_none() {
                if let Some(n) = text.rfind(" (line ") {
                    text.truncate(n);
                }
            }
            // How a property is missing, in Rhai's terms, helps those alone who know Rhai's inside.
            match text.split_once(" - a getter is not registered for type ") {
                Some((what, of)) => format!("{} of a value of type {of}", lower(what.into())),
                None => lower(text),
            }
        }
    }
}

pub const TOO_DEEP: &str = "the calls are too deep within each other; a recursion has to end, or be written as a loop";

fn undefined(name: &str) -> String {
    format!(
        "there is no {name} here; declare it with let, or as a parameter: what else a function sees are the constants \
         (const) at the top level, and caller, target, params, log, modules and base"
    )
}

fn syntax(kind: &ParseErrorType) -> String {
    match kind {
        ParseErrorType::VariableUndefined(name) => undefined(name),
        ParseErrorType::ExprTooDeep => "this is too deep within other expressions and blocks; give parts of it to variables or functions".into(),
        ParseErrorType::BadInput(LexError::ImproperSymbol(word, _)) if word == "eval" => {
            "eval is not to be had: what runs is what the owner of the context can read".into()
        }
        ParseErrorType::Reserved(word) if word == "import" || word == "export" => {
            format!("{word} is not to be had, a text is on its own; modules.call(name, entry, params) calls another module")
        }
        ParseErrorType::Reserved(word) => format!("{word} is a word that Rhai keeps for itself; take another"),
        other => lower(other.to_string()),
    }
}

/// Rhai begins its sentences in upper case; ours stand after a colon.
fn lower(mut text: String) -> String {
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}
