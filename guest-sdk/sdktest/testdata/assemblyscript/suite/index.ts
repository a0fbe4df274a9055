// The AssemblyScript guest of sdktest's suite, which says what each entry does.
import { Answer, base, bytes, call, caller, Code, Context, entry, Failure, handle, Kind, Level, log, Page, Result, target, text } from "./circles";

export function run(ptr: usize, len: usize): usize {
  return handle(ptr, len, (params: Uint8Array): Answer => Answer.bytes(params));
}

export function op(ptr: usize, len: usize): usize {
  return handle(ptr, len, operation);
}

export function record(ptr: usize, len: usize): usize {
  return handle(ptr, len, onRecord);
}

export function others(ptr: usize, len: usize): usize {
  return handle(ptr, len, onOthers);
}

export function queries(ptr: usize, len: usize): usize {
  return handle(ptr, len, (params: Uint8Array): Answer => {
    const wrong = querying();
    return Answer.text(wrong ? wrong : "ok");
  });
}

export function logLines(ptr: usize, len: usize): usize {
  return handle(ptr, len, (params: Uint8Array): Answer => {
    for (let level = Level.Debug; level <= Level.Error; level++) log(level, text(params));
    return Answer.text("");
  });
}

export function fail(ptr: usize, len: usize): usize {
  return handle(ptr, len, (params: Uint8Array): Answer => {
    if (text(params) == "trap") throw new Error("as it was told to");
    return Answer.fail(text(params));
  });
}

export function large(ptr: usize, len: usize): usize {
  return handle(ptr, len, largeFile);
}

export function habits(ptr: usize, len: usize): usize {
  return handle(ptr, len, (params: Uint8Array): Answer => {
    const wrong = habit();
    return Answer.text(wrong ? wrong : "ok");
  });
}

export function raw(ptr: usize, len: usize): usize {
  return handle(ptr, len, byHand);
}

// The target, or the caller if the word is in capitals.
function contextOf(word: string): Context {
  return word.charCodeAt(0) < 97 ? caller() : target();
}

function passed(failure: Failure, passOn: bool): Answer {
  if (passOn) return Answer.of(failure);
  let out = "code " + (<i32>failure.code).toString() + ", " + (failure.message.length ? "with" : "without") + " a message";
  const wrong = failure.violations;
  for (let i = 0; i < wrong.length; i++) out += "; " + wrong[i].path + ": " + wrong[i].reason;
  return Answer.text(out);
}

function nothing(failure: Failure | null, passOn: bool): Answer {
  return failure ? passed(failure, passOn) : Answer.text("");
}

function contents(r: Result<Uint8Array>, passOn: bool): Answer {
  const failure = r.failure;
  if (failure) return passed(failure, passOn);
  return Answer.text(r.value.length.toString() + " " + text(r.value));
}

// Words separates s by spaces, the last of n taking the rest.
function words(s: string, n: i32): Array<string> {
  const list = new Array<string>();
  let at = 0;
  while (list.length < n - 1) {
    const end = s.indexOf(" ", at);
    if (end < 0) break;
    list.push(s.substring(at, end));
    at = end + 1;
  }
  list.push(s.substring(at));
  while (list.length < n) list.push("");
  return list;
}

function operation(params: Uint8Array): Answer {
  const w = words(text(params), 3);
  const op = w[0].toLowerCase();
  const path = w[1];
  const rest = w[2];
  const passOn = rest == "pass on";
  const its = contextOf(w[0]);
  if (op == "read") return contents(its.read(path), passOn);
  if (op == "part") return contents(its.readAt(path, U64.parseInt(rest), 3), passOn);
  if (op == "write") return nothing(its.writeText(path, rest), passOn);
  if (op == "append") return nothing(its.appendText(path, rest), passOn);
  if (op == "mkdir") return nothing(its.makeDirectory(path), passOn);
  if (op == "remove") return nothing(its.remove(path), passOn);
  if (op == "who") return Answer.text(its.id + " " + its.name);
  if (op == "stat") {
    const r = its.stat(path);
    const failure = r.failure;
    if (failure) return passed(failure, passOn);
    const s = r.value;
    return Answer.text("kind " + (<i32>s.kind).toString() + " size " + s.size.toString() + " modified " + s.modified.toString());
  }
  if (op == "list") {
    const r = its.list(path);
    const failure = r.failure;
    if (failure) return passed(failure, passOn);
    let out = "";
    for (let i = 0; i < r.value.length; i++) out += r.value[i].name + ":" + (<i32>r.value[i].kind).toString() + " ";
    return Answer.text(out);
  }
  return Answer.fail("params: no such operation");
}

