package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/circles-host/circles/guest-sdk/go"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
)

// predeclared are the names that each text has, beside those of Starlark itself.
var predeclared = starlark.StringDict{
	"caller":  party("caller", circles.Caller()),
	"target":  party("target", circles.Target()),
	"log":     logObject(),
	"modules": newObject("modules", method("modules.call", modulesCall)),
	"base":    newObject("base", method("base.call", baseCall)),
	"json":    jsonModule,
	"struct":  starlark.NewBuiltin("struct", starlarkstruct.Make),
	"attempt": starlark.NewBuiltin("attempt", attempt),
	"fail":    starlark.NewBuiltin("fail", fail),
}

// loading is true while what is around the functions of a text runs: nobody has called
// it then, and no context is in reach.
var loading bool

// inReach is the error of what a text may not do while it is loaded.
func inReach(what string) error {
	if !loading {
		return nil
	}
	return fmt.Errorf("%s is for functions: this text defines entries, and what is around them runs once, before anybody calls it. Move this into a function; or, if the text is to have no entries, begin the names of its functions with an underscore", what)
}

// object is a value with fields: caller, log, a collection. It is one of our own since
// a struct has no fields that are asked for when they are wanted, and says no name in errors.
type object struct {
	kind   string
	fields []field // by name
}

type field struct {
	name  string
	value starlark.Value
	ask   func() (starlark.Value, error) // instead of a value
}

func newObject(kind string, fields ...field) *object {
	slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return &object{kind, fields}
}

type builtin = func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error)

// method is the field that is called as name says: "target.read".
func method(name string, f builtin) field {
	return field{name: name[strings.LastIndexByte(name, '.')+1:], value: starlark.NewBuiltin(name, func(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if err := inReach(b.Name()); err != nil {
			return nil, err
		}
		return f(t, b, args, kwargs)
	})}
}

var _ starlark.HasAttrs = (*object)(nil)

func (o *object) String() string        { return "<" + o.kind + ">" }
func (o *object) Type() string          { return o.kind }
func (o *object) Freeze()               {}
func (o *object) Truth() starlark.Bool  { return true }
func (o *object) Hash() (uint32, error) { return 0, fmt.Errorf("%s is no key", o.kind) }

func (o *object) Attr(name string) (starlark.Value, error) {
	for i := range o.fields {
		if f := &o.fields[i]; f.name == name {
			if f.ask == nil {
				return f.value, nil
			}
			if err := inReach(o.kind + "." + name); err != nil {
				return nil, err
			}
			return f.ask()
		}
	}
	return nil, starlark.NoSuchAttrError(fmt.Sprintf("%s has no .%s; it has %s", o.kind, name, strings.Join(o.AttrNames(), ", ")))
}

func (o *object) AttrNames() []string {
	var names []string
	for _, f := range o.fields {
		names = append(names, f.name)
	}
	return names
}

// record is a result with several parts.
func record(pairs ...any) *starlarkstruct.Struct {
	var fields []starlark.Tuple
	for i := 0; i < len(pairs); i += 2 {
		fields = append(fields, starlark.Tuple{starlark.String(pairs[i].(string)), pairs[i+1].(starlark.Value)})
	}
	return starlarkstruct.FromKeywords(starlarkstruct.Default, fields)
}

// ---- What crosses ----

// received is what a text gets of bytes from elsewhere, a record or a result: what they
// say if they are JSON, else the text, or bytes if they are no text; None of nothing.
func received(b []byte) starlark.Value {
	v, err := given(b)
	if err != nil {
		return starlark.String(b) // one odd record is no reason to see none
	}
	return v
}

// given is received of params, where what could be meant in two ways is an error: they may
// have been looked at before, by somebody who took them for the other.
func given(b []byte) (starlark.Value, error) {
	if len(b) == 0 {
		return starlark.None, nil
	}
	v, err := decode(string(b))
	if err == nil {
		return v, nil
	}
	var unclear ambiguous
	if errors.As(err, &unclear) {
		return nil, err
	}
	if utf8.Valid(b) {
		return starlark.String(b), nil
	}
	return starlark.Bytes(b), nil
}

