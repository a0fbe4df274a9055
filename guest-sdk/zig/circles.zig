//! What a script module written in Zig imports: the contexts of the two peers that a
//! script concerns, a log, and the entries that a host calls. The whole of one:
//!
//!     const std = @import("std");
//!     const circles = @import("circles");
//!
//!     comptime {
//!         circles.entry("run", greet);
//!     }
//!
//!     fn greet(_: []const u8) ![]const u8 {
//!         const card = try circles.caller.read("/card.txt");
//!         return std.mem.concat(circles.allocator, u8, &.{ "hello, ", card });
//!     }
//!
//!     zig build-exe -target wasm32-wasi -mexec-model=reactor -fno-entry -rdynamic \
//!       -O ReleaseSmall --dep circles -Mroot=main.zig -Mcircles=guest-sdk/zig/circles.zig
//!
//! Memory: what a function returns belongs to the caller, who frees it with
//! `allocator`; the params are the SDK's, which also copies what a handler returns and
//! leaves that to the handler. A module that runs once per instance, as circles hosts
//! run them, may leave all of it to the end of the instance. When memory runs out for
//! what the host returns the module traps: the script fails, and nothing that it wrote
//! remains.
//!
//! Errors are of `Error`, in the order of contexts.error-code in host.wit; `message()` is
//! the host's sentence about the last one.
//!
//! The layouts below are those of the Canonical ABI
//! (https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md)
//! for package circles:host@0.1.2, wit/deps/circles-host/host.wit.

const std = @import("std");

/// What is returned is allocated with this.
pub const allocator = std.heap.wasm_allocator;

/// Why an operation did not succeed, or an entry.
pub const Error = error{
    /// No such file, directory or record, or one that the policy hides.
    NotFound,
    /// The policy of the context's owner does not allow it.
    Denied,
    /// There is something with that name.
    Exists,
    /// A path component is not a directory, or a file was expected.
    NotDirectory,
    /// A directory, where a file was expected.
    IsDirectory,
    /// A directory that has entries.
    NotEmpty,
    /// A path or argument that can never be right.
    Invalid,
    /// More than a limit or quota allows.
    TooLarge,
    /// The context cannot be changed by this script; the caller's never can.
    ReadOnly,
    /// The context's host cannot be reached now.
    Unavailable,
    /// The host failed.
    Io,
    /// The record is not as it was expected to be.
    Conflict,
    /// A value is not as the collection's schema says; `violations` say where.
    Violates,
    /// The module or script that was called failed; `message` is its own.
    Failed,
};

/// By the numbers that the host has for them.
pub const codes = [_]Error{
    error.NotFound,
    error.Denied,
    error.Exists,
    error.NotDirectory,
    error.IsDirectory,
    error.NotEmpty,
    error.Invalid,
    error.TooLarge,
    error.ReadOnly,
    error.Unavailable,
    error.Io,
    error.Conflict,
    error.Violates,
    error.Failed,
};

/// The sentence of the last error of the host's, or of `fail`. It is there until the
/// next.
pub fn message() []const u8 {
    return last.items;
}

/// One way in which a value is not as its collection's schema says. Both are parts of
/// `message`.
pub const Violation = struct {
    /// Where in the value, a JSON Pointer (RFC 6901); "" for all of it.
    path: []const u8,
    reason: []const u8,
};

/// Those that the last error tells of, if it was error.Violates: `next` until null.
pub fn violations() Violations {
    return .{ .lines = std.mem.splitScalar(u8, message(), '\n') };
}

pub const Violations = struct {
    lines: std.mem.SplitIterator(u8, .scalar),

    pub fn next(self: *Violations) ?Violation {
        while (self.lines.next()) |line| {
            const end = std.mem.indexOf(u8, line, ": ") orelse continue;
            if (end == 0 or line[0] == '/') return .{ .path = line[0..end], .reason = line[end + 2 ..] };
        }
        return null;
    }
};

/// Fails the entry with a sentence for the person who reads the receipt:
/// `return circles.fail("nobody comes", .{})`.
pub fn fail(comptime format: []const u8, args: anytype) error{Failed} {
    const text = std.fmt.allocPrint(allocator, format, args) catch @trap();
    remember(text);
    return error.Failed;
}

/// The context of the peer that sent this script: what it lent. It can never be changed.
pub const caller: Context = .{ .party = .caller };

/// The context that this script runs in.
pub const target: Context = .{ .party = .target };

