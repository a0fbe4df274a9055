package host_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/testdata/build"
)

// ratings is what testdata/guests/ratings does, as a text of ten lines or so in each
// language.
var ratings = map[string]string{
	"javascript": `
const { by, stars } = params;
if (stars < 1 || stars > 5) throw "one to five stars";
const ratings = target.records("ratings");
const sum = ratings.get("sum", { n: 0, stars: 0 });
sum.n += 1;
sum.stars += stars;
ratings.put("sum", sum);
ratings.put("by/" + by, stars);
({ mean: sum.stars / sum.n });
`,
	"rhai": `
if params.stars < 1 || params.stars > 5 { throw "one to five stars"; }
let ratings = target.records("ratings");
let sum = #{ n: 0, stars: 0 };
try { sum = ratings.get("sum"); } catch (e) { if e.code != "not-found" { throw e; } }
sum.n += 1;
sum.stars += params.stars;
ratings.put("sum", sum);
ratings.put("by/" + params.by, params.stars);
#{ mean: sum.stars / sum.n }
`,
	"starlark": `
if params["stars"] < 1 or params["stars"] > 5:
    fail("one to five stars")
ratings = target.records("ratings")
sum = ratings.get("sum", default = {"n": 0, "stars": 0})
sum["n"] += 1
sum["stars"] += params["stars"]
ratings.put("sum", sum)
ratings.put("by/" + params["by"], params["stars"])
{"mean": sum["stars"] / sum["n"]}
`,
}

// BenchmarkTexts runs the same logic compiled from Go and as a text of each language,
// from the sealed script to its sealed receipt, in turns. Each reports by how many
// microseconds the median takes longer than that of the one in Go, and its fuel.
func BenchmarkTexts(b *testing.B) {
	w := newWorld(b, "alice", "bob")
	dir := filepath.Join(w.root.Dir, "modules")
	if _, err := module.Add(dir, "go", build.Go(b, "testdata/guests/ratings", true)); err != nil {
		b.Fatal(err)
	}
	names := []string{"go"}
	for _, l := range textLanguages() {
		if ratings[l.Name] == "" {
			b.Fatalf("%s has no text", l.Name)
		}
		if err := os.WriteFile(filepath.Join(dir, l.Name+l.Suffix), []byte(ratings[l.Name]), 0o644); err != nil {
			b.Fatal(err)
		}
		names = append(names, l.Name)
	}
	w.policy("bob", "all", `permit(principal, action, resource);`)
	if err := w.host.Problem(); err != nil {
		b.Fatal(err)
	}
	took, fuel := map[string][]time.Duration{}, map[string]uint64{}
	send := func(name string, n int) {
		sealed, id := w.seal("alice", "bob", script.Script{Logic: script.Logic{Name: name}, Params: fmt.Appendf(nil, `{"by":"alice","stars":%d}`, n%5+1)})
		began := time.Now()
		r := w.deliver(sealed, id)
		took[name] = append(took[name], time.Since(began))
		if r.Code != script.Done {
			b.Fatalf("%s: %v %s", name, r.Code, r.Message)
		}
		fuel[name] = r.Usage.Fuel
	}
	for _, name := range names {
		send(name, 0)
	}
	clear(took)
	n := 0
	for b.Loop() {
		for _, name := range names {
			send(name, n)
		}
		n++
	}
	median := func(name string) float64 {
		slices.Sort(took[name])
		return float64(took[name][len(took[name])/2].Nanoseconds()) / 1000
	}
	b.ReportMetric(median("go"), "go-µs")
	for _, name := range names[1:] {
		b.ReportMetric(median(name)-median("go"), name+"-µs-more")
	}
	for _, name := range names {
		b.ReportMetric(float64(fuel[name]), name+"-fuel")
	}
}
