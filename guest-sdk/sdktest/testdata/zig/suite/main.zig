//! The Zig guest of sdktest's suite, which says what each entry does.

const std = @import("std");
const circles = @import("circles");

const allocator = circles.allocator;

comptime {
    circles.entry("run", run);
    circles.entry("op", op);
    circles.entry("record", record);
    circles.entry("others", others);
    circles.entry("queries", queries);
    circles.entry("log-lines", logLines);
    circles.entry("fail", fail);
    circles.entry("large", large);
    circles.entry("habits", habits);
    circles.entry("raw", raw);
}

/// What a handler returns is copied, and freed before the next entry.
var made: []u8 = &.{};

fn give(out: []u8) []const u8 {
    allocator.free(made);
    made = out;
    return out;
}

fn print(comptime format: []const u8, args: anytype) ![]const u8 {
    return give(try std.fmt.allocPrint(allocator, format, args));
}

fn run(params: []const u8) ![]const u8 {
    return params;
}

/// The target, or the caller if the word is in capitals.
fn context(word: []const u8) circles.Context {
    return if (word.len > 0 and std.ascii.isUpper(word[0])) circles.caller else circles.target;
}

fn answer(outcome: circles.Error![]const u8, pass_on: bool) anyerror![]const u8 {
    return outcome catch |e| {
        if (pass_on) return e;
        for (circles.codes, 0..) |code, n| {
            if (e != code) continue;
            var out: std.ArrayList(u8) = .empty;
            try out.print(allocator, "code {d}, {s} a message", .{ n, if (circles.message().len > 0) "with" else "without" });
            if (e == error.Violates) {
                var wrong = circles.violations();
                while (wrong.next()) |v| try out.print(allocator, "; {s}: {s}", .{ v.path, v.reason });
            }
            return give(try out.toOwnedSlice(allocator));
        }
        return e;
    };
}

fn text(bytes: []u8) circles.Error![]const u8 {
    defer allocator.free(bytes);
    return print("{d} {s}", .{ bytes.len, bytes }) catch @trap();
}

fn nothing(_: void) []const u8 {
    return "";
}

fn op(params: []const u8) ![]const u8 {
    var words = std.mem.splitScalar(u8, params, ' ');
    const word = words.first();
    const path = words.next() orelse "";
    const rest = words.rest();
    for (operations) |o| {
        if (is(word, o)) return answer(operate(word, path, rest), std.mem.eql(u8, rest, "pass on"));
    }
    return circles.fail("params: no such operation", .{});
}

fn operate(word: []const u8, path: []const u8, rest: []const u8) circles.Error![]const u8 {
    const c = context(word);
    if (is(word, "read")) return text(try c.read(path));
    if (is(word, "part")) return text(try c.readAt(path, std.fmt.parseInt(u64, rest, 10) catch 0, 3));
    if (is(word, "write")) return nothing(try c.write(path, rest));
    if (is(word, "append")) return nothing(try c.append(path, rest));
    if (is(word, "mkdir")) return nothing(try c.makeDirectory(path));
    if (is(word, "remove")) return nothing(try c.remove(path));
    if (is(word, "stat")) {
        const s = try c.stat(path);
        return print("kind {d} size {d} modified {d}", .{ @intFromEnum(s.kind), s.size, s.modified }) catch @trap();
    }
    if (is(word, "list")) {
        const entries = try c.list(path);
        defer circles.freeEntries(entries);
        var out: std.ArrayList(u8) = .empty;
        for (entries) |e| out.print(allocator, "{s}:{d} ", .{ e.name, @intFromEnum(e.kind) }) catch @trap();
        return give(out.toOwnedSlice(allocator) catch @trap());
    }
    const id = c.id();
    defer allocator.free(id);
    const name = c.name();
    defer allocator.free(name);
    return print("{s} {s}", .{ id, name }) catch @trap();
}

const operations = [_][]const u8{ "read", "part", "write", "append", "mkdir", "remove", "stat", "list", "who" };

