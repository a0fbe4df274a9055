package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/archive"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/storage"
	"github.com/circles-host/circles/host/store/fs"
)

func peerExportCommand() *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "write a peer's whole context into one signed file",
		ArgsUsage: "PEER",
		Description: `The file is a tar that holds peer.toml, policies, modules, schemas, data and log,
and a signed list of them: signed by the peer if its key is here, else by this
host. The private key is in it only with --with-key.

The context must not be open: stop the worker that serves it. It stays here; take
it out of use before another host serves it, or the two will differ.`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write `FILE` instead of PEER.circles.tar; - is standard output"},
			&cli.BoolFlag{Name: "with-key", Usage: "put the peer's private key into it too"},
			jsonFlag(),
		},
		Action: peerExport,
	}
}

func peerImportCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "take in a context that peer export wrote",
		ArgsUsage: "FILE [NAME]",
		Description: `All of it is checked, and it is here as a whole or not at all. An archive is taken
when the peer itself signed it, or this host, or the host that circles.toml names
for the peer; for another host say with --host which one must have signed it. NAME
is the petname here, if it is not to be the one that the peer had.`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.StringFlag{Name: "host", Usage: "`DID` of the host that must have signed it"},
			&cli.StringFlag{Name: "store", Usage: "keep the context in the `BACKEND` fs, sqlite or another, instead of that of circles.toml"},
			jsonFlag(),
		},
		Action: peerImport,
	}
}

// archiveJSON is an archive, for programs.
type archiveJSON struct {
	File    string         `json:"file"`
	Name    peer.Name      `json:"name"`
	Peer    peer.ID        `json:"peer"`
	Signer  peer.ID        `json:"signer"`
	HasKey  bool           `json:"has_key"`
	Files   int            `json:"files"`
	Bytes   int64          `json:"bytes"`
	LeftOut []string       `json:"left_out,omitempty"` // of data, by export
	Log     *uint64        `json:"log_entries,omitempty"`
	Head    *script.Digest `json:"log_head,omitempty"`
	Dir     string         `json:"dir,omitempty"` // where it is now, by import
}

func peerExport(c *cli.Context) error {
	if err := args(c, 1, 1, "PEER"); err != nil {
		return err
	}
	file := c.String("output")
	if file == "-" && c.Bool("json") {
		return usage("--output - and --json both want standard output: choose")
	}
	root, e, err := rootAndHeld(c, c.Args().First())
	if err != nil {
		return err
	}
	key, err := e.Key()
	if errors.Is(err, iofs.ErrNotExist) {
		if c.Bool("with-key") {
			return coded{exitNotFound, fmt.Errorf("the key of %s is not here; export without --with-key", e.Name)}
		}
		key, err = root.Key()
	}
	if err != nil {
		return err
	}
	if file == "" {
		file = string(e.Name) + ".circles.tar"
	}
	// Holding the store keeps scripts out, and finishes what a crash interrupted.
	s, err := contextsOf(root).Open(c.Context, e)
	if err != nil {
		return inUse(c, root, e, err)
	}
	defer s.Close()
	errOut := newPrinter(c.App.ErrWriter)
	kept := ""
	v := archiveJSON{File: file, Name: e.Name, Peer: e.ID, Signer: key.ID(), HasKey: c.Bool("with-key")}
	if k, err := contextsOf(root).Of(e); err != nil {
		return err
	} else if k.Name != host.FS { // written as a directory first, since an archive is one
		if kept, err = os.MkdirTemp(e.Dir, ".export-"); err != nil {
			return fmt.Errorf("export %s: %w", e.Name, err)
		}
		defer os.RemoveAll(kept)
		meter := newMeter(errOut)
		err = contextsOf(root).Unfold(c.Context, e, s, kept, meter.show)
		meter.clear()
		if err != nil {
			return err
		}
	}
	source := archive.Source{
		Dir: e.Dir, Kept: kept, Peer: e.ID, Name: e.Name, WithKey: c.Bool("with-key"),
		Warn: func(path, why string) {
			v.LeftOut = append(v.LeftOut, path)
			errOut.f("%s left out %s: %s\n", errOut.yellow("!"), line(path), why)
		},
	}
	write := func(w io.Writer) error {
		m, err := archive.Write(c.Context, w, source, key)
		if err == nil {
			v.Files, v.Bytes = m.Files()
		}
		return err
	}
	if file == "-" {
		err = write(c.App.Writer)
	} else {
		err = writeNew(file, write)
	}
	if err != nil {
		return err
	}
	if v.HasKey {
		errOut.f("%s %s\n", errOut.red("!"), errOut.bold("It holds the private key of "+string(e.Name)+": whoever reads the file can sign as "+string(e.Name)+". Keep it as you keep the key."))
	}
	p := printerOf(c)
	switch {
	case file == "-":
		return nil
	case c.Bool("json"):
		return p.json(v)
	}
	by, hint := "the key of "+string(e.Name), ""
	if v.Signer != e.ID {
		by, hint = "this host, "+string(v.Signer), " --host "+string(v.Signer)
	}
	p.f("%s %s  %s, %s, signed with %s\n", p.green("✓"), p.bold(relative(file)), count(v.Files, "file"), bytesText(uint64(v.Bytes)), by)
	p.f("\nNext, elsewhere: %s peer import %s%s\n", host.Command, quote(filepath.Base(file)), hint)
	return nil
}

// inUse says of an error about a context that is in use who has it open.
func inUse(c *cli.Context, root *host.Root, e peer.Entry, err error) error {
	if !errors.Is(err, storage.ErrInUse) {
		return err
	}
	next := "stop what has it open, and try again"
	if url := root.Worker(c.Context, e); url != "" {
		next = fmt.Sprintf("stop the worker at %s, or wait until it has not used it for some minutes", url)
	}
	return coded{exitUnavailable, fmt.Errorf("the context of %s is in use: %s", e.Name, next)}
}

