//go:build wasip1

// Command is a guest that reads its input, and runs goroutines, maps and the
// garbage collector on it.
package main

import (
	"io"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
)

func main() {
	counts := map[string]int{}
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	for _, w := range strings.Fields(string(in)) {
		counts[w]++
	}
	words := make([]string, 0, len(counts))
	for w := range counts {
		words = append(words, w)
	}
	sort.Strings(words)
	for _, w := range words {
		say(w, strconv.Itoa(counts[w]))
	}

	var sum int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			s := strings.Repeat("x", i*100)
			runtime.Gosched()
			mu.Lock()
			sum += len(s)
			mu.Unlock()
		})
	}
	wg.Wait()
	runtime.GC()
	say("sum", strconv.Itoa(sum))

	defer func() {
		say("recovered", recover().(error).Error())
		os.Exit(3)
	}()
	var none []int
	say(strconv.Itoa(none[len(words)]))
}

func say(words ...string) { os.Stdout.WriteString(strings.Join(words, " ") + "\n") }