/// What a name stands for; contexts.kind in host.wit.
pub const Kind = enum(u8) {
    file,
    directory,
    link,
    other,
};

/// One name in a directory.
pub const Entry = struct { name: []u8, kind: Kind };

/// What is known of a file or directory.
pub const Stat = struct {
    kind: Kind,
    /// Bytes; 0 for a directory.
    size: u64,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    modified: u64,
};

/// One record. A value of null is one that the policy hides.
pub const Record = struct { key: []u8, value: ?[]u8 };

/// Some records of a collection, and where to go on from; empty at the end.
pub const Page = struct {
    records: []Record,
    next: []u8,

    pub fn deinit(self: Page) void {
        for (self.records) |r| {
            allocator.free(r.key);
            if (r.value) |v| allocator.free(v);
        }
        allocator.free(self.records);
        allocator.free(self.next);
    }
};

/// Frees what `Context.list` returned.
pub fn freeEntries(entries: []Entry) void {
    for (entries) |e| allocator.free(e.name);
    allocator.free(entries);
}

/// The named environment of a peer: its files and records, as far as that peer's policy
/// lets this script at them. It is a name rather than an open handle. Paths are UTF-8,
/// slash-separated, and start at the context's root.
pub const Context = struct {
    party: enum(u1) { caller, target },

    /// The peer's identity, "did:key:z6Mk…".
    pub fn id(self: Context) []u8 {
        var ret: List = undefined;
        host.@"[method]context.id"(handle(self), &ret);
        return ret.bytes();
    }

    /// The name that the target's owner gave this peer; empty for a stranger.
    pub fn name(self: Context) []u8 {
        var ret: List = undefined;
        host.@"[method]context.name"(handle(self), &ret);
        return ret.bytes();
    }

    /// The whole contents of a file, of at most 16 MiB.
    pub fn read(self: Context, path: []const u8) Error![]u8 {
        var ret: ListResult = undefined;
        host.@"[method]context.read"(handle(self), at(path), path.len, &ret);
        return ret.bytes();
    }

    /// Up to length bytes from offset; fewer at the end of the file, none beyond it.
    pub fn readAt(self: Context, path: []const u8, offset: u64, length: u32) Error![]u8 {
        var ret: ListResult = undefined;
        host.@"[method]context.read-at"(handle(self), at(path), path.len, offset, length, &ret);
        return ret.bytes();
    }

    /// Replaces a file, or makes one; directories on the way must be there.
    pub fn write(self: Context, path: []const u8, data: []const u8) Error!void {
        var ret: ListResult = undefined;
        host.@"[method]context.write"(handle(self), at(path), path.len, at(data), data.len, &ret);
        return ret.nothing();
    }

    /// Adds to the end of a file, or makes one.
    pub fn append(self: Context, path: []const u8, data: []const u8) Error!void {
        var ret: ListResult = undefined;
        host.@"[method]context.append"(handle(self), at(path), path.len, at(data), data.len, &ret);
        return ret.nothing();
    }

    /// The entries of a directory, in name order. Free with `freeEntries`.
    pub fn list(self: Context, path: []const u8) Error![]Entry {
        var ret: ListResult = undefined;
        host.@"[method]context.list"(handle(self), at(path), path.len, &ret);
        if (ret.is_err != 0) return ret.v.err.failure();
        const raw = ret.v.ok.elements(RawEntry);
        defer allocator.free(raw);
        const out = allocator.alloc(Entry, raw.len) catch @trap();
        for (raw, out) |from, *to| to.* = .{ .name = from.name.bytes(), .kind = kindOf(from.kind) };
        return out;
    }

    /// What is there, behind any links.
    pub fn stat(self: Context, path: []const u8) Error!Stat {
        var ret: StatResult = undefined;
        host.@"[method]context.stat"(handle(self), at(path), path.len, &ret);
        if (ret.is_err != 0) return ret.v.err.failure();
        const s = ret.v.ok;
        return .{ .kind = kindOf(s.kind), .size = s.size, .modified = s.modified };
    }

    /// Makes one directory; the one above it must be there.
    pub fn makeDirectory(self: Context, path: []const u8) Error!void {
        var ret: ListResult = undefined;
        host.@"[method]context.make-directory"(handle(self), at(path), path.len, &ret);
        return ret.nothing();
    }

    /// Removes a file, a link or an empty directory.
    pub fn remove(self: Context, path: []const u8) Error!void {
        var ret: ListResult = undefined;
        host.@"[method]context.remove"(handle(self), at(path), path.len, &ret);
        return ret.nothing();
    }

    /// The value of a record.
    pub fn getRecord(self: Context, collection: []const u8, key: []const u8) Error![]u8 {
        var ret: ListResult = undefined;
        host.@"[method]context.get-record"(handle(self), at(collection), collection.len, at(key), key.len, &ret);
        return ret.bytes();
    }

    /// Makes a record, or replaces its value, of at most 1 MiB.
    pub fn putRecord(self: Context, collection: []const u8, key: []const u8, value: []const u8) Error!void {
        var ret: ListResult = undefined;
        host.@"[method]context.put-record"(handle(self), at(collection), collection.len, at(key), key.len, at(value), value.len, &ret);
        return ret.nothing();
    }

    /// Puts a record if its value is expected, and for null if there is no such record.
    /// Else it is error.Conflict, and nothing changes.
    pub fn replaceRecord(self: Context, collection: []const u8, key: []const u8, expected: ?[]const u8, value: []const u8) Error!void {
        var ret: ListResult = undefined;
        const was = expected orelse "";
        const some = @intFromBool(expected != null);
        host.@"[method]context.replace-record"(handle(self), at(collection), collection.len, at(key), key.len, some, at(was), was.len, at(value), value.len, &ret);
        return ret.nothing();
    }

    /// Removes a record. One that is not there is error.NotFound.
    pub fn deleteRecord(self: Context, collection: []const u8, key: []const u8) Error!void {
        var ret: ListResult = undefined;
        host.@"[method]context.delete-record"(handle(self), at(collection), collection.len, at(key), key.len, &ret);
        return ret.nothing();
    }

    /// Records whose keys begin with prefix and are not less than start; both may be "".
    /// At most limit of them, or, with 0, as many as the host gives at once. Free with
    /// `Page.deinit`.
    pub fn listRecords(self: Context, collection: []const u8, start: []const u8, prefix: []const u8, limit: u32) Error!Page {
        var ret: PageResult = undefined;
        host.@"[method]context.list-records"(handle(self), at(collection), collection.len, at(start), start.len, at(prefix), prefix.len, limit, &ret);
        return ret.page();
    }

    /// A page of the records that a query is true of, a JSON text that host.wit describes.
    /// start is "", or the next of the page before. Free with `Page.deinit`.
    pub fn queryRecords(self: Context, collection: []const u8, query: []const u8, start: []const u8, limit: u32) Error!Page {
        var ret: PageResult = undefined;
        host.@"[method]context.query-records"(handle(self), at(collection), collection.len, at(query), query.len, at(start), start.len, limit, &ret);
        return ret.page();
    }

    /// Sends a script from this context's peer, which is to be the target, to another one,
    /// and returns its result. to is a did:key or the name that the context's owner gave the
    /// peer; logic a module's name, or "sha256:" and a digest in hex; "" is the entry run. A
    /// script that fails is error.Failed.
    pub fn send(self: Context, to: []const u8, logic: []const u8, entry_name: []const u8, params: []const u8) Error![]u8 {
        var ret: ListResult = undefined;
        host.@"[method]context.send"(handle(self), at(to), to.len, at(logic), logic.len, at(entry_name), entry_name.len, at(params), params.len, &ret);
        return ret.bytes();
    }
};