function onRecord(params: Uint8Array): Answer {
  const w = words(text(params), 3);
  const op = w[0].toLowerCase();
  const its = contextOf(w[0]).collection(w[1]);
  const rest = words(w[2], 2);
  if (op == "get") return contents(its.get(rest[0]), false);
  if (op == "put") return nothing(its.putText(rest[0], rest[1]), false);
  if (op == "delete") return nothing(its.remove(rest[0]), false);
  if (op == "make") return nothing(its.replaceText(rest[0], null, rest[1]), false);
  const by = words(w[2], 3);
  if (op == "replace") return nothing(its.replaceText(by[0], by[1], by[2]), false);
  if (op == "list") return pageOf(its.page(dash(by[0]), dash(by[1]), <u32>parseInt(by[2])));
  if (op == "query") return pageOf(its.query(by[2], dash(by[0]), <u32>parseInt(by[1])));
  return Answer.fail("params: no such operation");
}

function dash(word: string): string {
  return word == "-" ? "" : word;
}

function pageOf(r: Result<Page>): Answer {
  const failure = r.failure;
  if (failure) return passed(failure, false);
  let out = "";
  for (let i = 0; i < r.value.records.length; i++) {
    const record = r.value.records[i];
    const value = record.value;
    out += record.key + "=" + (value ? text(value) : "(denied)") + " ";
  }
  return Answer.text(out + "next:" + r.value.next);
}

function onOthers(params: Uint8Array): Answer {
  const w = words(text(params), 5);
  const op = w[0].toLowerCase();
  const rest = bytes(w[4]);
  if (op == "call") return contents(call(w[1], dash(w[3]), rest), false);
  if (op == "base") return contents(base(dash(w[3]), rest), false);
  if (op == "send") return contents(contextOf(w[0]).send(w[1], w[2], dash(w[3]), rest), false);
  return Answer.text(entry());
}

function querying(): string | null {
  const all = target().collection("found");
  for (let n = 0; n < 25; n++) {
    const failure = all.putText((n < 10 ? "0" : "") + n.toString(), '{"n":' + n.toString() + "}");
    if (failure) return failure.message;
  }
  const query =
    '{"where": {"and": [{"field": "/n", "from": 5, "below": 20}, {"or": [{"field": "/n", "above": 8}, {"field": "/n", "equals": 6}]}]},' +
    ' "order": [{"field": "/n", "descending": true}], "limit": 12}';
  let found = "";
  for (let start = "", more = true; more; ) {
    const page = all.query(query, start);
    const wrong = page.failure;
    if (wrong) return wrong.message;
    for (let i = 0; i < page.value.records.length; i++) found += page.value.records[i].key + " ";
    start = page.value.next;
    more = start != "";
  }
  return found == "19 18 17 16 15 14 13 12 11 10 09 06 " ? null : "the query finds " + found;
}

const PART: i32 = 16 << 20;

function byteOf(part: i32, i: i32): u8 {
  return <u8>(i * 7 + i / 251 + part);
}

function largeFile(params: Uint8Array): Answer {
  const parts = <i32>parseInt(text(params));
  const failure = writeParts(parts);
  if (failure) return Answer.of(failure);
  let total = 0;
  for (let n = 0; n < parts; n++) {
    __collect(); // what the collector would get to later, where memory is no object
    const wrong = readPart(n);
    if (wrong) return Answer.fail(wrong);
    total += PART;
  }
  return Answer.text(total.toString());
}

