package main

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// fileName stands for the text in positions; what is built in has another.
const fileName = "script"

// dialect is Starlark as an owner expects it who knows Python: sets, while, loops and
// conditions outside of functions, and names that are assigned again. Recursion is
// allowed, and bounded by maxCalls.
var dialect = syntax.FileOptions{
	Set:             true,
	While:           true,
	TopLevelControl: true,
	GlobalReassign:  true,
	Recursion:       true,
}

const (
	// maxCalls is how deep functions may call each other. Each call takes some 1.3 kB of the
	// interpreter's own stack in a guest, and those of sorted(key = f) and attempt(f) more.
	maxCalls = 1000
	// stepsBetween is how many steps are made before the depth is looked at again.
	stepsBetween = 100
	// maxTree is how deep the parts of a text may lie in each other. The parser has a bound
	// of its own for brackets and blocks; a + a + a + … and f()()()… it reads in a loop.
	maxTree = 2000
	// What a host takes of entries: so many, with names of so many bytes.
	maxEntries   = 256
	maxEntryName = 128
)

// resultName is the variable that the value of a text's last expression is assigned
// to. No text can name it.
const resultName = "(result)"

// program is a text that was read.
type program struct {
	code    *starlark.Program
	names   starlark.StringDict // predeclared, and params where all of the text is an entry
	entries []entry             // in the order of the text; none if all of the text is the entry run
}

// entry is a function of a text that scripts can name.
type entry struct {
	name string // in kebab case, as scripts have it
	call *starlark.Function
}

// load reads a text. A text that defines functions, other than those whose names begin
// with an underscore, has them for entries; what is around them is done here and now, once
// for all runs. Any other text is itself the entry run.
func load(source []byte) (p *program, err error) {
	defer func() {
		if v := recover(); v != nil { // go.starlark.net says so where it finds itself wrong
			p, err = nil, fmt.Errorf("1:1: the interpreter cannot read this text, for a bug of its own: %v", v)
		}
	}()
	file, err := dialect.Parse(fileName, source, 0)
	if err != nil {
		return nil, refused(string(source), err)
	}
	if err := check(file); err != nil {
		return nil, refused(string(source), err)
	}
	functions := false
	for _, s := range file.Stmts {
		def, ok := s.(*syntax.DefStmt)
		functions = functions || ok && public(def.Name.Name)
	}
	p = &program{names: predeclared}
	if !functions {
		keepResult(file)
		p.names = maps.Clone(predeclared)
		p.names["params"] = starlark.None
	}
	p.code, err = starlark.FileProgram(file, p.names.Has)
	if err != nil {
		return nil, refused(string(source), err)
	}
	if functions {
		if err := p.define(file); err != nil {
			return nil, err
		}
	}
	// Who runs out of memory gets a sentence of the host's, and not where in the interpreter
	// that was.
	debug.SetTraceback("none")
	// What parsing left behind would be in the image, and bring the next collection nearer.
	runtime.GC()
	return p, nil
}

// check refuses what is no error of Starlark's, and yet not for here.
func check(file *syntax.File) error {
	var err error
	depth := 0
	for _, s := range file.Stmts {
		syntax.Walk(s, func(n syntax.Node) bool {
			if n == nil {
				depth--
				return true
			}
			if err != nil {
				return false
			}
			if l, ok := n.(*syntax.LoadStmt); ok {
				err = at(l.Load, "there is no load: a text is one file. json is there already, and modules.call(name, entry, params) runs another module")
				return false
			}
			if depth++; depth > maxTree {
				begin, _ := n.Span()
				err = at(begin, "the text is nested more than %d deep here", maxTree)
				return false
			}
			return true
		})
	}
	return err
}

func public(name string) bool { return !strings.HasPrefix(name, "_") }

// keepResult makes the text's last statement, if it is an expression, an assignment.
func keepResult(file *syntax.File) {
	if len(file.Stmts) == 0 {
		return
	}
	last := len(file.Stmts) - 1
	if s, ok := file.Stmts[last].(*syntax.ExprStmt); ok {
		begin, _ := s.Span()
		file.Stmts[last] = &syntax.AssignStmt{
			OpPos: begin,
			Op:    syntax.EQ,
			LHS:   &syntax.Ident{NamePos: begin, Name: resultName},
			RHS:   s.X,
		}
	}
}

