// Interpreter is the language module of Starlark: go.starlark.net, given what scripts
// need. It exports load and call, as the world language of wit/script.wit has them; the
// guide is cmd/circles-host/docs/languages/starlark.md.
//
//	text.go     a text becomes a program, once; a run enters it
//	objects.go  what it finds there: caller, target, log, modules, base, attempt, fail
//	json.go     params, results, records, and the script's own json
//	errors.go   what readers of receipts are told
//
// Texts, params and files are hostile. What a text can make grow without end is bounded
// by the host: fuel, memory, and the depth of calls. Where that would end the instance
// with a sentence that names no line, there is a bound of our own before it.
package main

func main() {}
