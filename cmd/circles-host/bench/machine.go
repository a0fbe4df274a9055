package bench

import (
	"os"
	"runtime"
	"strings"
)

// Machine is what figures depend on.
type Machine struct {
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	Kernel     string `json:"kernel,omitempty"`
	Processor  string `json:"processor,omitempty"`
	Processors int    `json:"processors"` // that Go uses
	Go         string `json:"go"`
	Load       string `json:"load,omitempty"` // average of the last minute, as it began
}

func thisMachine() Machine {
	m := Machine{OS: runtime.GOOS, Arch: runtime.GOARCH, Processors: runtime.GOMAXPROCS(0), Go: runtime.Version()}
	m.Kernel = firstLine("/proc/sys/kernel/osrelease")
	m.Load, _, _ = strings.Cut(firstLine("/proc/loadavg"), " ")
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for l := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.Processor = strings.TrimSpace(value)
				break
			}
		}
	}
	return m
}

// firstLine is "" where there is no such file, as on other systems than Linux.
func firstLine(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	l, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(l)
}
