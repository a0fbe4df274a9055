// What the host and the compiler call. asconfig.json names it as an entry file, as
// asc exports nothing of others.
import * as host from "./host";
import { Level, log } from "./index";

// The host makes room here for what it returns: outside of what is collected.
export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  if (size == 0) return align; // never read, and never freed
  if (align > 16) unreachable();
  return old && oldSize ? heap.realloc(old, size) : heap.alloc(size);
}

// asc calls these for what in AssemblyScript has no other place to go.

export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const what = message ? message : "aborted";
  const where = file ? file : "?";
  log(Level.Error, what + " at " + where + ":" + line.toString() + ":" + column.toString());
  unreachable();
}

export function seed(): f64 {
  const at = memory.data(8, 8);
  host.random(at, 8);
  return reinterpret<f64>((load<u64>(at) >> 12) | 0x3ff0000000000000) - 1; // in [0, 1)
}

export function trace(message: string, n: i32 = 0, a: f64 = 0, b: f64 = 0, c: f64 = 0, d: f64 = 0, e: f64 = 0): void {
  let text = message;
  if (n > 0) text += " " + a.toString();
  if (n > 1) text += ", " + b.toString();
  if (n > 2) text += ", " + c.toString();
  if (n > 3) text += ", " + d.toString();
  if (n > 4) text += ", " + e.toString();
  log(Level.Debug, text);
}
