// What a text in JavaScript finds: caller, target, params, log, modules and base. Written
// on guest-sdk/js/circles.js; language.c calls what is exported here.
import { caller, target, modules, log as write, CirclesError } from "circles";

const host = globalThis.circlesHost;
delete globalThis.circlesHost;

let loading = false; // there is no caller, and no target, while a text is loaded
const entries = new Map(); // the functions by the names of their entries

const reach = () => {
  if (loading) throw new CirclesError("unavailable", "there is no call yet: this runs once, when the text is loaded; put it into an exported function");
};

// The value that bytes from outside are: JSON's, else text, else the bytes; and undefined
// if there are none.
const value = (text) => {
  if (typeof text !== "string") return text;
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
};
const decode = (bytes) => value(host.text(bytes.buffer) ?? bytes);

const answered = (result) => decode(result.bytes());

export const encode = (v) => {
  if (v === undefined || v === null) return "";
  if (typeof v === "string" || v instanceof ArrayBuffer || v instanceof Uint8Array) return v;
  const text = JSON.stringify(v);
  if (text === undefined) throw new TypeError(`a ${typeof v} cannot be a result`);
  return text;
};

const contents = (v) => {
  if (typeof v === "string" || v instanceof ArrayBuffer || v instanceof Uint8Array) return v;
  throw new CirclesError("invalid", "a file is written as text or as a Uint8Array; make text of other values with String(value) or JSON.stringify(value)");
};

// What get returns, or the fallback, if there is one, where there is no such thing.
const or = (fallback, get) => {
  if (fallback.length === 0) return get();
  try {
    return get();
  } catch (e) {
    if (e instanceof CirclesError && e.code === "not-found") return fallback[0];
    throw e;
  }
};

class Context {
  #of;

  constructor(of) {
    this.#of = of;
  }

  get id() {
    reach();
    return this.#of.id;
  }

  get name() {
    reach();
    return this.#of.name;
  }

  read(path, ...fallback) {
    return or(fallback, () => {
      const text = host.text(this.readBytes(path).buffer);
      if (text === undefined) throw new CirclesError("invalid", `${path} is not text in UTF-8; readBytes(path) gives its bytes`);
      return text;
    });
  }

