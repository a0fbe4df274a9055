package host_test

var javascriptTexts = map[string]string{
	"value":   `({ n: params.n + 1, s: params.s, l: [...params.l, 4], t: true, none: null })`,
	"text":    `params + "!"`,
	"nothing": `let x = 1; if (params.n) x;`,
	"empty":   `params === undefined`,
	"hello":   `target.write("hi.txt", "hello " + caller.name)`,
	"ids":     `[caller.id, caller.name, target.id, target.name]`,
	"lent":    `caller.read("/card.txt")`,
	"files": `
		const code = (f) => { try { f(); return "none"; } catch (e) { return e.code; } };
		try { target.remove("/d"); } catch {}
		target.makeDirectory("/d");
		target.write("/d/f", "a");
		target.append("/d/f", "b");
		const { kind, size } = target.stat("/d/f");
		const result = { text: target.read("/d/f"), names: target.list("/d").map((e) => e.name), kind, size };
		target.remove("/d/f");
		result.gone = code(() => target.read("/d/f"));
		result;`,
	"records": `
		const code = (f) => { try { f(); return "none"; } catch (e) { return e.code; } };
		const notes = target.records("notes");
		notes.put("b", { n: 1 });
		notes.put("a", "x");
		notes.put("a/1", 5);
		notes.put("c", []);
		notes.delete("c");
		const some = notes.list("a", "a", 1);
		({ b: notes.get("b"), a: notes.get("a"), keys: notes.list().items.map((r) => r.key), some: some.items.map((r) => r.key), next: some.next, gone: code(() => notes.get("c")) });`,
	"replace": `
		const code = (f) => { try { f(); return "none"; } catch (e) { return e.code; } };
		const r = target.records("replaced");
		code(() => r.delete("k"));
		r.replace("k", null, { n: 1 });
		const again = code(() => r.replace("k", null, { n: 2 })), other = code(() => r.replace("k", { n: 5 }, { n: 2 }));
		r.replace("k", { n: 1 }, { n: 3 });
		({ again, other, value: r.get("k") });`,
	"query": `
		const numbers = target.records("numbers");
		for (let n = 0; n < 5; n++) numbers.put(String(n), { n });
		const page = numbers.query({ where: { field: "/n", above: 1 }, order: [{ field: "/n", descending: true }], limit: 2 });
		page.items.map((r) => r.key);`,
	"sends": `target.send("alice", "entries", "sign", { by: "bob" })`,
	"calls": `modules.call("entries", "sign", { by: "bob" })`,
	"base":  `"over " + base.call(params)`,
	"log":   `log.debug("one"); log.info("two"); log.warn("three"); log.error("four");`,
	"entries": `
		const by = (params) => params.by;
		export function sign(params) { return "signed " + by(params); }
		export const readAll = () => "all";
		export const about = "no entry";`,
	"constant":        `const answer = 6 * 7; export function run() { return answer; }`,
	"state":           `let calls = 0; globalThis.all ??= []; export default () => { all.push(1); return Math.max(++calls, all.length); };`,
	"denied":          `try { target.read("/secret") } catch (e) { e.code }`,
	"denied-uncaught": "const x = 1;\n  target.¶read('/secret');",
	"failure":         "function f(x) {\n  return x + ¶nowhere;\n}\nf(1);",
	"thrown":          `throw "no room";`,
	"endless":         `for (;;);`,
	"recursive":       `const f = (n) => f(n + 1) + 1; f(0);`,
	"greedy":          `let s = []; for (;;) s.push(new Uint8Array(1 << 20).fill(1));`,
	"wordy":           `for (;;) log.info("and another thing");`,
	"broken":          "let x = 1;\nlet y = ¶;",
	"early":           "target¶.read('/secret');\nexport const run = () => 1;",
	"endless-early":   `while (true); export const run = () => 1;`,
}
