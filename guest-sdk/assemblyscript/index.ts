// What a script module in AssemblyScript imports: the contexts of the two peers
// that a script concerns, a log, and the entries that a host calls.
//
//   import { Answer, caller, handle } from "./circles";
//
//   export function run(ptr: usize, len: usize): usize {
//     return handle(ptr, len, (params: Uint8Array): Answer => {
//       const card = caller().readText("/card.txt");
//       const failure = card.failure;
//       if (failure) return Answer.of(failure);
//       return Answer.text("hello, " + card.value);
//     });
//   }
//
// Every exported function of that type is an entry that a script can name, "run"
// the default; logLines is the entry log-lines. asconfig.json has what asc must be
// told besides.
//
// A call gets a fresh instance, which may be a copy of one that has run the top
// level of all files without any context in reach: a context may be kept in a
// global, and must not be used there. AssemblyScript has no exceptions: what may
// fail returns a Result or a Failure, and what should never happen, as an index out
// of bounds, ends the script, with file and line in its log. Either way, when an
// entry does not succeed, nothing that it wrote remains.
import * as host from "./host";

/// Tells failures apart; contexts.error-code in host.wit.
export enum Code {
  NotFound, // no such file or directory, or one that the policy hides
  Denied, // the policy of the context's owner does not allow it
  Exists, // there is something with that name
  NotDirectory, // a path component is not a directory, or a file was expected
  IsDirectory, // a directory, where a file was expected
  NotEmpty, // a directory that has entries
  Invalid, // a path or argument that can never be right
  TooLarge, // more than a limit or quota allows
  ReadOnly, // the context cannot be changed by this script
  Unavailable, // the context's host cannot be reached now
  Io, // the host failed
  Conflict, // the record is not as it was expected to be
  Violates, // a value is not as the collection's schema says; see Failure.violations
  Failed, // the module or script that was called failed; the message is its own
}

/// Why something did not succeed, with a sentence for the person who reads the
/// receipt.
export class Failure {
  constructor(public readonly code: Code, public readonly message: string) {}

  /// In which ways a value is not as its collection's schema says, of the code Violates.
  get violations(): Array<Violation> {
    const list = new Array<Violation>();
    if (this.code != Code.Violates) return list;
    const lines = this.message.split("\n");
    for (let i = 0; i < lines.length; i++) {
      const end = lines[i].indexOf(": ");
      if (end == 0 || (end > 0 && lines[i].startsWith("/"))) {
        list.push(new Violation(lines[i].substring(0, end), lines[i].substring(end + 2)));
      }
    }
    return list;
  }
}

export class Violation {
  constructor(
    public readonly path: string, // where in the value, a JSON Pointer (RFC 6901); "" for all of it
    public readonly reason: string,
  ) {}
}

/// A value, or why there is none.
export class Result<T> {
  constructor(private readonly held: T | null, public readonly failure: Failure | null) {}

  /// The value. Without one the script ends; look at failure before.
  get value(): T {
    const failure = this.failure;
    if (failure) throw new Error(failure.message);
    return this.held!;
  }

  get ok(): bool {
    return this.failure == null;
  }
}

export enum Kind {
  File,
  Directory,
  Link,
  Other,
}

export class Stat {
  constructor(
    public readonly kind: Kind,
    public readonly size: u64, // bytes; 0 for a directory
    public readonly modified: u64, // milliseconds since 1970-01-01T00:00:00Z
  ) {}
}

/// One name in a directory.
export class Entry {
  constructor(public readonly name: string, public readonly kind: Kind) {}
}

/// One record of a collection. Without a value: there is this record, and the policy
/// does not let the script see what is in it.
export class Record {
  constructor(public readonly key: string, public readonly value: Uint8Array | null) {}
}

export class Page {
  constructor(
    public readonly records: Array<Record>,
    public readonly next: string, // where to go on from, as start; "" at the end
  ) {}
}

/// The context of the peer that sent this script: what it lent, and nothing of it
/// can be changed.
export function caller(): Context {
  return callers;
}

/// The context that this script runs in.
export function target(): Context {
  return targets;
}

/// The named environment of a peer, as far as its policy lets this script at it. It
/// is a name, not an open handle. Paths are slash-separated and start at the
/// context's root; a leading "/" may be left out.
export class Context {
  constructor(private readonly which: i32) {}

  /// The peer's identity, "did:key:z6Mk…".
  get id(): string {
    host.id(handleOf(this.which), ret);
    return takeText(load<usize>(ret), load<usize>(ret, 4));
  }

