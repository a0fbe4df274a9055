package bench_test

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/circles-host/circles/cmd/circles-host/bench"
	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/fs"
)

// directories opens contexts as they are kept unless somebody says otherwise.
func directories(*host.Root) (bench.OpenStore, func() error) {
	open := func(_ context.Context, e peer.Entry) (store.Store, error) {
		return fs.Open(fs.Config{Data: filepath.Join(e.Dir, "data"), Log: filepath.Join(e.Dir, "log"), Tx: filepath.Join(e.Dir, "tx")})
	}
	return open, func() error { return nil }
}

// TestEveryFigureStandsBesideItsFloor: all sections but the one that needs the go
// command, which TestScripts runs.
func TestEveryFigureStandsBesideItsFloor(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // there is no go here
	dir := t.TempDir()
	said := map[string]bool{}
	report, err := bench.Run(t.Context(), bench.Config{Stores: directories, Quick: true, Dir: dir, Progress: func(s string) { said[s] = true }})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Notes) == 0 || !strings.Contains(report.Notes[0], "no go command") {
		t.Errorf("it does not say that there was no guest in Go: %q", report.Notes)
	}
	found := map[string]int{}
	for _, row := range report.Rows {
		found[row.Section]++
		if row.Name == "" || row.Value < 0 || row.Floor != nil && (row.Floor.Name == "" || row.Floor.Value < 0) {
			t.Errorf("%+v is no figure", row)
		}
		if row.Unit == "µs" && row.Value == 0 {
			t.Errorf("%+v took no time", row)
		}
		if (row.Ratio != 0) != (row.RatioOf != "") || row.Ratio != 0 && row.Floor == nil {
			t.Errorf("%+v: a ratio is of something", row)
		}
	}
	for _, s := range bench.Sections() {
		if found[s.Name] == 0 || s.Title == "" {
			t.Errorf("nothing was measured of %q", s.Name)
		}
		if !said[s.Title] {
			t.Errorf("nobody was told that %q is being measured", s.Title)
		}
	}
	if report.Machine.OS != runtime.GOOS || report.Machine.Processors == 0 || report.Took <= 0 {
		t.Errorf("the machine is %+v", report.Machine)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("it left %v behind: %v", left, err)
	}
}

// TestRunEndsWithItsContext: who has seen enough need not wait.
func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	progress := func(s string) {
		if strings.HasPrefix(s, "neighbour") {
			cancel()
		}
	}
	_, err := bench.Run(ctx, bench.Config{Stores: directories, Quick: true, Dir: t.TempDir(), Only: []string{"neighbour"}, Progress: progress})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

func TestAims(t *testing.T) {
	for _, tc := range []struct {
		row bench.Row
		met bool
	}{
		{bench.Row{Value: 2, Aim: 3}, true},
		{bench.Row{Value: 4, Aim: 3}, false},
		{bench.Row{Value: 4, Aim: 3, AtLeast: true}, true},
		{bench.Row{Value: 4, Ratio: 2, Aim: 3}, true},
		{bench.Row{Value: 2, Ratio: 2, Aim: 3, AtLeast: true}, false},
	} {
		if tc.row.Met() != tc.met {
			t.Errorf("%+v: %v", tc.row, !tc.met)
		}
	}
	if _, err := bench.Run(t.Context(), bench.Config{Stores: directories, Only: []string{"everything"}}); err == nil {
		t.Error("it measured a section that there is not")
	}
	if _, err := bench.Run(t.Context(), bench.Config{}); err == nil {
		t.Error("it kept contexts nowhere")
	}
}