/// Runs an entry of another module of the target's context, in the same transaction; "" is
/// the entry run. If it fails that is error.Failed, and nothing that it wrote remains.
pub fn call(module: []const u8, entry_name: []const u8, params: []const u8) Error![]u8 {
    var ret: ListResult = undefined;
    modules_host.call(at(module), module.len, at(entry_name), entry_name.len, at(params), params.len, &ret);
    return ret.bytes();
}

/// Runs an entry of what this module stands before, the next of its chain or the layer
/// below; "" is the entry that this one was entered by. Without it is error.NotFound.
pub fn base(entry_name: []const u8, params: []const u8) Error![]u8 {
    var ret: ListResult = undefined;
    modules_host.base(at(entry_name), entry_name.len, at(params), params.len, &ret);
    return ret.bytes();
}

/// The entry that was asked for: a module of a chain that lacks it is entered by run.
pub fn entryName() []u8 {
    var ret: List = undefined;
    modules_host.entry(&ret);
    return ret.bytes();
}

/// How much a line of the log matters; log.level in host.wit.
pub const Level = enum(u8) {
    debug,
    info,
    warn,
    err,
};

/// Adds a line to the log that is kept with the receipt.
pub fn log(level: Level, text: []const u8) void {
    log_host.write(@intFromEnum(level), at(text), text.len);
}

