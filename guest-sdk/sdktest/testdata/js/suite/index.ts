// The JavaScript guest of sdktest's suite, which says what each entry does.
import { caller, CirclesError, Context, log, modules, Params, Query, target } from "circles";

export const run = (params: Params) => params.bytes();

const contextOf = (word: string): Context => (/^[A-Z]/.test(word) ? caller : target);

// Words separates text by spaces, the last of n taking the rest.
const words = (text: string, n: number): string[] => {
  const list: string[] = [];
  while (list.length < n - 1 && text.includes(" ")) {
    const at = text.indexOf(" ");
    list.push(text.slice(0, at));
    text = text.slice(at + 1);
  }
  list.push(text);
  while (list.length < n) list.push("");
  return list;
};

const codes = ["not-found", "denied", "exists", "not-directory", "is-directory", "not-empty", "invalid", "too-large", "read-only", "unavailable", "io",
  "conflict", "violates", "failed"];
const kinds = ["file", "directory", "link", "other"];
const decode = (b: Uint8Array) => new TextDecoder().decode(b);
const shown = (b: Uint8Array) => `${b.length} ${decode(b)}`;

const answer = (f: () => string | void, passOn = false): string => {
  try {
    return f() ?? "";
  } catch (e) {
    if (passOn || !(e instanceof CirclesError)) throw e;
    const violations = e.violations.map((v) => `; ${v.path}: ${v.reason}`).join("");
    return `code ${codes.indexOf(e.code)}, ${e.message ? "with" : "without"} a message${violations}`;
  }
};

export function op(params: Params) {
  const [word, path, rest] = words(params.text(), 3);
  const its = contextOf(word);
  const operations: { [op: string]: () => string | void } = {
    read: () => shown(its.read(path)),
    // BigInt: an offset may be more than a number can say; what is left of it then is far beyond any file.
    part: () => shown(its.readAt(path, Math.min(Number(BigInt(rest)), Number.MAX_SAFE_INTEGER), 3)),
    write: () => its.write(path, rest),
    append: () => its.append(path, rest),
    mkdir: () => its.makeDirectory(path),
    remove: () => its.remove(path),
    who: () => `${its.id} ${its.name}`,
    stat: () => {
      const s = its.stat(path);
      return `kind ${kinds.indexOf(s.kind)} size ${s.size} modified ${s.modified.getTime()}`;
    },
    list: () => its.list(path).map((e) => `${e.name}:${kinds.indexOf(e.kind)} `).join(""),
  };
  const operation = operations[word.toLowerCase()];
  if (!operation) throw new Error("params: no such operation");
  return answer(operation, rest === "pass on");
}

export function record(params: Params) {
  const [word, name, rest] = words(params.text(), 3);
  const its = contextOf(word).collection(name);
  const [key, value] = words(rest, 2);
  const operations: { [op: string]: () => string | void } = {
    get: () => shown(its.get(key)),
    put: () => its.put(key, value),
    delete: () => its.delete(key),
    make: () => its.replace(key, undefined, value),
    replace: () => {
      const [expected, next] = words(value, 2);
      its.replace(key, expected, next);
    },
    list: () => {
      const [start, prefix, limit] = rest.split(" ").map((w) => (w === "-" ? "" : w));
      return page(its.page({ start, prefix, limit: Number(limit) }));
    },
    query: () => {
      const [start, limit, query] = words(rest, 3);
      return page(its.queryPage(query, { start: start.replace(/^-$/, ""), limit: Number(limit) }));
    },
  };
  return answer(operations[word.toLowerCase()]);
}

const page = ({ records, next }: ReturnType<ReturnType<Context["collection"]>["page"]>) =>
  records.map((r) => `${r.key}=${r.value ? decode(r.value) : "(denied)"} `).join("") + "next:" + next;

export function others(params: Params) {
  const [word, name, logic, dash, rest] = words(params.text(), 5);
  const entry = dash === "-" ? undefined : dash;
  const operations: { [op: string]: () => string } = {
    call: () => shown(modules.call(name, entry, rest).bytes()),
    base: () => shown(modules.base(entry, rest).bytes()),
    send: () => shown(contextOf(word).send(name, logic, entry, rest).bytes()),
    entry: () => modules.entry,
  };
  return answer(operations[word.toLowerCase()]);
}

export function queries() {
  const all = target.collection("found");
  for (let n = 0; n < 25; n++) all.putJSON(String(n).padStart(2, "0"), { n });
  const found = (query: Query) => [...all.query(query)].map((r) => r.key).join(" ");
  check(found({ limit: 12 }), "00 01 02 03 04 05 06 07 08 09 10 11", "the first");
  const where = { and: [{ field: "/n", from: 5, below: 20 }, { or: [{ field: "/n", above: 8 }, { field: "/n", equals: 6 }] }] };
  check(found({ where, order: [{ field: "/n", descending: true }], limit: 12 }), "19 18 17 16 15 14 13 12 11 10 09 06", "the last");
  check(found({ where: { field: "/n", to: 1 } }), "00 01", "few");
  check(found({ where: { field: "/n", prefix: "1" } }), "", "none");
  check(all.queryPage(JSON.stringify({ where })).records.length, 10, "a page");
  return "ok";
}