fn is(word: []const u8, op_name: []const u8) bool {
    return std.ascii.eqlIgnoreCase(word, op_name);
}

fn record(params: []const u8) ![]const u8 {
    return answer(operateOnRecord(params), false);
}

fn operateOnRecord(params: []const u8) circles.Error![]const u8 {
    var words = std.mem.splitScalar(u8, params, ' ');
    const word = words.first();
    const c = context(word);
    const name = words.next() orelse "";
    var key = words.next() orelse "";
    if (is(word, "get")) return text(try c.getRecord(name, key));
    if (is(word, "put")) return nothing(try c.putRecord(name, key, words.rest()));
    if (is(word, "delete")) return nothing(try c.deleteRecord(name, key));
    if (is(word, "make")) return nothing(try c.replaceRecord(name, key, null, words.rest()));
    const third = words.next() orelse "";
    if (is(word, "replace")) return nothing(try c.replaceRecord(name, key, third, words.rest()));
    key = dash(key);
    const page = try if (is(word, "query")) c.queryRecords(name, words.rest(), key, number(third)) else c.listRecords(name, key, dash(third), number(words.rest()));
    defer page.deinit();
    var out: std.ArrayList(u8) = .empty;
    for (page.records) |r| out.print(allocator, "{s}={s} ", .{ r.key, r.value orelse "(denied)" }) catch @trap();
    out.print(allocator, "next:{s}", .{page.next}) catch @trap();
    return give(out.toOwnedSlice(allocator) catch @trap());
}

fn dash(word: []const u8) []const u8 {
    return if (std.mem.eql(u8, word, "-")) "" else word;
}

fn number(word: []const u8) u32 {
    return std.fmt.parseInt(u32, word, 10) catch 0;
}

fn others(params: []const u8) ![]const u8 {
    return answer(operateOnOthers(params), false);
}

fn operateOnOthers(params: []const u8) circles.Error![]const u8 {
    var words = std.mem.splitScalar(u8, params, ' ');
    const word = words.first();
    const name = words.next() orelse "";
    const logic = words.next() orelse "";
    const entry = dash(words.next() orelse "");
    if (is(word, "call")) return text(try circles.call(name, entry, words.rest()));
    if (is(word, "base")) return text(try circles.base(entry, words.rest()));
    if (is(word, "send")) return text(try context(word).send(name, logic, entry, words.rest()));
    return give(circles.entryName());
}

fn queries(_: []const u8) ![]const u8 {
    for (0..25) |n| {
        var key: [2]u8 = undefined;
        var value: [16]u8 = undefined;
        _ = try std.fmt.bufPrint(&key, "{d:0>2}", .{n});
        try circles.target.putRecord("found", &key, try std.fmt.bufPrint(&value, "{{\"n\":{d}}}", .{n}));
    }
    const query =
        \\{"where": {"and": [{"field": "/n", "from": 5, "below": 20}, {"or": [{"field": "/n", "above": 8}, {"field": "/n", "equals": 6}]}]},
        \\ "order": [{"field": "/n", "descending": true}], "limit": 12}
    ;
    var found: std.ArrayList(u8) = .empty;
    defer found.deinit(allocator);
    var start: []u8 = &.{};
    while (true) {
        const page = try circles.target.queryRecords("found", query, start, 0);
        defer page.deinit();
        for (page.records) |r| try found.print(allocator, "{s} ", .{r.key});
        allocator.free(start);
        start = try allocator.dupe(u8, page.next);
        if (start.len == 0) break;
    }
    if (!std.mem.eql(u8, found.items, "19 18 17 16 15 14 13 12 11 10 09 06 ")) return circles.fail("the query finds {s}", .{found.items});
    return "ok";
}

fn logLines(params: []const u8) ![]const u8 {
    for ([_]circles.Level{ .debug, .info, .warn, .err }) |level| circles.log(level, params);
    return "";
}