/// Defines an entry, one that a script can name, in kebab case. The handler is a
/// `fn (params: []const u8) ![]const u8`. An error fails the script: with the host's
/// sentence if it is an `Error`, with what `fail` said, or else by its name.
pub fn entry(comptime export_name: []const u8, comptime handler: anytype) void {
    const Wrapper = struct {
        fn call(data: [*]u8, len: usize) callconv(.c) *const Returned {
            const params = (List{ .data = data, .len = len }).bytes();
            if (handler(params)) |out| {
                keep(0, out);
            } else |e| {
                keep(1, sentence(e));
            }
            allocator.free(params);
            dropHandles();
            return &returned;
        }
    };
    @export(&Wrapper.call, .{ .name = export_name });
}

fn sentence(e: anyerror) []const u8 {
    if (e == error.Failed) return message();
    for (codes) |code| {
        if (e == code) return message();
    }
    return @errorName(e);
}

// ---- Memory ----

/// The host makes room for what it returns here.
export fn cabi_realloc(old: [*]u8, old_size: usize, alignment: usize, size: usize) usize {
    if (size == 0 and old_size == 0) return alignment; // stands for an empty list, and is never read
    if (size > std.math.maxInt(isize) or alignment > 8) @trap();
    const al = std.mem.Alignment.fromByteUnits(alignment);
    const block = allocator.rawAlloc(@max(size, 1), al, 0) orelse @trap();
    if (old_size > 0) {
        @memcpy(block[0..@min(old_size, size)], old[0..@min(old_size, size)]);
        allocator.rawFree(old[0..old_size], al, 0);
    }
    return @intFromPtr(block);
}

/// Where a list or string begins. Allocators give empty ones an address beyond memory,
/// which a host refuses.
fn at(bytes: []const u8) [*]const u8 {
    return if (bytes.len == 0) "" else bytes.ptr;
}

/// A list or string.
const List = extern struct {
    data: [*]u8,
    len: usize,

    fn bytes(self: List) []u8 {
        return self.elements(u8);
    }

    fn elements(self: List, T: type) []T {
        if (self.len == 0) return &.{};
        const first: [*]T = @ptrCast(@alignCast(self.data));
        return first[0..self.len];
    }
};

// A tag, a code and a kind are one byte; the host leaves the bytes after it as they
// were.

const RawError = extern struct {
    code: u8,
    message: List,

    fn failure(self: RawError) Error {
        remember(self.message.bytes());
        return if (self.code < codes.len) codes[self.code] else error.Io;
    }
};

/// result<list<T>, error>, or result<_, error>.
const ListResult = extern struct {
    is_err: u8,
    v: extern union { ok: List, err: RawError },

    fn bytes(self: ListResult) Error![]u8 {
        if (self.is_err != 0) return self.v.err.failure();
        return self.v.ok.bytes();
    }

    fn nothing(self: ListResult) Error!void {
        if (self.is_err != 0) return self.v.err.failure();
    }
};

const RawStat = extern struct { kind: u8, size: u64, modified: u64 };
const StatResult = extern struct { is_err: u8, v: extern union { ok: RawStat, err: RawError } };
const RawEntry = extern struct { name: List, kind: u8 };
const RawItem = extern struct { key: List, some: u8, value: List };
const RawPage = extern struct { items: List, next: List };
const PageResult = extern struct {
    is_err: u8,
    v: extern union { ok: RawPage, err: RawError },

    fn page(self: PageResult) Error!Page {
        if (self.is_err != 0) return self.v.err.failure();
        const raw = self.v.ok.items.elements(RawItem);
        defer allocator.free(raw);
        const out = allocator.alloc(Record, raw.len) catch @trap();
        for (raw, out) |from, *to| to.* = .{ .key = from.key.bytes(), .value = if (from.some != 0) from.value.bytes() else null };
        return .{ .records = out, .next = self.v.ok.next.bytes() };
    }
};

// The layouts that the ABI gives them; a difference does not compile.
comptime {
    std.debug.assert(@sizeOf(ListResult) == 16 and @sizeOf(StatResult) == 32 and @sizeOf(PageResult) == 20);
    std.debug.assert(@sizeOf(RawEntry) == 12 and @sizeOf(RawItem) == 20 and @sizeOf(Returned) == 12);
}