  /// The name that the target's owner gave this peer; "" for a stranger.
  get name(): string {
    host.name(handleOf(this.which), ret);
    return takeText(load<usize>(ret), load<usize>(ret, 4));
  }

  /// The whole contents of a file, of at most 16 MiB.
  read(path: string): Result<Uint8Array> {
    const p = utf8(path);
    host.read(handleOf(this.which), changetype<usize>(p), p.byteLength, ret);
    return bytesResult();
  }

  readText(path: string): Result<string> {
    return textOf(this.read(path));
  }

  /// Up to length bytes from offset; fewer at the end of the file only.
  readAt(path: string, offset: u64, length: u32): Result<Uint8Array> {
    const p = utf8(path);
    host.readAt(handleOf(this.which), changetype<usize>(p), p.byteLength, offset, length, ret);
    return bytesResult();
  }

  /// Replaces a file, or makes one; directories on the way must be there.
  write(path: string, data: Uint8Array): Failure | null {
    const p = utf8(path);
    host.write(handleOf(this.which), changetype<usize>(p), p.byteLength, data.dataStart, data.byteLength, ret);
    return failureOf(4);
  }

  writeText(path: string, text: string): Failure | null {
    return this.write(path, bytes(text));
  }

  /// Adds to the end of a file, or makes one.
  append(path: string, data: Uint8Array): Failure | null {
    const p = utf8(path);
    host.append(handleOf(this.which), changetype<usize>(p), p.byteLength, data.dataStart, data.byteLength, ret);
    return failureOf(4);
  }

  appendText(path: string, text: string): Failure | null {
    return this.append(path, bytes(text));
  }

  /// The entries of a directory, in name order.
  list(path: string): Result<Array<Entry>> {
    const p = utf8(path);
    host.list(handleOf(this.which), changetype<usize>(p), p.byteLength, ret);
    const failure = failureOf(4);
    if (failure) return new Result<Array<Entry>>(null, failure);
    const at = load<usize>(ret, 4);
    const n = load<i32>(ret, 8);
    const entries = new Array<Entry>();
    for (let i = 0; i < n; i++) {
      const e = at + (<usize>i) * 12;
      entries.push(new Entry(takeText(load<usize>(e), load<usize>(e, 4)), load<u8>(e, 8)));
    }
    if (n) heap.free(at);
    return new Result<Array<Entry>>(entries, null);
  }

  /// What is there, behind any links.
  stat(path: string): Result<Stat> {
    const p = utf8(path);
    host.stat(handleOf(this.which), changetype<usize>(p), p.byteLength, ret);
    const failure = failureOf(8);
    if (failure) return new Result<Stat>(null, failure);
    return new Result<Stat>(new Stat(load<u8>(ret, 8), load<u64>(ret, 16), load<u64>(ret, 24)), null);
  }

  /// Makes one directory; the one above it must be there.
  makeDirectory(path: string): Failure | null {
    const p = utf8(path);
    host.makeDirectory(handleOf(this.which), changetype<usize>(p), p.byteLength, ret);
    return failureOf(4);
  }

  /// Removes a file, a link or an empty directory.
  remove(path: string): Failure | null {
    const p = utf8(path);
    host.remove(handleOf(this.which), changetype<usize>(p), p.byteLength, ret);
    return failureOf(4);
  }

  /// Sends a script from this context's peer, which is to be the target, to another one,
  /// and waits for its result. to is a did:key or the name that the context's owner gave
  /// the peer; logic a module's name, or "sha256:" and a digest in hex; "" is the entry run.
  send(to: string, logic: string, entry: string, params: Uint8Array): Result<Uint8Array> {
    const t = utf8(to);
    const l = utf8(logic);
    const e = utf8(entry);
    host.send(
      handleOf(this.which), changetype<usize>(t), t.byteLength, changetype<usize>(l), l.byteLength,
      changetype<usize>(e), e.byteLength, params.dataStart, params.byteLength, ret);
    return bytesResult();
  }

  /// The records of a name: values by key. The name is in kebab case.
  collection(name: string): Collection {
    return new Collection(this.which, name);
  }
}

/// The records of one name in a context: values of at most 1 MiB, by keys of 1 to
/// 1,024 bytes, in the order of their bytes. A script is one transaction: what it
/// gets nobody changes before it puts.
export class Collection {
  constructor(private readonly which: i32, private readonly name: string) {}

