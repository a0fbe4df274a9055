package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/records"
	"github.com/circles-host/circles/host/schema"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/storage"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
)

func schemaCommand() *cli.Command {
	return &cli.Command{
		Name:        "schema",
		Usage:       "bind collections of records to JSON Schemas",
		Subcommands: []*cli.Command{schemaCheckCommand(), schemaMigrateCommand(), schemaGenCommand()},
	}
}

func schemaCheckCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "check a peer's schemas and the records that they bind, or everybody's",
		ArgsUsage: "[PEER]",
		Description: `Says what keeps the schemas from being in force as they are written, which records
are not as they have them, and whether the indexes are right. Indexes that are not are
made again by the next script or worker that opens the context. While a worker has a
context open, in a backend of which nobody can look at it meanwhile, only the files are
checked. Exit codes: 0 all is well, 7 it is not.`,
		Flags:  []cli.Flag{rootFlag(), jsonFlag()},
		Action: schemaCheck,
	}
}

// schemaState is what is known of one collection that has a schema.
type schemaState struct {
	Peer       peer.Name `json:"peer"`
	Collection string    `json:"collection"`
	Problem    string    `json:"problem,omitempty"` // of the file
	InForce    bool      `json:"inForce"`           // the file is what is in force
	Looked     bool      `json:"looked"`            // at the records
	Records    int       `json:"records"`
	Violating  int       `json:"violating"`
	First      []string  `json:"first,omitempty"` // "KEY/pointer: reason"
	Indexes    []string  `json:"indexes,omitempty"`
	Right      bool      `json:"indexesRight"`
}