fn fail(params: []const u8) ![]const u8 {
    if (std.mem.eql(u8, params, "trap")) @panic("as it was told to");
    return circles.fail("{s}", .{params});
}

fn byteOf(part: usize, i: usize) u8 {
    return @truncate(i *% 7 +% i / 251 +% part);
}

fn large(params: []const u8) ![]const u8 {
    const size = 16 << 20;
    const parts = try std.fmt.parseInt(usize, params, 10);
    {
        const part = try allocator.alloc(u8, size);
        defer allocator.free(part);
        for (0..parts) |n| {
            for (part, 0..) |*b, i| b.* = byteOf(n, i);
            try if (n == 0) circles.target.write("/large", part) else circles.target.append("/large", part);
        }
    }
    var total: usize = 0;
    for (0..parts) |n| {
        const got = try circles.target.readAt("/large", n * size, size);
        defer allocator.free(got);
        for (got, 0..) |b, i| {
            if (b != byteOf(n, i)) return circles.fail("byte {d} of part {d} is another", .{ i, n });
        }
        total += got.len;
    }
    return print("{d}", .{total});
}

/// Error unions, defer, and the standard library.
fn habits(_: []const u8) ![]const u8 {
    try std.testing.expectError(error.NotFound, circles.target.read("/none"));
    const bytes = circles.target.read("/none") catch |e| switch (e) {
        error.NotFound => try allocator.dupe(u8, "{\"n\": [1, 2, 3]}"),
        else => return e,
    };
    defer allocator.free(bytes);
    const parsed = try std.json.parseFromSlice(struct { n: []u32 }, allocator, bytes, .{});
    defer parsed.deinit();
    if (parsed.value.n.len != 3) return error.NotThree;

    for (0..25) |n| {
        var key: [2]u8 = undefined;
        _ = try std.fmt.bufPrint(&key, "{d:0>2}", .{n});
        try circles.target.putRecord("many", &key, &key);
    }
    var sum: u32 = 0;
    var start: []u8 = &.{};
    while (true) {
        const page = try circles.target.listRecords("many", start, "1", 0);
        defer page.deinit();
        for (page.records) |r| sum += try std.fmt.parseInt(u32, r.value.?, 10);
        if (page.next.len == 0) break;
        allocator.free(start);
        start = try allocator.dupe(u8, page.next);
    }
    allocator.free(start);
    if (sum != 145) return circles.fail("the sum is {d}", .{sum});
    return "ok";
}

const host = struct {
    extern "circles:host/contexts@0.1.2" fn target() u32;
    extern "circles:host/contexts@0.1.2" fn @"[resource-drop]context"(self: u32) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.read"(self: u32, path: u32, len: u32, ret: u32) void;
    extern "circles:host/contexts@0.1.2" fn @"[method]context.list-records"(self: u32, name: u32, len: u32, start: u32, start_len: u32, prefix: u32, prefix_len: u32, limit: u32, ret: u32) void;
};
const log_host = struct {
    extern "circles:host/log@0.1.2" fn write(level: u32, message: u32, len: u32) void;
};

fn raw(params: []const u8) ![]const u8 {
    var words = std.mem.splitScalar(u8, params, ' ');
    const word = words.first();
    var v: [9]u32 = @splat(0);
    var n: usize = 0;
    while (words.next()) |w| : (n += 1) v[n] = try std.fmt.parseInt(u32, w, 10);
    if (is(word, "read")) {
        host.@"[method]context.read"(v[0], v[1], v[2], v[3]);
    } else if (is(word, "list")) {
        host.@"[method]context.list-records"(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]);
    } else if (is(word, "drop")) {
        host.@"[resource-drop]context"(v[0]);
    } else if (is(word, "log")) {
        log_host.write(v[0], v[1], v[2]);
    } else if (is(word, "open")) {
        for (0..v[0]) |_| _ = host.target();
    } else return circles.fail("params: no such function", .{});
    return "";
}