export function logLines(params: Params) {
  for (const level of ["debug", "info", "warn", "error"] as const) log(level, params.text());
}

export function fail(params: Params) {
  if (params.text() === "trap") (function again(): number { return again() + 1; })();
  throw new Error(params.text());
}

const PART = 16 << 20;

// The byte at i of a part.
const byteAt = (part: number, i: number) => (i * 7 + Math.floor(i / 251) + part) & 0xff;

export function large(params: Params) {
  const parts = Number(params.text());
  const part = new Uint8Array(PART);
  for (let n = 0; n < parts; n++) {
    // Every byte in a loop would be a test of the interpreter's patience.
    for (let i = 0; i < PART; i += 4096) part[i] = byteAt(n, i);
    if (n) target.append("/large", part);
    else target.write("/large", part);
  }
  let total = 0;
  for (let n = 0; n < parts; n++) {
    const got = target.readAt("/large", n * PART, PART);
    for (let i = 0; i < PART; i += 4096) {
      if (got[i] !== byteAt(n, i)) throw new Error(`byte ${i} of part ${n} is another`);
    }
    total += got.length;
  }
  return String(total);
}

const check = (got: unknown, want: unknown, what: string) => {
  if (JSON.stringify(got) !== JSON.stringify(want)) throw new Error(`${what} is ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
};

const codeOf = (f: () => unknown) => {
  try {
    f();
  } catch (e) {
    return (e as CirclesError).code ?? String(e);
  }
  return "nothing";
};

export async function habits() {
  target.write("/habits", "é €\u{1F600}\n");
  check(target.readText("/habits"), "é €\u{1F600}\n", "text");
  check(new TextEncoder().encode("é").length, 2, "UTF-8");
  target.write("/habits", new Uint8Array([1, 2, 3, 4]).subarray(1, 3));
  check([...target.read("/habits")], [2, 3], "a part of an array");
  target.write("/habits", new Uint8Array([5, 6]).buffer);
  check([...target.read("/habits")], [5, 6], "a buffer");
  target.write("/habits", JSON.stringify({ a: [1, null] }));
  check(target.readJSON("/habits"), { a: [1, null] }, "JSON");
  check(target.exists("/habits"), true, "/habits");
  check(target.exists("/none"), false, "/none");
  check(codeOf(() => target.read("/none")), "not-found", "/none");
  check(codeOf(() => target.read("/a\0b")), "invalid", "a NUL");
  check(codeOf(() => target.write("/dir", "x")), "is-directory", "/dir");
  check(target.list("/dir"), [{ name: "file", kind: "file" }, { name: "sub", kind: "directory" }], "/dir");

  const many = target.collection("many");
  for (let n = 0; n < 25; n++) many.putJSON(String(n).padStart(2, "0"), { n });
  let sum = 0;
  for (const { value } of many.all("1")) sum += JSON.parse(decode(value!)).n;
  check(sum, 145, "the sum");
  check(codeOf(() => target.collection("NOT").get("x")), "invalid", "NOT");

  const later = [1, 2, 3].map(async (n) => {
    await null;
    return n * 2;
  });
  check(await Promise.all(later), [2, 4, 6], "what was promised");
  const [a, b] = [Math.random(), Math.random()];
  check(a >= 0 && a < 1 && a !== b, true, "chance");
  check(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID()), true, "a UUID");
  return "ok";
}

// The interpreter gives a script no numbers to call the host with; what it gives takes
// any value.
export function raw() {
  const odd = [undefined, null, NaN, -1, 2 ** 53, "x".repeat(5000), "\ud800", "../..", {}, [], Symbol.iterator, () => 1, 10n];
  const methods = ["read", "readText", "readAt", "write", "append", "list", "stat", "makeDirectory", "remove", "collection", "send"] as const;
  let threw = 0;
  for (const a of odd) {
    for (const b of odd) {
      for (const m of methods) {
        try {
          (target as any)[m](a, b, b);
        } catch (e) {
          if (!(e instanceof Error)) throw new Error(`${m} threw ${String(e)}`);
          threw++;
        }
      }
    }
  }
  const host = (globalThis as any).circlesHost;
  for (const name of Object.keys(host)) {
    for (const a of odd) {
      try {
        host[name](a, a, a, a, a);
        host[name]();
      } catch {
        threw++;
      }
    }
  }
  return String(threw > 500);
}
