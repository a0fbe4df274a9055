//go:build wasip1

// Command is a guest that reads its input, and runs goroutines, maps and the
// garbage collector on it.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"sync"
)

func main() {
	counts := map[string]int{}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		for _, w := range strings.Fields(in.Text()) {
			counts[w]++
		}
	}
	words := make([]string, 0, len(counts))
	for w := range counts {
		words = append(words, w)
	}
	sort.Strings(words)
	for _, w := range words {
		fmt.Println(w, counts[w])
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
	fmt.Println("sum", sum)

	defer func() {
		fmt.Println("recovered", recover())
		os.Exit(3)
	}()
	var none []int
	fmt.Println(none[len(words)])
}