// sent is the bytes of a value that goes elsewhere, params or a result: text and bytes
// as they are, nothing for None, and JSON of anything else.
func sent(v starlark.Value) ([]byte, error) {
	switch v := v.(type) {
	case nil, starlark.NoneType:
		return nil, nil
	case starlark.String:
		return []byte(v), nil
	case starlark.Bytes:
		return []byte(v), nil
	}
	return encode(v, layout{})
}

// stored is the bytes of a record's value: JSON, of text too, so that it comes back as
// what it was; bytes as they are.
func stored(v starlark.Value) ([]byte, error) {
	if b, ok := v.(starlark.Bytes); ok {
		return []byte(b), nil
	}
	return encode(v, layout{})
}

// content is a file's: text or bytes.
type content struct{ b []byte }

func (c *content) Unpack(v starlark.Value) error {
	switch v := v.(type) {
	case starlark.String:
		c.b = []byte(v)
	case starlark.Bytes:
		c.b = []byte(v)
	default:
		return fmt.Errorf("want a string or bytes, got %s; json.encode(value) makes a string of it", article(v.Type()))
	}
	return nil
}

// ---- Contexts ----

// party is one of the two contexts.
func party(name string, c *circles.Context) *object {
	p := context{name, c}
	fields := []field{
		{name: "id", ask: func() (starlark.Value, error) { return starlark.String(c.ID()), nil }},
		{name: "name", ask: func() (starlark.Value, error) { return starlark.String(c.Name()), nil }},
	}
	for _, m := range []struct {
		name string
		f    builtin
	}{
		{"read", p.read}, {"read_bytes", p.readBytes}, {"exists", p.exists}, {"stat", p.stat}, {"list", p.list},
		{"write", p.write}, {"append", p.append}, {"remove", p.remove}, {"make_directory", p.makeDirectory},
		{"records", p.records}, {"send", p.send},
	} {
		fields = append(fields, method(name+"."+m.name, m.f))
	}
	return newObject(name, fields...)
}

type context struct {
	name string
	*circles.Context
}

// or is a value, or what stands for it if there is none.
func or(v, otherwise starlark.Value, err error) (starlark.Value, error) {
	if err != nil && otherwise != nil && errors.Is(err, fs.ErrNotExist) {
		return otherwise, nil
	}
	return v, err
}

func (c context) read(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var path string
	var otherwise starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "path", &path, "default?", &otherwise); err != nil {
		return nil, err
	}
	text, err := c.ReadFile(path)
	if err == nil && !utf8.Valid(text) {
		return nil, fmt.Errorf("read %s: the file is not UTF-8 text; %s.read_bytes reads any", cut(path), c.name)
	}
	return or(starlark.String(text), otherwise, err)
}

func (c context) readBytes(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var path string
	var otherwise starlark.Value
	var offset uint64
	length := int64(-1)
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "path", &path, "default?", &otherwise, "offset?", &offset, "length??", &length); err != nil {
		return nil, err
	}
	if offset == 0 && length < 0 {
		all, err := c.ReadFile(path)
		return or(starlark.Bytes(all), otherwise, err)
	}
	if length < 0 || length > 1<<32-1 {
		return nil, fmt.Errorf("%s: want a length of 0 to 4294967295 with an offset", b.Name())
	}
	part, err := c.ReadAt(path, offset, uint32(length))
	return or(starlark.Bytes(part), otherwise, err)
}

func (c context) exists(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var path string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "path", &path); err != nil {
		return nil, err
	}
	_, err := c.Stat(path)
	return or(starlark.True, starlark.False, err)
}

func (c context) stat(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var path string
	var otherwise starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "path", &path, "default?", &otherwise); err != nil {
		return nil, err
	}
	s, err := c.Stat(path)
	if err != nil {
		return or(nil, otherwise, err)
	}
	return record("kind", kind(s.Mode()), "size", starlark.MakeInt64(s.Size()), "modified", starlark.MakeInt64(s.ModTime().UnixMilli())), nil
}