// define runs what is around the functions, and finds the entries among them.
func (p *program) define(file *syntax.File) error {
	loading = true
	globals, err := p.code.Init(newThread(), p.names)
	loading = false
	if err != nil {
		return told(err)
	}
	var bad []string
	seen := map[string]bool{}
	for _, s := range file.Stmts {
		var names []*syntax.Ident
		switch s := s.(type) {
		case *syntax.DefStmt:
			names = append(names, s.Name)
		case *syntax.AssignStmt: // run = sign
			if id, ok := s.LHS.(*syntax.Ident); ok {
				names = append(names, id)
			}
		}
		for _, id := range names {
			f, ok := globals[id.Name].(*starlark.Function)
			if !ok || !public(id.Name) || seen[id.Name] {
				continue
			}
			seen[id.Name] = true
			name, ok := kebab(id.Name)
			switch {
			case !ok:
				bad = append(bad, fmt.Sprintf("%d:%d: %s is no name for an entry: use small letters and digits, in words with an underscore between them, 128 at most; or begin it with an underscore, and it is no entry", id.NamePos.Line, id.NamePos.Col, cut(id.Name)))
			case !takesParams(f):
				bad = append(bad, fmt.Sprintf("%d:%d: an entry takes params, or nothing: def %s(params). A function that is no entry has a name that begins with an underscore", id.NamePos.Line, id.NamePos.Col, id.Name))
			case len(p.entries) == maxEntries:
				bad = append(bad, fmt.Sprintf("%d:%d: a text has at most %d entries; begin the name of a function that is none with an underscore", id.NamePos.Line, id.NamePos.Col, maxEntries))
			default:
				p.entries = append(p.entries, entry{name, f})
			}
		}
	}
	if len(bad) > maxErrors {
		bad = append(bad[:maxErrors], fmt.Sprintf("and %d more", len(bad)-maxErrors))
	}
	if bad != nil {
		return errors.New(strings.Join(bad, "\n"))
	}
	globals.Freeze()
	return nil
}

// positional is how many parameters a function has that are given by their place, *args
// aside.
func positional(f *starlark.Function) int {
	n := f.NumParams() - f.NumKwonlyParams()
	if f.HasVarargs() {
		n--
	}
	if f.HasKwargs() {
		n--
	}
	return n
}

// takesParams reports whether f can be called with params, or with nothing.
func takesParams(f *starlark.Function) bool {
	for i := 1; i < positional(f)+f.NumKwonlyParams(); i++ {
		if f.ParamDefault(i) == nil {
			return false
		}
	}
	// Of keyword-only ones alone, the first has no place either.
	return positional(f) > 0 || f.NumKwonlyParams() == 0 || f.ParamDefault(0) != nil
}

// kebab is a function's name as scripts have it: sign_book is sign-book. It is false for
// what a WIT name cannot be.
func kebab(name string) (string, bool) {
	if len(name) > maxEntryName {
		return "", false
	}
	for i := range len(name) {
		c := name[i]
		word := i > 0 && name[i-1] != '_'
		switch {
		case c >= 'a' && c <= 'z':
		case c >= '0' && c <= '9' && word:
		case c == '_' && word && i < len(name)-1:
		default:
			return "", false
		}
	}
	return strings.ReplaceAll(name, "_", "-"), true
}

// describe is what load answers.
func (p *program) describe() ([]byte, error) {
	names := []starlark.Value{starlark.String("run")}
	if p.entries != nil {
		names = nil
		for _, e := range p.entries {
			names = append(names, starlark.String(e.name))
		}
	}
	d := starlark.NewDict(1)
	if err := d.SetKey(starlark.String("entries"), starlark.NewList(names)); err != nil {
		return nil, err
	}
	return encode(d, layout{})
}

// call runs an entry.
func (p *program) call(name string, params []byte) (result []byte, err error) {
	defer func() {
		// Of go.starlark.net, not of the text; but a list can be too large for any memory.
		if v := recover(); v != nil {
			result, err = nil, fmt.Errorf("the interpreter failed: %v; if that is not for want of memory, it is a bug of its own", v)
		}
	}()
	value, err := given(params)
	if err != nil {
		return nil, fmt.Errorf("params: %w", err)
	}
	value, err = p.run(name, value)
	if err != nil {
		return nil, told(err)
	}
	if result, err = sent(value); err != nil {
		return nil, fmt.Errorf("the result of %s: %w", name, err)
	}
	return result, nil
}

func (p *program) run(name string, params starlark.Value) (starlark.Value, error) {
	thread := newThread()
	if p.entries == nil {
		p.names["params"] = params
		globals, err := p.code.Init(thread, p.names)
		if err != nil {
			return nil, err
		}
		if v, ok := globals[resultName]; ok {
			return v, nil
		}
		return starlark.None, nil
	}
	for _, e := range p.entries {
		if e.name == name {
			var args starlark.Tuple
			if positional(e.call) > 0 || e.call.HasVarargs() {
				args = starlark.Tuple{params}
			}
			return starlark.Call(thread, e.call, args, nil)
		}
	}
	return nil, fmt.Errorf("the text has no entry %q", name)
}

// ended is set in a thread that is to end: attempt does not go on then.
const ended = "ended"

// newThread makes what runs Starlark: print goes to the log, and calls have an end.
func newThread() *starlark.Thread {
	t := &starlark.Thread{Name: "run", Print: printed}
	t.SetMaxExecutionSteps(stepsBetween)
	t.OnMaxSteps = func(t *starlark.Thread) {
		if t.CallStackDepth() > maxCalls {
			t.SetLocal(ended, true)
			t.Cancel(fmt.Sprintf("functions call each other more than %d deep; use a loop, or find out what does not end", maxCalls))
		}
		t.SetMaxExecutionSteps(t.Steps + stepsBetween)
	}
	return t
}