function readPart(n: i32): string | null {
  const r = target().readAt("/large", <u64>n * PART, PART);
  const failure = r.failure;
  if (failure) return failure.message;
  const got = r.value;
  if (got.length != PART) return "part " + n.toString() + " has " + got.length.toString() + " bytes";
  for (let i = 0; i < PART; i++) {
    if (unchecked(got[i]) != byteOf(n, i)) return "byte " + i.toString() + " of part " + n.toString() + " is another";
  }
  return null;
}

function writeParts(parts: i32): Failure | null {
  const part = new Uint8Array(PART);
  for (let n = 0; n < parts; n++) {
    for (let i = 0; i < PART; i++) unchecked((part[i] = byteOf(n, i)));
    const failure = n ? target().append("/large", part) : target().write("/large", part);
    if (failure) return failure;
  }
  return null;
}

// What arrays, strings and nullable failures make of files and records.
function habit(): string | null {
  let failure = target().writeText("/habits", "é €\u{1F600}\n");
  if (failure) return failure.message;
  if (target().readText("/habits").value != "é €\u{1F600}\n") return "text is not what it was";
  // A text with half a character is one that the host takes, and not what it was.
  failure = target().writeText("/half", "a\uD800b");
  if (failure) return failure.message;
  if (target().readText("/half").value != "a\uFFFDb") return "half a character is " + target().readText("/half").value;
  const none = target().readText("/none");
  if (none.ok || none.failure!.code != Code.NotFound) return "there is a /none";
  if (target().stat("/dir").value.kind != Kind.Directory) return "/dir is no directory";
  const names = target().list("/dir").value.map<string>((e) => e.name).join(",");
  if (names != "file,sub") return "/dir has " + names;

  const many = target().collection("many");
  for (let n = 0; n < 25; n++) {
    failure = many.putText((n < 10 ? "0" : "") + n.toString(), n.toString());
    if (failure) return failure.message;
  }
  let sum = 0;
  for (let start = "", more = true; more; ) {
    const page = many.page(start, "1", 4);
    const wrong = page.failure;
    if (wrong) return wrong.message;
    for (let i = 0; i < page.value.records.length; i++) sum += <i32>parseInt(text(page.value.records[i].value!));
    start = page.value.next;
    more = start != "";
  }
  if (sum != 145) return "the sum is " + sum.toString();
  if (target().collection("NOT").getText("x").ok) return "NOT is a collection";
  const a = Math.random();
  if (a < 0 || a >= 1 || a == Math.random()) return "chance is " + a.toString();
  return null;
}

@external("circles:host/contexts@0.1.2", "[method]context.read")
declare function rawRead(self: u32, path: u32, len: u32, ret: u32): void;
@external("circles:host/contexts@0.1.2", "[method]context.list-records")
declare function rawList(self: u32, name: u32, len: u32, start: u32, startLen: u32, prefix: u32, prefixLen: u32, limit: u32, ret: u32): void;
@external("circles:host/contexts@0.1.2", "[resource-drop]context")
declare function rawDrop(self: u32): void;
@external("circles:host/contexts@0.1.2", "target")
declare function rawTarget(): u32;
@external("circles:host/log@0.1.2", "write")
declare function rawLog(level: u32, message: u32, len: u32): void;

function byHand(params: Uint8Array): Answer {
  const w = text(params).split(" ");
  const n = w.slice(1).map<u32>((x) => <u32>U64.parseInt(x));
  if (w[0] == "read") rawRead(n[0], n[1], n[2], n[3]);
  else if (w[0] == "list") rawList(n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8]);
  else if (w[0] == "drop") rawDrop(n[0]);
  else if (w[0] == "log") rawLog(n[0], n[1], n[2]);
  else if (w[0] == "open") for (let i: u32 = 0; i < n[0]; i++) rawTarget();
  else return Answer.fail("params: no such function");
  return Answer.bytes(bytes(""));
}