fn kindOf(n: u8) Kind {
    return if (n < 3) @enumFromInt(n) else .other;
}

/// The sentence of the last error, which is ours.
var last: struct { items: []u8 } = .{ .items = &.{} };

fn remember(text: []u8) void {
    allocator.free(last.items);
    last.items = text;
}

// ---- Handles ----

/// Handles are got when first needed and dropped after each entry: a host may initialise
/// a module once, without any context, and copy it.
var handles = [2]?u32{ null, null };

fn handle(of: Context) u32 {
    const held = &handles[@intFromEnum(of.party)];
    if (held.*) |h| return h;
    const got = if (of.party == .caller) host.caller() else host.target();
    held.* = got;
    return got;
}

fn dropHandles() void {
    for (&handles) |*held| {
        if (held.*) |h| {
            held.* = null;
            host.@"[resource-drop]context"(h);
        }
    }
}

// ---- Entries ----

/// result<list<u8>, string>. One is enough, and there is no cabi_post_ to free it: an
/// instance runs one entry at a time, and the host has read the result before it calls
/// the next.
const Returned = extern struct { is_err: u8, data: [*]const u8, len: usize };

var returned: Returned = undefined;
var result: []u8 = &.{};

fn keep(is_err: u8, bytes: []const u8) void {
    const copy = allocator.dupe(u8, bytes) catch @trap();
    allocator.free(result);
    result = copy;
    returned = .{ .is_err = is_err, .data = at(copy), .len = copy.len };
}

// ---- Host functions ----

const host = struct {
    extern "circles:host/contexts@0.1.2" fn caller() u32;
    extern "circles:host/contexts@0.1.2" fn target() u32;
    extern "circles:host/contexts@0.1.2" fn @"[resource-drop]context"(self: u32) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.id"(self: u32, ret: *List) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.name"(self: u32, ret: *List) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.read"(self: u32, path: [*]const u8, len: usize, ret: *ListResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.read-at"(self: u32, path: [*]const u8, len: usize, offset: u64, length: u32, ret: *ListResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.write"(self: u32, path: [*]const u8, len: usize, data: [*]const u8, size: usize, ret: *ListResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.append"(self: u32, path: [*]const u8, len: usize, data: [*]const u8, size: usize, ret: *ListResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.list"(self: u32, path: [*]const u8, len: usize, ret: *ListResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.stat"(self: u32, path: [*]const u8, len: usize, ret: *StatResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.make-directory"(self: u32, path: [*]const u8, len: usize, ret: *ListResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.remove"(self: u32, path: [*]const u8, len: usize, ret: *ListResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.get-record"(self: u32, name: [*]const u8, len: usize, key: [*]const u8, key_len: usize, ret: *ListResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.put-record"(self: u32, name: [*]const u8, len: usize, key: [*]const u8, key_len: usize, value: [*]const u8, size: usize, ret: *ListResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.delete-record"(self: u32, name: [*]const u8, len: usize, key: [*]const u8, key_len: usize, ret: *ListResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.list-records"(self: u32, name: [*]const u8, len: usize, start: [*]const u8, start_len: usize, prefix: [*]const u8, prefix_len: usize, limit: u32, ret: *PageResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.replace-record"(self: u32, name: [*]const u8, len: usize, key: [*]const u8, key_len: usize, some: u32, expected: [*]const u8, expected_size: usize, value: [*]const u8, size: usize, ret: *ListResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.query-records"(self: u32, name: [*]const u8, len: usize, query: [*]const u8, query_len: usize, start: [*]const u8, start_len: usize, limit: u32, ret: *PageResult) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.send"(self: u32, to: [*]const u8, to_len: usize, logic: [*]const u8, logic_len: usize, entry_name: [*]const u8, entry_len: usize, params: [*]const u8, size: usize, ret: *ListResult) void;
};

const modules_host = struct {
    extern "circles:host/modules@0.1.2" fn call(name: [*]const u8, len: usize, entry_name: [*]const u8, entry_len: usize, params: [*]const u8, size: usize, ret: *ListResult) void;
    extern "circles:host/modules@0.1.2" fn base(entry_name: [*]const u8, len: usize, params: [*]const u8, size: usize, ret: *ListResult) void;
    extern "circles:host/modules@0.1.2" fn entry(ret: *List) void;
};

const log_host = struct {
    extern "circles:host/log@0.1.2" fn write(level: u32, text: [*]const u8, len: usize) void;
};