func schemaCheck(c *cli.Context) error {
	if err := args(c, 0, 1, "[PEER]"); err != nil {
		return err
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	var peers []peer.Entry
	if name := c.Args().First(); name != "" {
		e, err := held(root, name)
		if err != nil {
			return err
		}
		peers = append(peers, e)
	} else {
		peers = slices.DeleteFunc(slices.Clone(root.Peers.All()), func(e peer.Entry) bool { return !e.Held() })
	}
	p := printerOf(c)
	all := []schemaState{}
	wrong := false
	for _, e := range peers {
		states, err := schemasOf(c.Context, root, e)
		if err != nil {
			return inUse(c, root, e, err)
		}
		if len(states) == 0 && !c.Bool("json") {
			p.f("%s %s  %s\n", p.green("✓"), p.bold(string(e.Name)), p.dim("no schemas"))
		}
		for _, s := range states {
			all = append(all, s)
			wrong = s.show(p, c.Bool("json")) || wrong
		}
	}
	if c.Bool("json") {
		if err := p.json(all); err != nil {
			return err
		}
	}
	if wrong {
		return silently(exitInvalid)
	}
	return nil
}

// show prints s, and reports whether anything is wrong.
func (s *schemaState) show(p *printer, quiet bool) (wrong bool) {
	say := func(mark, text string) {
		if !quiet {
			p.f("%s %s/%s  %s\n", mark, p.bold(string(s.Peer)), p.bold(s.Collection), text)
		}
	}
	if s.Problem != "" {
		say(p.red("✗"), clean(s.Problem))
		return true
	}
	about := count(s.Records, "record")
	if len(s.Indexes) > 0 {
		about += ", indexes " + strings.Join(s.Indexes, ", ")
	}
	switch {
	case !s.Looked:
		say(p.yellow("!"), "the file is well; a worker has the context open, so its records were not looked at")
		return false
	case s.Violating > 0:
		say(p.red("✗"), fmt.Sprintf("%d of %s are not as the schema has them:", s.Violating, count(s.Records, "record")))
		for _, v := range s.First {
			if !quiet {
				p.f("  %s\n", clean(v))
			}
		}
		return true
	case !s.InForce:
		say(p.yellow("!"), clean(about)+": well, and in force when a script or a worker opens the context")
	case !s.Right:
		say(p.yellow("!"), clean(about)+": the indexes are made again when a script or a worker opens the context")
	default:
		say(p.green("✓"), p.dim(clean(about)))
	}
	return false
}

// schemasOf looks at the schemas of a peer, and at what they are about.
func schemasOf(ctx context.Context, root *host.Root, e peer.Entry) ([]schemaState, error) {
	files, err := schema.ReadDir(host.SchemaDir(e), nil)
	if err != nil {
		return nil, err
	}
	var states []schemaState
	for name, err := range files.Problems {
		states = append(states, schemaState{Peer: e.Name, Collection: name, Problem: err.Error()})
	}
	if len(files.Schemas) > 0 {
		look := func(private store.FS) error {
			for _, collection := range slices.Sorted(maps.Keys(files.Schemas)) {
				state, err := lookAt(ctx, private, e, collection, files.Schemas[collection])
				if err != nil {
					return err
				}
				states = append(states, state)
			}
			return nil
		}
		kept, err := contextsOf(root).Read(ctx, e)
		switch {
		case errors.Is(err, storage.ErrInUse):
			err = look(nil)
		case err == nil:
			err = errors.Join(kept.View(ctx, func(tx store.Tx) error { return look(tx.Private()) }), kept.Close())
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(states, func(a, b schemaState) int { return strings.Compare(a.Collection, b.Collection) })
	return states, nil
}

func lookAt(ctx context.Context, private store.FS, e peer.Entry, collection string, s *schema.Schema) (schemaState, error) {
	state := schemaState{Peer: e.Name, Collection: collection}
	for _, x := range s.Indexes() {
		state.Indexes = append(state.Indexes, x.String())
	}
	if private == nil {
		return state, nil
	}
	state.Looked = true
	t := records.In(private, records.Config{ReadOnly: true})
	checked, err := t.Check(ctx, collection, s)
	var damage *records.DamageError
	if errors.As(err, &damage) {
		state.Problem = damage.Error()
		return state, nil
	}
	if err != nil {
		return state, err
	}
	state.Records = checked.Records
	if !s.KeepsStored() {
		state.Violating = checked.Violating
		for _, v := range checked.First {
			for _, one := range v.List {
				state.First = append(state.First, v.Key+one.String())
			}
		}
	}
	was, err := records.Bound(private, collection, s)
	if err != nil && !errors.As(err, &damage) {
		return state, err
	}
	state.InForce = was == s
	state.Right, err = t.Indexed(ctx, collection, s.Indexes())
	return state, err
}

func schemaMigrateCommand() *cli.Command {
	return &cli.Command{
		Name:      "migrate",
		Usage:     "have a module change records to be as a new schema has them",
		ArgsUsage: "PEER COLLECTION MODULE[:ENTRY] [PARAMS|@file|-]",
		Description: `Write the new schema first: it is not in force while records violate it. The module
then runs in the peer's context, as the owner's script, with the records of that
collection and nothing else. It is shown what it would change; then it is run again, and
what it changed and the schema are committed as one. If a record is left that is not as
the schema has it, or fewer are left than there were, nothing is changed. The worker
must not have the context open. Without PARAMS they are {"collection": "COLLECTION"}.

   circles-host schema migrate bob bookings rename-seats --dry-run`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "change nothing, and show what would change"},
			&cli.IntFlag{Name: "remove", Usage: "how `MANY` records it may leave fewer"},
			&cli.DurationFlag{Name: "deadline", Usage: "give up after `TIME`", Value: time.Minute},
			jsonFlag(),
		},
		Action: schemaMigrate,
	}
}

// migrator is a worker in this process that migrates what it is sent.
type migrator struct {
	*host.Host
	migration host.Migration
}

// Send implements transport.Sender.
func (m migrator) Send(ctx context.Context, sealed []byte, _ transport.Back) ([]byte, error) {
	return m.Migrate(ctx, sealed, m.migration)
}

func schemaMigrate(c *cli.Context) error {
	if err := args(c, 3, 4, "PEER COLLECTION MODULE[:ENTRY] [PARAMS]"); err != nil {
		return err
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	e, err := held(root, c.Args().First())
	if err != nil {
		return err
	}
	key, err := keyOf(root, e)
	if err != nil {
		return err
	}
	if url := root.Worker(c.Context, e); url != "" {
		return inUse(c, root, e, storage.ErrInUse)
	}
	collection := c.Args().Get(1)
	switch _, err := schema.ReadFile(host.SchemaDir(e), collection+schema.Suffix); {
	case errors.Is(err, fs.ErrNotExist):
		return coded{exitNotFound, fmt.Errorf("there is no schema/%s%s of %s to migrate to: write that first", collection, schema.Suffix, e.Name)}
	case err != nil:
		return coded{exitInvalid, err}
	}
	s := script.Script{Target: e.ID}
	s.Logic.Name, s.Entry, _ = strings.Cut(c.Args().Get(2), ":")
	given := c.Args().Get(3)
	if given == "" {
		given = fmt.Sprintf(`{"collection":%q}`, collection)
	}
	if s.Params, err = params(given, c.App.Reader); err != nil {
		return err
	}
	config := configOf(root)
	config.OpenStore = contextsOf(root).Open
	config.Notify = func(host.Notice) {} // that the schema is not in force yet is why this is done
	h, err := host.Open(c.Context, root, config)
	if err != nil {
		return err
	}
	defer h.Close()
	var did host.Migrated
	via := migrator{h, host.Migration{Collection: collection, Remove: c.Int("remove"), Migrated: &did}}
	run := func(dry bool) (host.Sent, error) {
		s.DryRun = dry
		now := time.Now()
		s.NotBefore, s.Deadline = now, now.Add(c.Duration("deadline"))
		return host.Send(c.Context, via, s, key, h.ID(), nil)
	}
	about := newPrinter(c.App.ErrWriter)
	sent, err := run(true)
	if err != nil {
		return err
	}
	if sent.Receipt.Code != script.Done {
		return report(c, sent)
	}
	wouldChange(about, sent.Receipt.Effects)
	about.f("%s\n", about.dim(fmt.Sprintf("%s before, %d after, all as the new schema has them", count(did.Before, "record"), did.After)))
	if c.Bool("dry-run") {
		return report(c, sent)
	}
	if sent, err = run(false); err != nil {
		return err
	}
	return report(c, sent)
}

func schemaGenCommand() *cli.Command {
	return &cli.Command{
		Name:      "gen",
		Usage:     "write types for the values that a schema describes",
		ArgsUsage: "FILE",
		Description: `FILE is a schema; the type of its values is named as the file is, or as --name says.
Go's need nothing, Rust's the crates serde and serde_json, TypeScript's nothing. What a
type cannot say is any JSON value there; the schema still checks it.

   circles-host schema gen --lang go circles/peers/bob/schema/bookings.json > records/records.go`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "lang", Usage: "the `LANGUAGE`: " + strings.Join(schema.Languages(), ", ")},
			&cli.StringFlag{Name: "name", Usage: "the type's `NAME`"},
		},
		Action: schemaGen,
	}
}

func schemaGen(c *cli.Context) error {
	if err := first(args(c, 1, 1, "FILE"), needs(c, "lang")); err != nil {
		return err
	}
	file := c.Args().First()
	dir, name := filepath.Split(file)
	if dir == "" {
		dir = "."
	}
	if _, err := os.Stat(file); err != nil {
		return coded{exitNotFound, err}
	}
	s, err := schema.ReadFile(dir, name)
	if err != nil {
		return coded{exitInvalid, err}
	}
	named := c.String("name")
	if named == "" {
		named = strings.TrimSuffix(name, schema.Suffix)
	}
	code, err := s.Bindings(c.String("lang"), named)
	if err != nil {
		return coded{exitUsage, err}
	}
	_, err = fmt.Fprint(c.App.Writer, code)
	return err
}