// writeNew makes a file that only its owner can read, whole or not at all, and
// replaces none: it may be the only copy of another context.
func writeNew(file string, write func(io.Writer) error) (err error) {
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("%s is there already: move it away, or name another file with --output", file)
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".exporting-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	defer os.Remove(f.Name())
	w := bufio.NewWriterSize(f, 1<<18)
	if err := write(w); err != nil {
		f.Close()
		return err
	}
	if err := errors.Join(w.Flush(), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	// A link, unlike a renaming, does not replace what has come meanwhile.
	err = os.Link(f.Name(), file)
	if err != nil && !errors.Is(err, iofs.ErrExist) { // a file system without links
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

func peerImport(c *cli.Context) error {
	if err := args(c, 1, 2, "FILE [NAME]"); err != nil {
		return err
	}
	var want peer.ID
	var err error
	if c.IsSet("host") {
		if want, err = peer.ParseID(c.String("host")); err != nil {
			return coded{exitUsage, err}
		}
	}
	var name peer.Name
	if c.Args().Len() == 2 {
		if name, err = peer.ParseName(c.Args().Get(1)); err != nil {
			return coded{exitUsage, err}
		}
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	file := c.Args().First()
	if info, err := os.Stat(file); err != nil {
		return fmt.Errorf("import peer: %w", err)
	} else if !info.Mode().IsRegular() {
		return fmt.Errorf("import peer: %s is not a file", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("import peer: %w", err)
	}
	defer f.Close()
	wrong := func(err error) error {
		var damage *fs.LogDamageError
		if errors.Is(err, archive.ErrInvalid) || errors.As(err, &damage) {
			return coded{exitInvalid, fmt.Errorf("%s: %w; nothing was imported", file, err)}
		}
		return err
	}
	a, err := archive.Open(f, archive.Limits{})
	if err != nil {
		return wrong(err)
	}
	m := a.Manifest()
	if name == "" {
		name = m.Name
	}
	whose, err := believe(root, a, want)
	if err != nil {
		return coded{exitInvalid, fmt.Errorf("%s: %w", file, err)}
	}
	var entries uint64
	var newest script.Digest
	backend := cmp.Or(c.String("store"), root.Config.Store.Backend, host.FS)
	to, err := usableBackend(root, backend)
	if err != nil {
		return err
	}
	var moved *peer.Entry
	e, err := root.Peers.Adopt(name, m.Peer, func(dir string) (err error) {
		if err := a.Extract(c.Context, dir); err != nil {
			return err
		}
		entries, newest, err = archive.CheckLog(fs.ReadLog(c.Context, filepath.Join(dir, "log")))
		if err != nil {
			return err
		}
		e := peer.Entry{ID: m.Peer, Name: name, Dir: dir}
		// How it is kept, and how much it may hold, is for this host to say.
		if err := peer.WriteIdentity(dir, m.Peer); err != nil || backend == host.FS {
			return err
		}
		if err := contextsOf(root).Take(c.Context, e, backend); err != nil {
			return err
		}
		moved = &e
		return nil
	})
	if err != nil && moved != nil { // nobody knows of it in the end
		err = errors.Join(err, to.Remove(c.Context, *moved))
	}
	if err != nil {
		return wrong(err)
	}
	p := printerOf(c)
	if c.Bool("json") {
		v := archiveJSON{File: file, Name: e.Name, Peer: e.ID, Signer: a.Signer(), HasKey: m.HasKey(), Log: &entries, Head: &newest, Dir: e.Dir}
		v.Files, v.Bytes = m.Files()
		return p.json(v)
	}
	files, size := m.Files()
	p.f("%s %s  %s\n", p.green("✓"), p.bold(string(e.Name)), e.ID)
	p.f("  context  %s, %s, %s\n", relative(e.Dir), count(files, "file"), bytesText(uint64(size)))
	p.f("  signed   by %s, %s\n", whose, m.Time.Local().Format("2006-01-02 15:04:05 MST"))
	about := "empty"
	if entries > 0 {
		about = count(int(entries), "receipt") + ", chained; head " + newest.String()
	}
	p.f("  log      %s\n", about)
	if m.HasKey() {
		p.f("  key      %s\n", "kept here now")
	} else {
		p.f("  key      %s\n", "not in the archive: this host cannot send as "+string(e.Name))
	}
	p.f("\nNext: %s policy check %s\n", host.Command, e.Name)
	return nil
}

// believe says whose signature an archive bears, and refuses that of a stranger:
// anybody can sign what they say is somebody's context, and their policies would
// then be in force for it.
func believe(root *host.Root, a *archive.Archive, want peer.ID) (whose string, err error) {
	signer, of := a.Signer(), a.Manifest().Peer
	key, err := root.Key()
	if err != nil {
		return "", err
	}
	known, _ := root.Peers.ByID(of)
	switch {
	case want != "" && signer != want:
		return "", fmt.Errorf("%s signed it, and not %s, as --host wants it", signer, want)
	case signer == of:
		return "the peer itself", nil
	case signer == key.ID():
		return "this host", nil
	case signer == want:
		return "the host " + string(signer) + ", as --host wants it", nil
	case signer == known.Host:
		return "the host " + string(signer) + ", which circles.toml names for it", nil
	}
	return "", fmt.Errorf("%s signed it, which is neither %s itself nor this host: if it is the host that it comes from, and you trust it, say so with --host %s", signer, of, signer)
}
