// What a script module in JavaScript or TypeScript imports as "circles"; circles.d.ts
// says what it is for. Written on what javascript.c offers.
const host = globalThis.circlesHost;

const codes = [
  "not-found", "denied", "exists", "not-directory", "is-directory", "not-empty",
  "invalid", "too-large", "read-only", "unavailable", "io",
  "conflict", "violates", "failed",
];

export class CirclesError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "CirclesError";
    this.code = code;
  }

  get violations() {
    const lines = this.code === "violates" ? this.message.split("\n") : [];
    return lines.flatMap((line) => {
      const [, path, reason] = /^(|\/.*?): (.*)$/.exec(line) ?? [];
      return reason === undefined ? [] : [{ path, reason }];
    });
  }
}

const call = (f, ...a) => {
  try {
    return f(...a);
  } catch (e) {
    if (Array.isArray(e)) throw new CirclesError(codes[e[0]], e[1]);
    throw e;
  }
};

const kinds = ["file", "directory", "link", "other"];

class Context {
  #which;

  constructor(which) {
    this.#which = which;
  }

  get id() {
    return host.id(this.#which);
  }

  get name() {
    return host.name(this.#which);
  }

  read(path) {
    return new Uint8Array(call(host.read, this.#which, path));
  }

  readText(path) {
    return host.decode(call(host.read, this.#which, path));
  }

  readJSON(path) {
    return JSON.parse(this.readText(path));
  }

  readAt(path, offset, length) {
    return new Uint8Array(call(host.readAt, this.#which, path, offset, length));
  }

  write(path, data) {
    call(host.write, this.#which, path, data);
  }

  append(path, data) {
    call(host.append, this.#which, path, data);
  }

  list(path) {
    const flat = call(host.list, this.#which, path);
    const entries = [];
    for (let i = 0; i < flat.length; i += 2) entries.push({ name: flat[i], kind: kinds[flat[i + 1]] });
    return entries;
  }

  stat(path) {
    const [kind, size, modified] = call(host.stat, this.#which, path);
    return { kind: kinds[kind], size, modified: new Date(modified) };
  }

  makeDirectory(path) {
    call(host.makeDirectory, this.#which, path);
  }

  remove(path) {
    call(host.remove, this.#which, path);
  }

  exists(path) {
    try {
      this.stat(path);
      return true;
    } catch (e) {
      if (e.code === "not-found") return false;
      throw e;
    }
  }

  collection(name) {
    return new Collection(this.#which, name);
  }

  send(to, logic, entry = "", params) {
    return new Params(call(host.send, this.#which, to, logic, entry, encode(params)));
  }
}

class Collection {
  #which;
  #name;

  constructor(which, name) {
    this.#which = which;
    this.#name = name;
  }

  get(key) {
    return new Uint8Array(call(host.getRecord, this.#which, this.#name, key));
  }

  getText(key) {
    return host.decode(call(host.getRecord, this.#which, this.#name, key));
  }

  getJSON(key) {
    return JSON.parse(this.getText(key));
  }

  put(key, value) {
    call(host.putRecord, this.#which, this.#name, key, value);
  }

  putJSON(key, value) {
    this.put(key, JSON.stringify(value));
  }

  replace(key, expected, value) {
    call(host.replaceRecord, this.#which, this.#name, key, expected, value);
  }

  delete(key) {
    call(host.deleteRecord, this.#which, this.#name, key);
  }

  page({ start = "", prefix = "", limit = 0 } = {}) {
    return page(call(host.listRecords, this.#which, this.#name, start, prefix, limit));
  }

  all(prefix = "") {
    return pages((start) => this.page({ start, prefix }));
  }

  queryPage(query = {}, { start = "", limit = 0 } = {}) {
    const text = typeof query === "string" ? query : JSON.stringify(query);
    return page(call(host.queryRecords, this.#which, this.#name, text, start, limit));
  }

  query(query) {
    return pages((start) => this.queryPage(query, { start }));
  }
}

const page = (flat) => {
  const records = [];
  for (let i = 1; i < flat.length; i += 2) {
    records.push({ key: flat[i], value: flat[i + 1] && new Uint8Array(flat[i + 1]) });
  }
  return { records, next: flat[0] };
};

function* pages(from) {
  for (let start = ""; ; ) {
    const { records, next } = from(start);
    yield* records;
    if (next === "") return;
    start = next;
  }
}

export const caller = Object.freeze(new Context(0));
export const target = Object.freeze(new Context(1));

export const modules = Object.freeze({
  call: (name, entry = "", params) => new Params(call(host.call, name, entry, encode(params))),
  base: (entry = "", params) => new Params(call(host.base, entry, encode(params))),
  get entry() {
    return host.entry();
  },
});

export const log = (level, message) => host.log(["debug", "info", "warn", "error"].indexOf(level), String(message));

class Params {
  #buffer;

  constructor(buffer) {
    this.#buffer = buffer;
  }

  bytes() {
    return new Uint8Array(this.#buffer);
  }

  text() {
    return host.decode(this.#buffer);
  }

  json() {
    if (this.#buffer.byteLength === 0) return undefined;
    try {
      return JSON.parse(this.text());
    } catch (e) {
      throw new TypeError("params: want JSON: " + e.message);
    }
  }
}

const encode = (v) => {
  if (v === undefined || v === null) return "";
  if (typeof v === "string" || v instanceof ArrayBuffer || v instanceof Uint8Array) return v;
  return JSON.stringify(v) ?? "";
};

// What module build makes an entry with.
export const entry = (name, f) => (buffer) => {
  if (typeof f !== "function") throw new TypeError(name + " is no function");
  const result = f(new Params(buffer));
  return result instanceof Promise ? result.then(encode) : encode(result);
};

// What scripts find everywhere else.

const show = (v) => {
  if (typeof v === "string") return v;
  if (v instanceof Error) return v.stack ? v.name + ": " + v.message + "\n" + v.stack : String(v);
  if (typeof v === "object" && v !== null) {
    try {
      return JSON.stringify(v);
    } catch {
      return String(v);
    }
  }
  return String(v);
};
const line = (level) => (...a) => {
  for (const l of a.map(show).join(" ").split("\n")) log(level, l);
};
globalThis.console = { debug: line("debug"), log: line("info"), info: line("info"), warn: line("warn"), error: line("error"), trace: line("debug") };

// Each run's own: a generator with a seed would be copied with the module, seed and all.
Math.random = host.random;
globalThis.crypto = {
  getRandomValues: (array) => host.randomBytes(array),
  randomUUID() {
    const b = host.randomBytes(new Uint8Array(16));
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    const hex = Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  },
};

globalThis.TextEncoder ??= class TextEncoder {
  encoding = "utf-8";
  encode(text = "") {
    return new Uint8Array(host.encode(text));
  }
};
globalThis.TextDecoder ??= class TextDecoder {
  encoding = "utf-8";
  constructor(label = "utf-8") {
    if (!/^utf-?8$/i.test(label)) throw new RangeError("TextDecoder: only UTF-8 is decoded");
  }
  decode(data = new ArrayBuffer(0)) {
    return host.decode(data);
  }
};
