package modules_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/circles-host/circles/guest-sdk/sdktest"
	"github.com/circles-host/circles/testdata/build"
)

func TestCount(t *testing.T) {
	h := sdktest.New(t)
	h.ReadOnly = true
	n := 0
	answer := func(times int, json string) {
		for range times {
			n++
			h.Put(t, "target", fmt.Sprintf("/survey/%03d.json", n), json)
		}
	}
	answer(7, `{"diet": "vegan", "age": 30, "name": "x"}`)
	answer(5, `{"diet": "omnivore", "age": 31}`)
	answer(4, `{"diet": "fruit", "age": 32}`)
	g := h.Load(t, build.Go(t, "modules/count", true))

	// Four fruit eaters are neither named nor to be had by subtraction.
	expect(t, g, "run", `{"dir": "/survey", "field": "diet"}`, `{"field":"diet","counts":{"omnivore":5,"vegan":7},"min":5}`)
	expect(t, g, "count", `{"dir": "survey/", "field": "diet", "min": 6}`, `{"field":"diet","counts":{"vegan":7},"other":9,"min":6}`)
	expect(t, g, "count", `{"dir": "/survey", "field": "diet", "min": 100}`, `{"field":"diet","counts":{},"min":100}`)
	expect(t, g, "count", `{"dir": "/survey", "field": "diet", "min": 4}`, "error: params: min is 4; groups below 5 are never shown")
	expect(t, g, "count", `{"dir": "/survey", "field": "diet", "min": -1}`, "error: params: min is -1")

	// What is not an answer is left out, and values that cannot be shown are not.
	answer(6, `{"diet": "\u001b[2J"}`)
	answer(1, `{"diet": `)
	answer(1, `["diet"]`)
	answer(1, `{"diet": {"deep": 1}}`)
	h.Put(t, "target", "/survey/notes.txt", `{"diet": "vegan"}`)
	h.Put(t, "target", "/survey/dir.json/x.json", `{"diet": "vegan"}`)
	h.Put(t, "target", "/survey/huge.json", `{"diet": "vegan"}`+fmt.Sprintf("%70000s", ""))
	if err := os.Symlink("001.json", filepath.Join(h.Target.Dir, "survey", "link.json")); err != nil {
		t.Fatal(err)
	}
	expect(t, g, "run", `{"dir": "/survey", "field": "diet"}`, `{"field":"diet","counts":{"omnivore":5,"vegan":7},"other":11,"min":5}`)
	expect(t, g, "run", `{"dir": "/survey", "field": "age"}`, `{"field":"age","counts":{"30":7,"31":5},"min":5}`)

	expect(t, g, "run", `{"dir": "/none", "field": "diet"}`, "error: readdir none: ")
	expect(t, g, "run", `{"dir": "/survey"}`, "error: params: field has 0 bytes")
	expect(t, g, "run", `{}`, "error: params: want {")
	expect(t, g, "run", `{"dir": "../../etc", "field": "x"}`, "error: readdir etc: ")

	h.Put(t, "target", "/many/x", "")
	for i := range 101 * 5 {
		h.Put(t, "target", fmt.Sprintf("/many/%d.json", i), fmt.Sprintf(`{"v": %d}`, i/5))
	}
	expect(t, g, "run", `{"dir": "/many", "field": "v"}`, `error: count /many: "v" has more than 100 values`)
	if len(g.Log) > 0 || g.Stderr.Len() > 0 {
		t.Errorf("the caller reads the log, and in it: %v %s", g.Log, g.Stderr.String())
	}
}
