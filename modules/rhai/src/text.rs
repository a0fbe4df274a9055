//! A text, from its bytes to the result of a call.

use crate::objects::{self, LOADING};
use crate::{json, report};
use rhai::{CallFnOptions, Dynamic, Engine, FnAccess, Module, Position, Scope, Token, AST};
use std::cell::Cell;
use std::mem::ManuallyDrop;

/// Expressions and blocks within each other, of which the parser makes calls of its own
/// within each other.
const MAX_NESTING: usize = 400;
/// Calls of functions within each other.
const MAX_CALLS: usize = 1000;
/// What is left of the stack for what a single operation takes. The stack that the
/// linker makes is 1 MiB: build.sh.
const MAX_STACK: usize = 1400 << 10;
/// Steps that loading a text may take, some tenth of a second.
const MAX_LOADING: u64 = 1_000_000;

thread_local! {
    /// Where the stack was when the call began. It grows downwards.
    static STACK: Cell<usize> = const { Cell::new(0) };
}

#[inline(never)]
fn here() -> usize {
    let mark = 0u8;
    std::hint::black_box(&raw const mark) as usize
}

pub struct Language {
    engine: Engine,
}

impl Language {
    pub fn new() -> Language {
        let mut engine = Engine::new();
        engine.set_strict_variables(true);
        engine.set_max_expr_depths(MAX_NESTING, MAX_NESTING);
        engine.set_max_call_levels(MAX_CALLS);
        engine.disable_symbol("eval"); // what runs is what the owner has read
        engine.on_progress(|_| (STACK.get().saturating_sub(here()) > MAX_STACK).then(|| report::TOO_DEEP.into()));
        let before = Cell::new(Before::Other);
        #[allow(deprecated)] // which says that it is not
        engine.on_parse_token(move |token, _, _| {
            let after = before.get();
            before.set(match (&token, after) {
                (Token::Identifier(word), _) if **word == "modules" => Before::Module("modules.call"),
                (Token::Identifier(word), _) if **word == "base" => Before::Module("base.call"),
                (Token::Period, Before::Module(call)) => Before::Dot(Some(call)),
                (Token::Period | Token::Elvis, _) => Before::Dot(None),
                _ => Before::Other,
            });
            match (token, after) {
                (Token::Reserved(word), Before::Dot(Some(call))) if *word == "call" => Token::Identifier(Box::new(call.into())),
                (Token::Reserved(word), Before::Dot(_)) if is_name(&word) => Token::Identifier(word),
                (token, _) => token,
            }
        });
        objects::register(&mut engine);
        engine.register_global_module(objects::constants().into());
        Language { engine }
    }

    /// Parses a text. An error has lines "LINE:COLUMN: message".
    pub fn load(self, source: Vec<u8>) -> Result<Text, String> {
        let mut engine = self.engine;
        let source = String::from_utf8(source).map_err(|e| {
            let good = String::from_utf8_lossy(&e.as_bytes()[..e.utf8_error().valid_up_to()]);
            report::at(position(&good, good.len()), "this is not UTF-8; save it as UTF-8")
        })?;
        // Once to find its constants, and then with these, so that a name that is nowhere
        // is found now and not in a call.
        engine.set_strict_variables(false);
        let ast = engine.compile(&source).map_err(|e| report::parse(&e))?;
        engine.set_strict_variables(true);
        // Rhai takes what the text ends within for a comment that ends there.
        if let Some(at) = source.rfind("/*") {
            if engine.compile(format!("{source}\n)")).is_ok() {
                return Err(report::at(position(&source, at), "the text ends within a comment; end that with */"));
            }
        }
        let entries = entries(&ast, &source)?;
        let mut constants = Scope::new();
        if entries.is_empty() {
            for (name, _, value) in ast.iter_literal_variables(true, false) {
                constants.push_constant_dynamic(name, value);
            }
        } else {
            LOADING.set(true);
            STACK.set(here());
            engine.set_max_operations(MAX_LOADING);
            let done = engine.run_ast_with_scope(&mut constants, &ast);
            engine.set_max_operations(0);
            LOADING.set(false);
            done.map_err(|e| report::run(&e))?;
        }
        let mut known = Scope::new();
        let mut globals = Module::new();
        for (name, _, value) in constants.iter() {
            if entries.is_empty() {
                known.push_constant_dynamic(name, value.clone());
            } else {
                known.push_dynamic(name, value.clone());
            }
            globals.set_var(name, value);
        }
        engine.register_global_module(globals.into());
        for name in ["caller", "target", "params", "log", "modules", "base"] {
            known.push_dynamic(name, Dynamic::UNIT);
        }
        let ast = engine.compile_with_scope(&known, &source).map_err(|e| report::parse(&e))?;
        Ok(Text { engine, ast, entries })
    }
}

