package rewrite

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

const features = api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst

// A specCommand is one line of the specification's tests, as wast2json writes
// them.
type specCommand struct {
	Type       string
	Line       int
	Name       string
	Filename   string
	As         string
	ModuleType string `json:"module_type"`
	Action     struct {
		Type, Field, Module string
		Args                []specValue
	}
}

type specValue struct {
	Type     string
	LaneType string `json:"lane_type"`
	Value    any
}

func (v specValue) words() []uint64 {
	if v.Type == "v128" {
		bits := map[string]int{"i8": 8, "i16": 16, "i32": 32, "i64": 64, "f32": 32, "f64": 64}[v.LaneType]
		var w [2]uint64
		for i, lane := range v.Value.([]any) {
			w[i*bits/64] |= number(lane, bits) << (i * bits % 64)
		}
		return w[:]
	}
	bits := 64
	if strings.HasSuffix(v.Type, "32") {
		bits = 32
	}
	return []uint64{number(v.Value, bits)}
}

func number(v any, bits int) uint64 {
	s, _ := v.(string)
	if strings.HasPrefix(s, "nan") {
		if bits == 32 {
			return uint64(math.Float32bits(float32(math.NaN())))
		}
		return math.Float64bits(math.NaN())
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n < 0 {
		return uint64(n) & (math.MaxUint64 >> (64 - bits))
	}
	n, _ := strconv.ParseUint(s, 10, 64) // "null" is 0
	return n
}

// A specSide is one of the engines that a specification test runs on.
type specSide struct {
	rt       wazero.Runtime
	meter    *meterHost // nil: modules run as they are
	prepared bool       // not just metered
	modules  map[string]api.Module
	last     api.Module
}

func newSpecSide(ctx context.Context, t *testing.T, meter *meterHost, prepared bool, spectest []byte) *specSide {
	s := &specSide{
		rt:       wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCoreFeatures(features)),
		meter:    meter,
		prepared: prepared,
		modules:  map[string]api.Module{},
	}
	t.Cleanup(func() { s.rt.Close(ctx) })
	if meter != nil {
		meter.instantiate(ctx, t, s.rt)
	}
	if _, err := s.load(ctx, spectest, "spectest"); err != nil {
		t.Fatal(err)
	}
	return s
}

// load instantiates a module under a name.
func (s *specSide) load(ctx context.Context, wasm []byte, name string) (api.Module, error) {
	if s.prepared {
		p, err := Prepare(wasm, Options{})
		if err != nil {
			return nil, err
		}
		return instantiatePrepared(ctx, s.rt, p, name)
	}
	if s.meter != nil {
		metered, err := Meter(wasm, Options{})
		if err != nil {
			return nil, err
		}
		wasm = metered
	}
	return s.rt.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithName(name))
}

func (s *specSide) act(ctx context.Context, c *specCommand) (string, api.Module) {
	m := s.last
	if c.Action.Module != "" {
		m = s.modules[c.Action.Module]
	}
	if m == nil {
		return "no module", nil
	}
	if c.Action.Type == "get" {
		g := m.ExportedGlobal(c.Action.Field)
		return fmt.Sprint(g.Get()), m
	}
	var args []uint64
	for _, a := range c.Action.Args {
		args = append(args, a.words()...)
	}
	f := m.ExportedFunction(c.Action.Field)
	if f == nil {
		return "no function " + c.Action.Field, m
	}
	if g, ok := m.ExportedGlobal(StackGlobal).(api.MutableGlobal); ok {
		g.Set(StackSize) // a trap may have ended the call before
	}
	res, err := f.Call(ctx, args...)
	if g := m.ExportedGlobal(StackGlobal); g != nil && err == nil && g.Get() != StackSize {
		return fmt.Sprintf("left %d bytes of its stack in use", StackSize-int32(g.Get())), m
	}
	for _, t := range f.Definition().ResultTypes() {
		if t == api.ValueTypeExternref || t == 0x70 {
			res = nil // addresses
		}
	}
	return fmt.Sprint(res, strings.TrimSuffix(firstLine(err), " (recovered by wazero)")), m
}

