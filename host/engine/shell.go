package engine

import (
	"context"
	"maps"
	"slices"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
)

// A shell is what an instance is bound to: streams, arguments, environment, the
// clock, its memory and imports. Making one costs as much as all the rest of
// instantiating a module, so a program keeps shells, for one run after the other.
// Everything in it leads on to the run that it serves, and to nothing when that is
// over: state is the run's, never the shell's.
type shell struct {
	run    *run
	config wazero.ModuleConfig
	ctx    context.Context // what wazero looks for in contexts: allocator and imports

	name string // args[0] that config says; without more arguments and environment
}

// shell returns one for a run of the program.
func (p *Program) shell(r *run, c *Call) *shell {
	name := c.Name
	if name == "" || p.info.Shape == Reactor {
		name = "script"
	}
	// A reactor's arguments and environment are the same for each run: it looks at
	// them while it is initialised.
	own := p.info.Shape == Command && (len(c.Args) > 0 || len(c.Env) > 0)
	if s, ok := p.shells.Get().(*shell); ok && !own && s.name == name {
		s.run = r
		return s
	}
	s := &shell{run: r, name: name}
	s.ctx = experimental.WithImportResolver(experimental.WithMemoryAllocator(context.Background(), s), p.links)
	s.config = p.engine.base.WithNanosleep(s.sleep).WithStderr(shellLog{s})
	if p.info.Shape == Reactor {
		// Its result is what its entry returns. What it prints is for people.
		s.config = s.config.WithStdout(shellLog{s}).WithArgs(name)
		return s
	}
	s.config = s.config.WithStdout(shellOut{s}).WithStdin(shellIn{s}).WithArgs(name)
	if own {
		s.name = "" // nobody else's
		s.config = s.config.WithArgs(append([]string{name}, c.Args...)...)
		for _, k := range slices.Sorted(maps.Keys(c.Env)) {
			s.config = s.config.WithEnv(k, c.Env[k])
		}
	}
	return s
}

// put takes a shell back, whose instance is closed.
func (p *Program) put(s *shell) {
	s.run = nil
	if s.name != "" {
		p.shells.Put(s)
	}
}

// Allocate implements experimental.MemoryAllocator.
func (s *shell) Allocate(limit, most uint64) experimental.LinearMemory {
	return s.run.memory.Allocate(limit, most)
}

func (s *shell) sleep(ns int64) { s.run.sleep(ns) }

type (
	shellIn  struct{ *shell }
	shellOut struct{ *shell }
	shellLog struct{ *shell }
)

func (s shellIn) Read(b []byte) (int, error)   { return s.run.stdin().Read(b) }
func (s shellOut) Write(b []byte) (int, error) { return s.run.out.Write(b) }

// Write leaves out what an interpreter's runtime says of having no memory left: pages
// about the interpreter, which who wrote the text has not.
func (s shellLog) Write(b []byte) (int, error) {
	if s.run.starved() {
		return len(b), nil
	}
	return s.run.log.Write(b)
}
