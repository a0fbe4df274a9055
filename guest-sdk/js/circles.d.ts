/**
 * What a script module in JavaScript or TypeScript imports: the contexts of the two
 * peers that a script concerns, and a log.
 *
 *     import { caller, target } from "circles";
 *
 *     export function run(params) {
 *       const { message } = params.json();
 *       target.append("/book.txt", `${caller.name}: ${message}\n`);
 *       return { lines: target.readText("/book.txt").split("\n").length - 1 };
 *     }
 *
 * Every function that index.js or index.ts exports is an entry that a script can name:
 * run the default, logLines as log-lines. What it returns is the result: text and bytes
 * as they are, anything else as JSON. What it throws fails the script with its message,
 * and nothing that the script wrote remains. It may be async; nothing runs beside it,
 * so there are no timers, and no network.
 *
 * A call gets a fresh instance, which may be a copy of one that has run the top level of
 * all files without any context in reach: nothing there may use caller or target, and
 * what it computes is the same in every call.
 */
declare module "circles" {
  /** What a script is sent with; also what another module or script returned. */
  export interface Params {
    bytes(): Uint8Array;
    text(): string;
    /** undefined when there are none. */
    json(): any;
  }

  // prettier-ignore
  export type Code = (
    "not-found" | // no such file or directory, or one that the policy hides
    "denied" | // the policy of the context's owner does not allow it
    "exists" | // there is something with that name
    "not-directory" | // a path component is not a directory, or a file was expected
    "is-directory" | // a directory, where a file was expected
    "not-empty" | // a directory that has entries
    "invalid" | // a path or argument that can never be right
    "too-large" | // more than a limit or quota allows
    "read-only" | // the context cannot be changed by this script
    "unavailable" | // the context's host cannot be reached now
    "io" | // the host failed
    "conflict" | // the record is not as it was expected to be
    "violates" | // a value is not as the collection's schema says; see violations
    "failed" // the module or script that was called failed; the message is its own
  );

  /** What every operation throws, with a sentence for the person who reads the receipt. */
  export class CirclesError extends Error {
    readonly code: Code;
    /** Of the code "violates": where the value is not as it should be, and why. */
    readonly violations: Violation[];
    constructor(code: Code, message: string);
  }
  export interface Violation {
    /** A JSON Pointer into the value (RFC 6901); "" is all of it. */
    path: string;
    reason: string;
  }

  export type Kind = "file" | "directory" | "link" | "other";
  export interface Stat {
    kind: Kind;
    /** Bytes; 0 for a directory. */
    size: number;
    modified: Date;
  }
  export interface Entry {
    name: string;
    kind: Kind;
  }

  /**
   * The named environment of a peer, as far as its policy lets this script at it. Paths
   * are slash-separated and start at the context's root; a leading "/" may be left out.
   */
  export interface Context {
    /** The peer's identity, "did:key:z6Mk…". */
    readonly id: string;
    /** The name that the target's owner gave this peer; "" for a stranger. */
    readonly name: string;
    /** The whole contents of a file, of at most 16 MiB. */
    read(path: string): Uint8Array;
    readText(path: string): string;
    readJSON(path: string): any;
    /** Up to length bytes from offset; fewer at the end of the file only. */
    readAt(path: string, offset: number, length: number): Uint8Array;
    /** Replaces a file, or makes one; directories on the way must be there. */
    write(path: string, data: string | Uint8Array | ArrayBuffer): void;
    /** Adds to the end of a file, or makes one. */
    append(path: string, data: string | Uint8Array | ArrayBuffer): void;
    /** The entries of a directory, in name order. */
    list(path: string): Entry[];
    /** What is there, behind any links. */
    stat(path: string): Stat;
    exists(path: string): boolean;
    /** Makes one directory; the one above it must be there. */
    makeDirectory(path: string): void;
    /** Removes a file, a link or an empty directory. */
    remove(path: string): void;
    /** The records of a name: values by key. The name is in kebab case. */
    collection(name: string): Collection;
    /**
     * Sends a script from this context's peer, which is to be the target, to another one, and
     * waits for its result. to is a did:key or the name that the target's owner gave it;
     * logic a module's name, or "sha256:" and a digest in hex; entry is run if left out.
     */
    send(to: string, logic: string, entry?: string, params?: unknown): Params;
  }

  /**
   * The records of one name in a context: values of at most 1 MiB, by keys of 1 to 1,024
   * bytes, in the order of their bytes. A script is one transaction: what it gets nobody
   * changes before it puts.
   */
  export interface Collection {
    get(key: string): Uint8Array;
    getText(key: string): string;
    getJSON(key: string): any;
    /** Makes a record, or replaces its value. */
    put(key: string, value: string | Uint8Array | ArrayBuffer): void;
    putJSON(key: string, value: unknown): void;
    /**
     * Puts a record if its value is expected, and for undefined if there is no such record.
     * Else it throws "conflict", and nothing changes.
     */
    replace(key: string, expected: string | Uint8Array | ArrayBuffer | undefined, value: string | Uint8Array | ArrayBuffer): void;
    delete(key: string): void;
    /**
     * Records whose keys begin with prefix and are not less than start; at most limit of
     * them, or, with 0, as many as the host gives at once. next is the key to go on from,
     * as start; "" at the end.
     */
    page(options?: { start?: string; prefix?: string; limit?: number }): { records: Record[]; next: string };
    /** All of them, a page at a time. */
    all(prefix?: string): IterableIterator<Record>;
    /** The records that a query is true of, a page at a time. */
    query(query: Query | string): IterableIterator<Record>;
    /** One page of them. start is the next of the page before. */
    queryPage(query: Query | string, options?: { start?: string; limit?: number }): { records: Record[]; next: string };
  }

  /** What to find, by values that are JSON. Fields are JSON Pointers into them (RFC 6901). */
  export interface Query {
    where?: Condition;
    /** Without it, the order of the keys. */
    order?: { field: string; descending?: boolean }[];
    limit?: number;
  }
  export type Condition =
    | { field: string; equals: unknown }
    | { field: string; prefix: string }
    | { field: string; above?: unknown; from?: unknown; below?: unknown; to?: unknown }
    | { and: Condition[] }
    | { or: Condition[] };
  export interface Record {
    key: string;
    /** undefined: the policy does not let the script see what is in it. */
    value: Uint8Array | undefined;
  }

  /** The context of the peer that sent this script: what it lent, and nothing of it can be changed. */
  export const caller: Context;
  /** The context that this script runs in. */
  export const target: Context;

  /** Other modules. What was called and failed throws "failed", with words of its own. */
  export const modules: {
    /** Runs an entry of another module of the target's context, in the same transaction. */
    call(name: string, entry?: string, params?: unknown): Params;
    /**
     * Runs an entry of what this module stands before: the next of its chain, or the layer
     * below; entry is the one that this module was entered by if left out.
     */
    base(entry?: string, params?: unknown): Params;
    /** The entry that was asked for: a module of a chain that lacks it is entered by run. */
    readonly entry: string;
  };

  /** Adds a line to the log that is kept with the receipt; console does, too. */
  export function log(level: "debug" | "info" | "warn" | "error", message: string): void;
}