func kind(m fs.FileMode) starlark.String {
	switch {
	case m.IsDir():
		return "directory"
	case m.IsRegular():
		return "file"
	case m&fs.ModeSymlink != 0:
		return "link"
	}
	return "other"
}

func (c context) list(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	path := "/"
	var otherwise starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "path?", &path, "default?", &otherwise); err != nil {
		return nil, err
	}
	found, err := c.ReadDir(path)
	if err != nil {
		return or(nil, otherwise, err)
	}
	list := make([]starlark.Value, len(found))
	for i, e := range found {
		list[i] = record("name", starlark.String(e.Name()), "kind", kind(e.Type()))
	}
	return starlark.NewList(list), nil
}

func (c context) write(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var path string
	var text content
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "path", &path, "text", &text); err != nil {
		return nil, err
	}
	return starlark.None, c.WriteFile(path, text.b)
}

func (c context) append(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var path string
	var text content
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "path", &path, "text", &text); err != nil {
		return nil, err
	}
	return starlark.None, c.Append(path, text.b)
}

func (c context) remove(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var path string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "path", &path); err != nil {
		return nil, err
	}
	return starlark.None, c.Remove(path)
}

func (c context) makeDirectory(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var path string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "path", &path); err != nil {
		return nil, err
	}
	return starlark.None, c.Mkdir(path)
}

func (c context) send(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var to, logic, entry string
	var params starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "to", &to, "logic", &logic, "entry?", &entry, "params?", &params); err != nil {
		return nil, err
	}
	p, err := sent(params)
	if err != nil {
		return nil, fmt.Errorf("%s: params: %w", b.Name(), err)
	}
	result, err := c.Send(to, logic, entry, p)
	if err != nil {
		return nil, err
	}
	return received(result), nil
}

// ---- Records ----

func (c context) records(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var name string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "collection", &name); err != nil {
		return nil, err
	}
	r := collection{c.Collection(name)}
	return newObject("records", method("records.get", r.get), method("records.put", r.put), method("records.delete", r.delete),
		method("records.replace", r.replace), method("records.list", r.list), method("records.query", r.query)), nil
}

type collection struct{ circles.Collection }

func (c collection) get(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var key string
	var otherwise starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "key", &key, "default?", &otherwise); err != nil {
		return nil, err
	}
	value, err := c.Get(key)
	if err != nil {
		return or(nil, otherwise, err)
	}
	return received(value), nil
}

func (c collection) put(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var key string
	var value starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "key", &key, "value", &value); err != nil {
		return nil, err
	}
	text, err := stored(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name(), err)
	}
	return starlark.None, c.Put(key, text)
}

func (c collection) delete(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var key string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "key", &key); err != nil {
		return nil, err
	}
	return starlark.None, c.Delete(key)
}

// replace compares what values mean, not how they are written: another program may have
// put blanks into the same JSON.
func (c collection) replace(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var key string
	var expected, value starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "key", &key, "expected", &expected, "value", &value); err != nil {
		return nil, err
	}
	text, err := stored(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name(), err)
	}
	if expected == starlark.None {
		return starlark.None, c.Replace(key, nil, text)
	}
	before, err := stored(expected)
	if err != nil {
		return nil, fmt.Errorf("%s: expected: %w", b.Name(), err)
	}
	if now, err := c.Get(key); err == nil {
		if same, err := starlark.EqualDepth(received(now), expected, maxNesting); err == nil && same {
			before = now
		}
	}
	return starlark.None, c.Replace(key, before, text)
}

// list is a page of the records from a key on: struct(items, next).
func (c collection) list(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var start, prefix string
	var limit uint32
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "start?", &start, "prefix?", &prefix, "limit?", &limit); err != nil {
		return nil, err
	}
	return page(c.Page(start, prefix, limit))
}

// query is a page of the records that a query finds, which is written as its JSON is.
func (c collection) query(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var query starlark.Value = starlark.NewDict(0)
	var start string
	var limit uint32
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "query?", &query, "start?", &start, "limit?", &limit); err != nil {
		return nil, err
	}
	text, err := sent(query)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name(), err)
	}
	return page(c.QueryPage(string(text), start, limit))
}

