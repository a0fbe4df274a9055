package wasi

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	wsys "github.com/tetratelabs/wazero/sys"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/store/overlay"
)

// FuzzCalls makes any calls with any parameters. Whatever they are, nothing
// panics, no call outlives the deadline, the handles stay within their limit
// and the store does not fail.
func FuzzCalls(f *testing.F) {
	all, err := originals()
	if err != nil {
		f.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(all))
	index := func(name string) byte { return byte(slices.Index(names, name)) }
	// A parameter is a byte for its kind and one to choose with.
	const fd, pointer, count, huge, path = 0, 1, 2, 3, 4
	f.Add([]byte{index("path_open"), fd, 3, count, 1, path, 0, path, 0, count, 1, huge, 0, huge, 0, count, 0, pointer, 0,
		index("fd_write"), fd, 4, pointer, 8, count, 2, pointer, 0,
		index("fd_renumber"), fd, 4, huge, 1,
		index("fd_readdir"), fd, 3, pointer, 9, count, 200, count, 0, pointer, 1})
	f.Add([]byte{index("poll_oneoff"), pointer, 1, pointer, 1, count, 3, pointer, 1, index("fd_allocate"), fd, 1, huge, 2, huge, 2})
	f.Add([]byte{index("path_symlink"), path, 1, path, 1, fd, 3, path, 2, path, 2, index("path_rename"), fd, 3, path, 2, path, 2, fd, 3, path, 3, path, 3})
	f.Add([]byte{index("fd_close"), fd, 3, index("path_create_directory"), fd, 3, path, 0, path, 0, index("random_get"), pointer, 0, huge, 0})

	f.Add([]byte{index("path_create_directory"), fd, 3, path, 3, path, 3,
		index("path_open"), fd, 3, count, 1, path, 3, path, 3, count, 2, huge, 0, huge, 0, count, 0, pointer, 0,
		index("fd_fdstat_set_rights"), fd, 5, huge, 7, huge, 1, index("fd_renumber"), fd, 5, fd, 3, index("fd_prestat_get"), fd, 4, pointer, 2,
		index("path_rename"), fd, 3, path, 3, path, 3, fd, 4, path, 2, path, 2, index("fd_renumber"), fd, 1, fd, 4, index("fd_write"), fd, 4, pointer, 8, count, 2, pointer, 0})
	f.Add([]byte{index("path_rename"), fd, 3, path, 4, path, 4, fd, 5, path, 1, path, 1, index("fd_readdir"), fd, 5, pointer, 9, count, 200, count, 0, pointer, 1, index("fd_close"), fd, 5})

	paths := []string{"f", "../f", "link", "d", "d/f", ".", "d/.", "/", "\x00", "\xff", "d/", "link/f", ""}
	const pathsAt, memory = 1 << 10, 1 << 16
	r := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigInterpreter())
	defer r.Close(context.Background())
	empty, err := r.CompileModule(context.Background(), []byte("\x00asm\x01\x00\x00\x00\x05\x03\x01\x00\x01"))
	if err != nil {
		f.Fatal(err)
	}

	f.Fuzz(func(t *testing.T, script []byte) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond) // or to sleep would be all it does
		defer cancel()
		s := mem.New(mem.Config{Limits: overlay.Limits{FileSize: 1 << 20, StagedBytes: 4 << 20}})
		defer s.Close()
		err := s.Update(context.Background(), func(tx store.Tx) error {
			ctx, files := MountAll(ctx, []Preopened{{"/", tx.Files(nil)}, {"two", tx.Files(nil)}}, Config{Handles: 8})
			mod, err := r.InstantiateModule(ctx, empty, wazero.NewModuleConfig().WithName(""))
			if err != nil {
				return err
			}
			defer mod.Close(ctx)
			mod.Memory().Write(0, script[:min(len(script), pathsAt)])
			for i, p := range paths {
				mod.Memory().WriteString(uint32(pathsAt+16*i), p)
			}

			for len(script) > 0 {
				name := names[int(script[0])%len(names)]
				script = script[1:]
				types := all[name].def.ParamTypes()
				stack := make([]uint64, max(len(types), 1))
				for i := range types {
					if len(script) < 2 {
						return nil
					}
					kind, v := script[0]%8, script[1]
					script = script[2:]
					switch kind {
					case fd:
						stack[i] = uint64(v % 16)
					case pointer:
						stack[i] = uint64(v) * 257 % memory
					case count:
						stack[i] = uint64(v)
					case huge:
						stack[i] = []uint64{1<<64 - 1, 1<<63 - 1, 1 << 63, 1<<31 - 1, 1 << 31, 1<<32 - 1, 0x20000001, 1 << 16}[v%8]
					case path:
						if p := int(v) % len(paths); i > 0 && stack[i-1] == uint64(pathsAt+16*p) {
							stack[i] = uint64(len(paths[p]))
						} else {
							stack[i] = uint64(pathsAt + 16*p)
						}
					default:
						stack[i] = uint64(kind)<<32 | uint64(v) // garbage in the upper half
					}
				}
				ended := false
				func() {
					defer func() {
						if v := recover(); v != nil {
							var exit *wsys.ExitError
							if err, ok := v.(error); !ok || !errors.As(err, &exit) {
								t.Fatalf("%s%d panicked: %v", name, stack, v)
							}
							ended = true
						}
					}()
					start := time.Now()
					served(name, all)(ctx, mod, stack)
					if d := time.Since(start); d > 10*time.Second {
						t.Fatalf("%s%d took %v", name, stack, d)
					}
				}()
				if ended {
					break
				}
				if stack[0] > uint64(eNotcapable) {
					t.Fatalf("%s returned %d, which is no errno", name, stack[0])
				}
				if files.Open() > 8 {
					t.Fatalf("%s: %d handles are open", name, files.Open())
				}
			}
			return files.Close()
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
