package host_test

import (
	"context"
	"strings"
	"testing"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/engine"
	"github.com/circles-host/circles/host/imports/modules"
)

var rhaiTexts = map[string]string{
	"value":   `params.l.push(4); #{n: params.n + 1, s: params.s, l: params.l, t: true, none: ()}`,
	"text":    `params + "!"`,
	"nothing": `let x = 1; if params.n == x { print(x); }`,
	"empty":   `params == ()`,
	"hello":   `target.write("hi.txt", "hello " + caller.name)`,
	"ids":     `[caller.id, caller.name, target.id, target.name]`,
	"lent":    `caller.read("/card.txt")`,
	"files": `
		try { target.remove("/d"); } catch {}
		target.make_directory("/d");
		target.write("/d/f", "a");
		target.append("/d/f", "b");
		let stat = target.stat("/d/f");
		let result = #{text: target.read("/d/f"), names: target.list("/d").map(|e| e.name), kind: stat.kind, size: stat.size};
		target.remove("/d/f");
		try { target.read("/d/f"); } catch (err) { result.gone = err.code; }
		result`,
	"records": `
		let notes = target.records("notes");
		notes.put("b", #{n: 1});
		notes.put("a", "x");
		notes.put("a/1", 5);
		notes.put("c", []);
		notes.delete("c");
		let keys = |page| page.items.map(|r| r.key);
		let some = notes.list("a", "a", 1);
		let result = #{b: notes.get("b"), a: notes.get("a"), keys: keys.call(notes.list()), some: keys.call(some), next: some.next};
		try { notes.get("c"); } catch (err) { result.gone = err.code; }
		result`,
	"replace": `
		let all = target.records("replaced");
		try { all.delete("k"); } catch {}
		all.replace("k", (), #{n: 1});
		let result = #{};
		try { all.replace("k", (), #{n: 1}); } catch (err) { result.again = err.code; }
		try { all.replace("k", #{n: 5}, #{n: 2}); } catch (err) { result.other = err.code; }
		all.replace("k", #{n: 1}, #{n: 3});
		result.value = all.get("k");
		result`,
	"query": `
		let numbers = target.records("numbers");
		for n in 0..5 { numbers.put(n.to_string(), #{n: n}); }
		let page = numbers.query(#{where: #{field: "/n", above: 1}, order: [#{field: "/n", descending: true}], limit: 2});
		page.items.map(|r| r.key)`,
	"sends": `target.send("alice", "entries", "sign", #{by: "bob"})`,
	"log":   `log.debug("one"); log.info("two"); log.warn("three"); log.error("four");`,
	"calls": `modules.call("entries", "sign", #{by: "bob"})`,
	"base":  `"over " + base.call(params)`,
	"entries": `
		private fn by(params) { params.by }
		fn sign(params) { "signed " + by(params) }
		fn read_all() { "all" }
		fn of(two, params) { "no entry" }`,
	"constant":        `const ANSWER = 6 * 7; fn run() { ANSWER }`,
	"state":           `let all = []; fn run() { let mine = all; mine.push(1); mine.len }`,
	"denied":          `try { target.read("/secret"); } catch (err) { return err.code; }`,
	"denied-uncaught": "const x = 1;\n  target.¶read(\"/secret\");",
	"failure":         "private fn f(x) {\n  x + ¶nowhere(x)\n}\nf(1)",
	"thrown":          `throw "no room"`,
	"endless":         `loop {}`,
	"recursive":       `private fn f(n) { f(n + 1) + 1 } f(0)`,
	"greedy":          `let s = [0]; loop { s += s; }`,
	"wordy":           `loop { log.info("and another thing"); }`,
	"broken":          "let x = 1;\nlet y = ¶;",
	"early":           "target.¶read(\"/secret\");\nfn run() { 1 }",
	"endless-early":   `loop {} fn run() { 1 }`,
}

// running is the state of a call that asks for its entry, and nothing else.
type running struct{}

func (running) Modules() modules.Modules { return entered{} }

type entered struct{ modules.Modules }

func (entered) Entry() string { return "run" }

// TestRhaiDepth goes as deep as it can in all the ways that Rhai has: it ends by a
// sentence of the interpreter's, with a place, and not because the stack is full.
func TestRhaiDepth(t *testing.T) {
	ctx := context.Background()
	e, err := engine.New(ctx, engine.Config{CacheDir: cacheDir, Languages: textLanguages()}, host.HostModules()...)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(ctx)
	deep := func(n int, before, within, after string) string {
		return strings.Repeat(before, n) + within + strings.Repeat(after, n)
	}
	for _, text := range []string{
		"private fn f(n) { f(n + 1) } f(1)",
		"private fn f(n) { 1 + f(n + 1) } f(1)",
		"private fn f(n) { if n > 0 { if n > 0 { if n > 0 { if true { [[[[[f(n + 1)]]]]] } } } } } f(1)",
		"private fn f(n) { let x = #{a: [1, 2, f(n + 1) + 3]}; x } f(1)",
		"private fn f(n) { try { f(n + 1); } catch { throw; } } f(1)",
		"private fn f(n) { for x in [1] { while true { switch n { 0 => 1, _ => f(n + 1) } } } } f(1)",
		"private fn f(n) { [1, 2].map(|x| f(x)) } f(1)",
		"private fn f(n) { [2, 1].filter(|x| f(x)) } f(1)",
		"private fn f(n) { let g = Fn(\"f\"); g.call(n) } f(1)",
		"private fn f(n) { `${f(n + 1)}` } f(1)",
		"fn int.f() { this.f() } 1.f()",
		"private fn f(n) { " + deep(100, "[", "f(n + 1)", "]") + " } f(1)",
		"private fn f(n) { " + deep(90, "if true {", "f(n + 1)", "}") + " } f(1)",
		"private fn f(n) { 1" + deep(300, " + n", " + f(n + 1)", "") + " } f(1)",
	} {
		p, err := e.Load(ctx, "rhai", []byte(text))
		if err == nil {
			_, err = e.Run(ctx, p, engine.Call{State: running{}, Limits: engine.Limits{Fuel: 1 << 30}})
			p.Close()
		}
		if err == nil || !strings.Contains(err.Error(), ": the calls are too deep within each other; ") || err.Error()[1] != ':' {
			t.Errorf("%.80s: %v", text, err)
		}
	}
	for _, text := range []string{
		deep(5000, "(", "1", ")"), deep(5000, "[", "1", "]"), deep(5000, "#{a:", "1", "}"), deep(5000, "{", "1", "}"), deep(5000, "!", "true", ""),
		deep(5000, "", "1", " + 1"), deep(5000, "", "[]", ".len"), deep(5000, "", "[]", "[0]"), deep(5000, "", "[]", ".b()"), deep(5000, "f(", "1", ")"),
		deep(5000, "if true {", "1", "}"), deep(5000, "if false {} else ", "{}", ""), deep(5000, "|x| ", "1", ""), deep(5000, "`${", "1", "}`"), deep(5000, "try {", "1", "} catch {}"),
	} {
		p, err := e.Load(ctx, "rhai", []byte(text))
		if err == nil {
			p.Close()
		}
		if err == nil || !strings.Contains(err.Error(), ": this is too deep within other expressions and blocks; ") {
			t.Errorf("%.20s: %v", text, err)
		}
	}
}