  get(key: string): Result<Uint8Array> {
    const c = utf8(this.name);
    const k = utf8(key);
    host.getRecord(handleOf(this.which), changetype<usize>(c), c.byteLength, changetype<usize>(k), k.byteLength, ret);
    return bytesResult();
  }

  getText(key: string): Result<string> {
    return textOf(this.get(key));
  }

  /// Makes a record, or replaces its value.
  put(key: string, value: Uint8Array): Failure | null {
    const c = utf8(this.name);
    const k = utf8(key);
    host.putRecord(
      handleOf(this.which), changetype<usize>(c), c.byteLength, changetype<usize>(k), k.byteLength,
      value.dataStart, value.byteLength, ret);
    return failureOf(4);
  }

  putText(key: string, value: string): Failure | null {
    return this.put(key, bytes(value));
  }

  /// Puts a record if its value is expected, and for null if there is no such record. Else
  /// the code is Conflict, and nothing changes.
  replace(key: string, expected: Uint8Array | null, value: Uint8Array): Failure | null {
    const c = utf8(this.name);
    const k = utf8(key);
    let was: usize = 0;
    let wasLen = 0;
    if (expected) {
      was = expected.dataStart;
      wasLen = expected.byteLength;
    }
    host.replaceRecord(
      handleOf(this.which), changetype<usize>(c), c.byteLength, changetype<usize>(k), k.byteLength,
      expected ? 1 : 0, was, wasLen, value.dataStart, value.byteLength, ret);
    return failureOf(4);
  }

  replaceText(key: string, expected: string | null, value: string): Failure | null {
    return this.replace(key, expected === null ? null : bytes(expected), bytes(value));
  }

  remove(key: string): Failure | null {
    const c = utf8(this.name);
    const k = utf8(key);
    host.deleteRecord(handleOf(this.which), changetype<usize>(c), c.byteLength, changetype<usize>(k), k.byteLength, ret);
    return failureOf(4);
  }

  /// Records whose keys begin with prefix and are not less than start; both may be
  /// "". At most limit of them, or, with 0, as many as the host gives at once.
  page(start: string = "", prefix: string = "", limit: u32 = 0): Result<Page> {
    const c = utf8(this.name);
    const s = utf8(start);
    const p = utf8(prefix);
    host.listRecords(
      handleOf(this.which), changetype<usize>(c), c.byteLength, changetype<usize>(s), s.byteLength,
      changetype<usize>(p), p.byteLength, limit, ret);
    return pageResult();
  }

  /// A page of the records that a query is true of, a JSON text that host.wit describes.
  /// start is "", or the next of the page before.
  query(query: string, start: string = "", limit: u32 = 0): Result<Page> {
    const c = utf8(this.name);
    const q = utf8(query);
    const s = utf8(start);
    host.queryRecords(
      handleOf(this.which), changetype<usize>(c), c.byteLength, changetype<usize>(q), q.byteLength,
      changetype<usize>(s), s.byteLength, limit, ret);
    return pageResult();
  }
}

/// Runs an entry of another module of the target's context, in the same transaction; "" is
/// the entry run. If it fails, the code is Failed, and nothing that it wrote remains.
export function call(module: string, entry: string, params: Uint8Array): Result<Uint8Array> {
  const m = utf8(module);
  const e = utf8(entry);
  host.call(changetype<usize>(m), m.byteLength, changetype<usize>(e), e.byteLength, params.dataStart, params.byteLength, ret);
  return bytesResult();
}

/// Runs an entry of what this module stands before, the next of its chain or the layer
/// below; "" is the entry that this one was entered by.
export function base(entry: string, params: Uint8Array): Result<Uint8Array> {
  const e = utf8(entry);
  host.base(changetype<usize>(e), e.byteLength, params.dataStart, params.byteLength, ret);
  return bytesResult();
}

/// The entry that was asked for: a module of a chain that lacks it is entered by run.
export function entry(): string {
  host.entry(ret);
  return takeText(load<usize>(ret), load<usize>(ret, 4));
}

export enum Level {
  Debug,
  Info,
  Warn,
  Error,
}

/// Adds a line to the log that is kept with the receipt. The host cuts what is over
/// its limit.
export function log(level: Level, message: string): void {
  const m = utf8(message);
  host.log(level, changetype<usize>(m), m.byteLength);
}

/// What an entry returns.
export class Answer {
  private constructor(public readonly failed: bool, public readonly data: Uint8Array) {}

  static text(text: string): Answer {
    return new Answer(false, bytes(text));
  }

