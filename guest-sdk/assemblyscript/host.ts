// What the host offers and asks for, as the Canonical ABI has it: wit/deps/circles-host/host.wit.
// https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md

@external("circles:host/contexts@0.1.2", "caller")
export declare function caller(): i32;
@external("circles:host/contexts@0.1.2", "target")
export declare function target(): i32;
@external("circles:host/contexts@0.1.2", "[method]context.id")
export declare function id(self: i32, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.name")
export declare function name(self: i32, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.read")
export declare function read(self: i32, path: usize, len: usize, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.read-at")
export declare function readAt(self: i32, path: usize, len: usize, offset: u64, length: u32, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.write")
export declare function write(self: i32, path: usize, len: usize, data: usize, size: usize, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.append")
export declare function append(self: i32, path: usize, len: usize, data: usize, size: usize, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.list")
export declare function list(self: i32, path: usize, len: usize, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.stat")
export declare function stat(self: i32, path: usize, len: usize, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.make-directory")
export declare function makeDirectory(self: i32, path: usize, len: usize, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.remove")
export declare function remove(self: i32, path: usize, len: usize, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.get-record")
export declare function getRecord(self: i32, name: usize, nameLen: usize, key: usize, keyLen: usize, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.put-record")
export declare function putRecord(self: i32, name: usize, nameLen: usize, key: usize, keyLen: usize, value: usize, len: usize, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.delete-record")
export declare function deleteRecord(self: i32, name: usize, nameLen: usize, key: usize, keyLen: usize, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.list-records")
export declare function listRecords(self: i32, name: usize, nameLen: usize, start: usize, startLen: usize, prefix: usize, prefixLen: usize, limit: u32, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.replace-record")
export declare function replaceRecord(self: i32, name: usize, nameLen: usize, key: usize, keyLen: usize, some: i32, expected: usize, expectedLen: usize, value: usize, len: usize, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.query-records")
export declare function queryRecords(self: i32, name: usize, nameLen: usize, query: usize, queryLen: usize, start: usize, startLen: usize, limit: u32, ret: usize): void;
@external("circles:host/contexts@0.1.2", "[method]context.send")
export declare function send(self: i32, to: usize, toLen: usize, logic: usize, logicLen: usize, entry: usize, entryLen: usize, params: usize, len: usize, ret: usize): void;
@external("circles:host/modules@0.1.2", "call")
export declare function call(name: usize, nameLen: usize, entry: usize, entryLen: usize, params: usize, len: usize, ret: usize): void;
@external("circles:host/modules@0.1.2", "base")
export declare function base(entry: usize, entryLen: usize, params: usize, len: usize, ret: usize): void;
@external("circles:host/modules@0.1.2", "entry")
export declare function entry(ret: usize): void;
@external("circles:host/contexts@0.1.2", "[resource-drop]context")
export declare function drop(self: i32): void;
@external("circles:host/log@0.1.2", "write")
export declare function log(level: i32, message: usize, len: usize): void;

@external("wasi_snapshot_preview1", "random_get")
export declare function random(at: usize, len: usize): i32;
@external("wasi_snapshot_preview1", "clock_time_get")
export declare function clock(which: i32, precision: u64, ret: usize): i32;
