package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/mem"
	"github.com/circles-host/circles/host/trial"
	"github.com/circles-host/circles/modules/build"
)

func testCommand() *cli.Command {
	return &cli.Command{
		Name:      "test",
		Usage:     "build a module and run its example cases, each in new contexts",
		ArgsUsage: "DIR|FILE.wasm|TEXT",
		Description: `The cases are in ` + trial.CasesFile + `, beside the sources, whatever the language:

   [[case]]
   name   = "alice signs"
   entry  = "sign"
   params = { message = "Hi" }           # a text as it is, anything else as JSON
   caller = { "/card.txt" = "Oxford" }   # the caller's files, before
   before = { "/book.txt" = "" }         # the target's files and records, before
   result = { entry = 1 }                # or a text, or matches = "a regular expression"
   after  = { "/book.txt" = "1. alice: Hi\n" }

   [[case]]
   name    = "what has no message is refused"
   entry   = "sign"
   params  = {}
   expect  = "failed"                    # how it ends; "done" if not said
   message = "message"                   # is in what is said of that

as and to name the peers (alice and bob, if not said), lend = ["read /card.txt"]
and allow = ["write /book.txt"] what each lets the script do (what the manifest
asks for, if not said), limits = "time=1s" those of the permit, log what is logged,
denied = ["read /diary.txt"] what the script asks of the target and does not get.
Nothing may change that after does not name; in it true means that something is
there, false that it is not, { matches = "…" } what its text is like.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "cases", Usage: "read the cases from `FILE`"},
			&cli.StringFlag{Name: "run", Usage: "only cases whose name matches the regular expression `RE`"},
			&cli.StringFlag{Name: "junit", Usage: "write the results to `FILE` as JUnit's XML, too"},
			&cli.StringFlag{Name: "sdk", EnvVars: []string{"CIRCLES_C_SDK"}, Usage: "take circles.h and circles.c from `DIR` instead of those that are built in"},
			jsonFlag(),
		},
		Action: test,
	}
}

// caseJSON is a case's result, for programs.
type caseJSON struct {
	Name     string        `json:"name"`
	Line     int           `json:"line,omitempty"`
	Passed   bool          `json:"passed"`
	Problems []string      `json:"problems"`
	Code     script.Code   `json:"code"`
	Result   string        `json:"result,omitempty"`
	Message  string        `json:"message,omitempty"`
	Log      string        `json:"log,omitempty"`
	Fuel     uint64        `json:"fuel"`
	Took     time.Duration `json:"took"` // nanoseconds
}

func test(c *cli.Context) error {
	if err := args(c, 1, 1, "DIR|FILE.wasm|TEXT"); err != nil {
		return err
	}
	only, err := regexp.Compile(c.String("run"))
	if err != nil {
		return usage("--run: %w", err)
	}
	from := c.Args().First()
	cases, file, err := casesOf(from, c.String("cases"))
	if err != nil {
		return err
	}
	all := len(cases)
	chosen := cases[:0]
	for _, k := range cases {
		if only.MatchString(k.Name) {
			chosen = append(chosen, k)
		}
	}
	if len(chosen) == 0 {
		return usage("--run %s: none of the %d cases in %s has such a name", c.String("run"), all, relative(file))
	}
	name, wasm, err := underTest(c, from)
	if err != nil {
		return err
	}
	language, err := languageOf(c, from)
	if err != nil {
		return err
	}
	if _, err := check(c, nil, from, wasm); err != nil {
		return coded{exitInvalid, inFile(err, from)}
	}
	config := caseConfig(name, wasm)
	config.Language = language
	results, err := runCases(c.Context, c, config, chosen)
	if err != nil {
		return err
	}
	if to := c.String("junit"); to != "" {
		if err := writeJUnit(to, name, file, results); err != nil {
			return err
		}
	}
	failed := 0
	for _, r := range results {
		if !r.Passed() {
			failed++
		}
	}
	p := printerOf(c)
	if c.Bool("json") {
		list := []caseJSON{}
		for _, r := range results {
			list = append(list, caseJSON{
				r.Case.Name, r.Case.Line, r.Passed(), append([]string{}, r.Problems...), r.Receipt.Code, string(r.Receipt.Result), r.Receipt.Message,
				string(r.Receipt.Log), r.Receipt.Usage.Fuel, r.Took,
			})
		}
		if err := p.json(list); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			showCase(p, file, r)
		}
		p.f("%d passed, %d failed\n", len(results)-failed, failed)
	}
	if failed > 0 {
		return coded{code: exitFailed}
	}
	return nil
}

// casesOf reads the cases of what is tested.
func casesOf(from, file string) (cases []trial.Case, read string, err error) {
	if file == "" {
		dir := from
		if info, err := os.Stat(from); err == nil && !info.IsDir() {
			dir = filepath.Dir(from)
		}
		file = filepath.Join(dir, trial.CasesFile)
	}
	cases, err = trial.ReadCases(file)
	var wrong *trial.CasesError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = coded{exitNotFound, fmt.Errorf("there is no %s; %s test --help shows one", relative(file), host.Command)}
	case errors.As(err, &wrong):
		err = coded{exitInvalid, err}
	}
	return cases, file, err
}

// underTest is a module file, or what is built of a project.
func underTest(c *cli.Context, from string) (name string, wasm []byte, err error) {
	whole, err := filepath.Abs(from)
	if err != nil {
		return "", nil, err
	}
	language, err := languageOf(c, from)
	if err != nil {
		return "", nil, err
	}
	name = moduleName(strings.TrimSuffix(whole, cmp.Or(language.Suffix, module.Suffix)))
	if language.Name != "" || strings.HasSuffix(from, module.Suffix) {
		wasm, err = readModule(from)
		return name, wasm, err
	}
	done := progress(c.Context, c.App.ErrWriter, "building "+name)
	built, err := build.Build(c.Context, build.Config{Dir: from, SDK: c.String("sdk")})
	done()
	if err != nil {
		return "", nil, buildError(c, err)
	}
	newPrinter(c.App.ErrWriter).f("%s", clean(built.Warnings))
	return name, built.Wasm, nil
}

// buildError prints what a compiler said, and says how the command ends.
func buildError(c *cli.Context, err error) error {
	var wrong *build.CompileError
	if errors.As(err, &wrong) {
		newPrinter(c.App.ErrWriter).f("%s", clean(wrong.Output))
		return coded{exitFailed, err}
	}
	return err
}

// caseConfig has cases of a module run in memory.
func caseConfig(name string, wasm []byte) trial.Config {
	return trial.Config{Wasm: wasm, Name: name, CacheDir: codeCache(), OpenStore: func() (store.Store, error) { return mem.New(mem.Config{}), nil }}
}

func runCases(ctx context.Context, c *cli.Context, config trial.Config, cases []trial.Case) ([]trial.Result, error) {
	defer progress(ctx, c.App.ErrWriter, "running the cases")()
	return trial.Run(ctx, config, cases)
}

func writeJUnit(to, name, file string, results []trial.Result) error {
	f, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	if err := errors.Join(trial.WriteJUnit(f, name, file, results), f.Close()); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

func showCase(p *printer, file string, r trial.Result) {
	if r.Passed() {
		p.f("%s %s  %s\n", p.green("✓"), line(r.Case.Name), p.dim(fmt.Sprintf("%s, fuel %d", took(r.Took), r.Receipt.Usage.Fuel)))
		return
	}
	p.f("%s %s  %s\n", p.red("✗"), line(r.Case.Name), p.dim(fmt.Sprintf("%s:%d", relative(file), r.Case.Line)))
	for _, problem := range r.Problems {
		p.f("  %s\n", strings.TrimSpace(indent("  ", clean(problem))))
	}
	if log := strings.TrimRight(string(r.Receipt.Log), "\n"); log != "" {
		p.f("%s\n", indent("  "+p.dim("log │ "), clean(log)))
	}
}