  static bytes(data: Uint8Array): Answer {
    return new Answer(false, data);
  }

  /// The script fails, with this sentence for the person who reads the receipt.
  static fail(message: string): Answer {
    return new Answer(true, bytes(message));
  }

  /// The script fails with what failed.
  static of(failure: Failure): Answer {
    return Answer.fail(failure.message);
  }
}

/// Runs handler as an entry: it is the whole body of an exported function.
export function handle(ptr: usize, len: usize, handler: (params: Uint8Array) => Answer): usize {
  if (returned) heap.free(returned); // by the entry before, in an instance that has several
  returned = 0;
  const answer = handler(takeBytes(ptr, len));
  const data = answer.data;
  const size = data.byteLength;
  // The host reads it when the entry is over: the collector must not.
  if (size) {
    returned = heap.alloc(size);
    memory.copy(returned, data.dataStart, size);
  }
  store<u8>(out, answer.failed ? 1 : 0);
  store<usize>(out, size ? returned : 1, 4);
  store<usize>(out, size, 8);
  for (let i = 0; i < 2; i++) {
    if (held[i]) host.drop(handles[i]);
    held[i] = false;
  }
  return out;
}

/// The text as UTF-8.
export function bytes(text: string): Uint8Array {
  return Uint8Array.wrap(utf8(text));
}

/// The text of which these are the UTF-8; U+FFFD where they are not.
export function text(data: Uint8Array): string {
  return String.UTF8.decodeUnsafe(data.dataStart, data.byteLength);
}

/// The time, in milliseconds since 1970-01-01T00:00:00Z.
export function now(): u64 {
  host.clock(0, 1000000, ret);
  return load<u64>(ret) / 1000000;
}

// ---- Below ----

const callers = new Context(0);
const targets = new Context(1);

// Where the host writes what a function returns, and where it reads what an entry
// returned. One of each is enough: the host does one thing at a time.
const ret: usize = memory.data(32, 8);
const out: usize = memory.data(12, 4);
let returned: usize = 0;

// Handles are got when first needed and dropped at the end of each entry.
const handles: StaticArray<i32> = [0, 0];
const held: StaticArray<bool> = [false, false];

function handleOf(which: i32): i32 {
  if (!held[which]) {
    handles[which] = which ? host.target() : host.caller();
    held[which] = true;
  }
  return handles[which];
}

/// The text as UTF-8. A lone surrogate becomes U+FFFD: the host takes no other text.
function utf8(text: string): ArrayBuffer {
  return String.UTF8.encode(text, false, String.UTF8.ErrorMode.REPLACE);
}

// What the host returned lies in a block of cabi_realloc's, which is ours to free.
function takeBytes(at: usize, len: usize): Uint8Array {
  const data = new Uint8Array(<i32>len);
  memory.copy(data.dataStart, at, len);
  if (len) heap.free(at);
  return data;
}

function takeText(at: usize, len: usize): string {
  const text = String.UTF8.decodeUnsafe(at, len);
  if (len) heap.free(at);
  return text;
}

// at is where the payload of the result in ret begins.
function failureOf(at: usize): Failure | null {
  if (!load<u8>(ret)) return null;
  return new Failure(load<u8>(ret + at), takeText(load<usize>(ret + at, 4), load<usize>(ret + at, 8)));
}

function bytesResult(): Result<Uint8Array> {
  const failure = failureOf(4);
  if (failure) return new Result<Uint8Array>(null, failure);
  return new Result<Uint8Array>(takeBytes(load<usize>(ret, 4), load<usize>(ret, 8)), null);
}

function pageResult(): Result<Page> {
  const failure = failureOf(4);
  if (failure) return new Result<Page>(null, failure);
  const at = load<usize>(ret, 4);
  const n = load<i32>(ret, 8);
  const next = takeText(load<usize>(ret, 12), load<usize>(ret, 16));
  const records = new Array<Record>();
  for (let i = 0; i < n; i++) {
    const item = at + (<usize>i) * 20;
    const key = takeText(load<usize>(item), load<usize>(item, 4));
    let value: Uint8Array | null = null;
    if (load<u8>(item, 8)) value = takeBytes(load<usize>(item, 12), load<usize>(item, 16));
    records.push(new Record(key, value));
  }
  if (n) heap.free(at);
  return new Result<Page>(new Page(records, next), null);
}

function textOf(r: Result<Uint8Array>): Result<string> {
  const failure = r.failure;
  if (failure) return new Result<string>(null, failure);
  return new Result<string>(text(r.value), null);
}
