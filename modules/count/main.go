// count answers a survey without showing the answers: it counts the values of one
// field over the JSON files of a folder, and returns counts only.
//
//	run, count  {"dir": "/survey", "field": "diet"}
//	            → {"field": "diet", "counts": {"vegan": 7}, "other": 5, "min": 5}
//
// Sent to many peers, the answers add up: each peer's files stay with it. A value
// that fewer than min files have is not named. It writes nothing.
package main

import "github.com/circles-host/circles/guest-sdk/go"

func main() {}

//go:wasmexport run
func run(ptr, n uint32) uint32 { return circles.HandleJSON(ptr, n, count) }

//go:wasmexport count
func countEntry(ptr, n uint32) uint32 { return circles.HandleJSON(ptr, n, count) }

func count(p params) (*result, error) { return tally(circles.Target().FS(), p) }