  readBytes(path, ...fallback) {
    reach();
    return or(fallback, () => this.#of.read(path));
  }

  readAt(path, offset, length) {
    reach();
    return this.#of.readAt(path, offset, length);
  }

  write(path, text) {
    reach();
    this.#of.write(path, contents(text));
  }

  append(path, text) {
    reach();
    this.#of.append(path, contents(text));
  }

  list(path, ...fallback) {
    reach();
    return or(fallback, () => this.#of.list(path));
  }

  stat(path, ...fallback) {
    reach();
    return or(fallback, () => {
      const { kind, size, modified } = this.#of.stat(path);
      return { kind, size, modified: modified.getTime() };
    });
  }

  remove(path) {
    reach();
    this.#of.remove(path);
  }

  makeDirectory(path) {
    reach();
    this.#of.makeDirectory(path);
  }

  send(to, logic, entry = "", params) {
    reach();
    return answered(this.#of.send(to, logic, entry, encode(params)));
  }

  records(collection) {
    return new Records(this.#of, collection);
  }
}

class Records {
  #of;

  constructor(context, name) {
    this.#of = context.collection(name);
  }

  get(key, ...fallback) {
    reach();
    return or(fallback, () => decode(this.#of.get(key)));
  }

  put(key, value) {
    reach();
    this.#of.put(key, record(value));
  }

  // To value, if the record is expected now; undefined or null: if there is none.
  replace(key, expected, value) {
    reach();
    this.#of.replace(key, expected === undefined || expected === null ? undefined : record(expected), record(value));
  }

  delete(key) {
    reach();
    this.#of.delete(key);
  }

  list(start = "", prefix = "", limit = 0) {
    reach();
    return items(this.#of.page({ start, prefix, limit }));
  }

  query(query = {}, start = "", limit = 0) {
    reach();
    return items(this.#of.queryPage(query, { start, limit }));
  }
}

const items = ({ records, next }) => ({ items: records.map(({ key, value }) => ({ key, value: value && decode(value) })), next });

// A record is JSON, or the bytes that it is given as.
const record = (v) => {
  if (v instanceof ArrayBuffer || v instanceof Uint8Array) return v;
  const text = JSON.stringify(v);
  if (text === undefined) throw new CirclesError("invalid", `a ${typeof v} cannot be a record`);
  return text;
};

const say = (level) => (...a) => {
  reach();
  write(level, a.map((v) => (typeof v === "string" ? v : v instanceof Error ? explain(v) : (JSON.stringify(v) ?? String(v)))).join(" "));
};

const natural = {
  caller: Object.freeze(new Context(caller)),
  target: Object.freeze(new Context(target)),
  modules: Object.freeze({
    call(name, entry = "", params) {
      reach();
      return answered(modules.call(name, entry, encode(params)));
    },
  }),
  // call(entry, params), or call(params) for the entry that this was entered by.
  base: Object.freeze({
    call(...a) {
      reach();
      const [entry, params] = a.length > 1 ? a : ["", a[0]];
      return answered(modules.base(entry, encode(params)));
    },
  }),
  log: Object.freeze({ debug: say("debug"), info: say("info"), warn: say("warn"), error: say("error") }),
};
for (const [name, object] of Object.entries(natural)) {
  // A script may have a name of its own for it: const target = …
  Object.defineProperty(globalThis, name, { value: object, writable: true, configurable: true });
}

globalThis.console = { debug: say("debug"), log: say("info"), info: say("info"), warn: say("warn"), error: say("error"), trace: say("debug") };

const kebab = (name) => (name === "default" ? "run" : name.replace(/[A-Z]/g, (c) => "-" + c.toLowerCase()));

// Before the text is evaluated.
export const loads = () => {
  loading = true;
};

// After that: its entries, as JSON.
export const load = (exported) => {
  loading = false;
  if (exported === undefined) return '{"entries":["run"]}';
  for (const name of Object.keys(exported)) {
    if (typeof exported[name] !== "function") continue;
    const entry = kebab(name);
    if (!/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/.test(entry)) throw new SyntaxError(`${name} cannot be the name of an entry, which has letters and digits, in camel case, as in signBook`);
    if (entries.has(entry)) throw new SyntaxError(`two exported functions would be the entry ${entry}`);
    entries.set(entry, exported[name]);
  }
  if (entries.size === 0) throw new SyntaxError("it exports no function, and those that it exports are its entries: export function run(params) { … }");
  return JSON.stringify({ entries: [...entries.keys()] });
};

// Before a call.
export const begin = (params) => {
  globalThis.params = value(params);
};

export const enter = (entry) => {
  const f = entries.get(entry);
  if (!f) throw new CirclesError("not-found", `there is no entry ${entry}; there are ${[...entries.keys()].join(", ")}`);
  return f(globalThis.params);
};

const frames = (e) => [...String(e.stack).matchAll(/^ +at (?:(.*?) \()?text:(\d+):(\d+)\)?$/gm)];

// Where a SyntaxError is, as one number.
export const place = (e) => {
  const [at] = frames(e);
  return at ? Number(at[2]) * 0x1000000 + Number(at[3]) : 0;
};

const maxFrames = 6;

// An error, for people: "LINE:COLUMN: what happened", and a line for each call on the way.
// A text that is thrown is the script's own sentence, and stays as it is.
export const explain = (e) => {
  if (typeof e === "string") return e;
  if (!(e instanceof Error)) return "the script threw " + (JSON.stringify(e) ?? String(e));
  const plain = e.name === "Error" || e instanceof CirclesError;
  const what = (plain ? "" : e.name + ": ") + e.message;
  const at = frames(e);
  if (at.length === 0) return what;
  const lines = [`${at[0][2]}:${at[0][3]}: ${what}`];
  for (let i = 1; i < at.length && i <= maxFrames; i++) lines.push(`${at[i][2]}:${at[i][3]}: called ${at[i - 1][1] || "a function"}`);
  if (at.length > maxFrames + 1) lines.push(`and ${at.length - maxFrames - 1} calls before`);
  return lines.join("\n");
};