func page(found []circles.Record, next string, err error) (starlark.Value, error) {
	if err != nil {
		return nil, err
	}
	list := make([]starlark.Value, len(found))
	for i, r := range found {
		var value starlark.Value = starlark.None
		if !r.Denied {
			value = received(r.Value)
		}
		list[i] = record("key", starlark.String(r.Key), "value", value, "denied", starlark.Bool(r.Denied))
	}
	return record("items", starlark.NewList(list), "next", starlark.String(next)), nil
}

// ---- Other modules ----

func modulesCall(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var name, entry string
	var params starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "name", &name, "entry??", &entry, "params?", &params); err != nil {
		return nil, err
	}
	p, err := sent(params)
	if err != nil {
		return nil, fmt.Errorf("%s: params: %w", b.Name(), err)
	}
	result, err := circles.Call(name, entry, p)
	if err != nil {
		return nil, err
	}
	return received(result), nil
}

// baseCall is base.call(params), or base.call(entry, params).
func baseCall(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var entry string
	var params starlark.Value
	var err error
	if len(args) == 1 {
		err = starlark.UnpackArgs(b.Name(), args, kwargs, "params", &params, "entry??", &entry)
	} else {
		err = starlark.UnpackArgs(b.Name(), args, kwargs, "entry??", &entry, "params?", &params)
	}
	if err != nil {
		return nil, err
	}
	p, err := sent(params)
	if err != nil {
		return nil, fmt.Errorf("%s: params: %w", b.Name(), err)
	}
	result, err := circles.Base(entry, p)
	if err != nil {
		return nil, err
	}
	return received(result), nil
}

// ---- The log ----

var levels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

func logObject() *object {
	var fields []field
	for name, level := range levels {
		fields = append(fields, method("log."+name, func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			line, err := joined(b, args, kwargs)
			if err != nil {
				return nil, err
			}
			circles.Log(level, line)
			return starlark.None, nil
		}))
	}
	return newObject("log", fields...)
}

func printed(t *starlark.Thread, line string) {
	if loading {
		t.Cancel(inReach("print").Error())
		return
	}
	circles.Log(slog.LevelInfo, line)
}

// joined is the text of arguments as print has them.
func joined(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (string, error) {
	sep := " "
	if err := starlark.UnpackArgs(b.Name(), nil, kwargs, "sep?", &sep); err != nil {
		return "", err
	}
	var parts []string
	for _, v := range args {
		switch v := v.(type) {
		case starlark.String:
			parts = append(parts, string(v))
		case starlark.Bytes:
			parts = append(parts, string(v))
		default:
			parts = append(parts, v.String())
		}
	}
	return strings.Join(parts, sep), nil
}

// ---- Failing, and going on ----

func fail(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	line, err := joined(b, args, kwargs)
	if err != nil {
		return nil, err
	}
	if line == "" {
		line = "the script failed, and does not say why"
	}
	return nil, failure(cut(line))
}

// attempt calls a function and tells how that went, in place of exceptions, which Starlark
// does not have. What the function wrote stays written: only a failed script is undone.
func attempt(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if len(args) == 0 {
		return nil, errors.New("attempt: want a function, and then its arguments: attempt(target.read, path)")
	}
	v, err := starlark.Call(t, args[0], args[1:], kwargs)
	if t.Local(ended) != nil {
		return nil, err
	}
	if err == nil {
		return record("ok", starlark.True, "value", v, "code", starlark.String(""), "message", starlark.String(""), "violations", starlark.NewList(nil)), nil
	}
	message := err.Error()
	if own, ok := errors.AsType[failure](err); ok {
		message = string(own)
	}
	var violations []starlark.Value
	for _, v := range circles.Violations(err) {
		violations = append(violations, record("path", starlark.String(v.Path), "reason", starlark.String(v.Reason)))
	}
	return record("ok", starlark.False, "value", starlark.None, "code", starlark.String(code(err)), "message", starlark.String(cut(message)), "violations", starlark.NewList(violations)), nil
}