// instantiatePrepared is the host's part of instantiating what Prepare made.
func instantiatePrepared(ctx context.Context, rt wazero.Runtime, p *Prepared, name string) (api.Module, error) {
	m, err := rt.InstantiateWithConfig(ctx, p.Wasm, wazero.NewModuleConfig().WithName(name))
	if err != nil {
		return nil, err
	}
	for _, d := range p.Data {
		if !m.Memory().Write(d.Offset, d.Bytes) {
			return nil, fmt.Errorf("data of %d bytes at %#x is outside of the memory", len(d.Bytes), d.Offset)
		}
	}
	for _, g := range p.Globals {
		if _, ok := m.ExportedGlobal(g).(api.MutableGlobal); !ok {
			return nil, fmt.Errorf("global %s cannot be set", g)
		}
	}
	if p.Start {
		if _, err := m.ExportedFunction(StartExport).Call(ctx); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// sameTrap is s with what dispatch functions say instead, for entries that are
// null, not there or of another type.
func sameTrap(s string) string {
	for _, other := range []string{"indirect call type mismatch", "invalid table access"} {
		s = strings.ReplaceAll(s, other, "unreachable")
	}
	return s
}

// firstLine is what an error says before its stack trace, which names functions
// by index.
func firstLine(err error) string {
	if err == nil {
		return ""
	}
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}

// TestSpecification runs the specification's tests on the modules as they are,
// metered and prepared, side by side: the same results, the same traps, the same memory,
// and modules refused on one side are refused on the other.
func TestSpecification(t *testing.T) {
	dir, err := wazeroDir()
	if err != nil {
		t.Fatal(err)
	}
	spectest := readFile(t, filepath.Join(dir, "internal", "integration_test", "spectest", "testdata", "spectest.wasm"))
	for _, suite := range specSuites {
		names := glob(t, filepath.Join(specDir(t, suite), "*.json"))
		every := len(names) / scaled(len(names))
		for i, name := range names {
			if i%every != 0 {
				continue
			}
			t.Run(suite+"/"+strings.TrimSuffix(filepath.Base(name), ".json"), func(t *testing.T) {
				var script struct{ Commands []specCommand }
				if err := json.Unmarshal(readFile(t, name), &script); err != nil {
					t.Fatal(err)
				}
				runSpec(t, filepath.Dir(name), spectest, script.Commands)
			})
		}
	}
}

// memoryOf returns the first MiB of the module's memory, if it has one.
func memoryOf(m api.Module) []byte {
	if m == nil || reflect.ValueOf(m.Memory()).IsNil() {
		return nil
	}
	b, _ := m.Memory().Read(0, min(m.Memory().Size(), 1<<20))
	return b
}

func runSpec(t *testing.T, dir string, spectest []byte, commands []specCommand) {
	ctx := context.Background()
	plain := newSpecSide(ctx, t, nil, false, spectest)
	others := map[string]*specSide{
		"metered":  newSpecSide(ctx, t, &meterHost{slice: 1000}, false, spectest),
		"prepared": newSpecSide(ctx, t, &meterHost{slice: 1000}, true, spectest),
	}
	for i := range commands {
		c := &commands[i]
		at := fmt.Sprintf("line %d: %s %s", c.Line, c.Type, c.Action.Field)
		switch c.Type {
		case "module":
			name := ""
			if i+1 < len(commands) && commands[i+1].Type == "register" {
				name = commands[i+1].As
			}
			wasm := readFile(t, filepath.Join(dir, c.Filename))
			checkIdentity(t, c.Filename, wasm)
			for _, s := range []*specSide{plain, others["metered"], others["prepared"]} {
				m, err := s.load(ctx, wasm, name)
				if err != nil {
					t.Fatalf("%s: %v", at, err)
				}
				s.last = m
				if c.Name != "" {
					s.modules[c.Name] = m
				}
			}
		case "assert_return", "action", "assert_trap", "assert_exhaustion":
			want, mw := plain.act(ctx, c)
			for how, side := range others {
				got, mg := side.act(ctx, c)
				if got != want && (!side.prepared || sameTrap(got) != sameTrap(want)) {
					t.Errorf("%s: %s %q, plain %q", at, how, got, want)
				}
				if !bytes.Equal(memoryOf(mw), memoryOf(mg)) {
					t.Errorf("%s: %s: memories differ", at, how)
				}
			}
		case "assert_malformed", "assert_invalid", "assert_unlinkable", "assert_uninstantiable":
			if c.ModuleType == "text" {
				continue
			}
			wasm := readFile(t, filepath.Join(dir, c.Filename))
			_, want := plain.load(ctx, wasm, "")
			for how, side := range others {
				_, got := side.load(ctx, wasm, "")
				if want != nil && got == nil {
					t.Errorf("%s: %s: refused plain (%v), accepted %s", at, c.Filename, want, how)
				}
				if want == nil && got != nil {
					t.Errorf("%s: %s: accepted plain, refused %s: %v", at, c.Filename, how, got)
				}
			}
		case "register":
		default:
			t.Fatalf("%s: unknown command", at)
		}
	}
}