/// What a word stands after.
#[derive(Clone, Copy)]
enum Before {
    Other,
    /// modules or base, whose call Rhai would take for the one of a function, and which
    /// have this instead.
    Module(&'static str),
    /// A dot, of these.
    Dot(Option<&'static str>),
}

/// Whether a word that Rhai keeps for itself, most of them for some day to come, may be a
/// name after a dot: there is log.debug, and JSON has keys like new and default.
fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase()) && !matches!(word, "call" | "curry" | "is_shared" | "type_of" | "this")
}

struct Entry {
    name: String,     // sign-book
    function: String, // sign_book
    takes: usize,     // parameters: 1 or none
}

/// The position of a byte. One beyond what Rhai can count to is none.
fn position(source: &str, at: usize) -> Position {
    let before = &source[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    match (u16::try_from(line), u16::try_from(column)) {
        (Ok(line), Ok(column)) => Position::new(line, column),
        _ => Position::NONE,
    }
}

/// Where a function is defined, as far as a look at the text tells.
fn defined(source: &str, function: &str) -> Position {
    let mut found = source.match_indices(function).map(|(at, _)| at);
    found.find(|at| source[..*at].trim_end().ends_with("fn")).map_or(Position::NONE, |at| position(source, at))
}

/// The functions that are entries.
fn entries(ast: &AST, source: &str) -> Result<Vec<Entry>, String> {
    let mut all: Vec<Entry> = Vec::new();
    for f in ast.iter_functions() {
        if f.access == FnAccess::Private || f.params.len() > 1 || f.this_type.is_some() || f.name.starts_with("anon$") {
            continue;
        }
        let words = || f.name.split('_');
        if words().any(|w| !w.starts_with(|c: char| c.is_ascii_lowercase()) || !w.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())) {
            return Err(report::at(
                defined(source, f.name),
                &format!("{} is not a name for an entry, which has lower-case words with _ between them, as in sign_book; or write private fn", f.name),
            ));
        }
        if all.iter().any(|e| e.function == f.name) {
            return Err(report::at(defined(source, f.name), &format!("the entry {} is there twice, with a parameter and without; write private fn for one, or name it otherwise", f.name)));
        }
        all.push(Entry { name: f.name.replace('_', "-"), function: f.name.into(), takes: f.params.len() });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// A text that has been loaded.
pub struct Text {
    engine: Engine,
    ast: AST,
    entries: Vec<Entry>, // none: the whole text is the entry run
}

impl Text {
    /// `{"entries":["run"]}`
    pub fn describe(&self) -> String {
        let names: rhai::Array = match self.entries.is_empty() {
            true => vec!["run".into()],
            false => self.entries.iter().map(|e| e.name.as_str().into()).collect(),
        };
        format!("{{\"entries\":{}}}", json::encode(&names.into()).unwrap_or_default())
    }

    pub fn call(&mut self, entry: &str, params: Vec<u8>) -> Result<Vec<u8>, String> {
        let params = json::value(params);
        STACK.set(here());
        let mut scope = ManuallyDrop::new(Scope::new());
        let result = if self.entries.is_empty() {
            if entry != "run" {
                return Err(format!("the script has no entry {entry}; it is one text, whose entry is run"));
            }
            scope.push_dynamic("params", params);
            self.engine.eval_ast_with_scope::<Dynamic>(&mut scope, &self.ast)
        } else {
            let Some(e) = self.entries.iter().find(|e| e.name == entry) else {
                let names: Vec<_> = self.entries.iter().map(|e| e.name.as_str()).collect();
                return Err(format!("the script has no entry {entry}; it has {}", names.join(", ")));
            };
            let mut given = Module::new();
            given.set_var("params", params.clone());
            self.engine.register_global_module(given.into());
            let args = if e.takes == 1 { vec![params] } else { Vec::new() };
            let options = CallFnOptions::new().eval_ast(false);
            self.engine.call_fn_with_options::<Dynamic>(options, &mut scope, &self.ast, &e.function, args)
        };
        match result {
            Ok(v) => json::bytes(v).map_err(|e| format!("the result: {e}")),
            Err(e) => Err(report::run(&e)),
        }
    }
}
