package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/storage"
)

func peerCommand() *cli.Command {
	return &cli.Command{
		Name:  "peer",
		Usage: "add, list, show, export and import peers",
		Subcommands: []*cli.Command{
			{
				Name:      "add",
				Usage:     "hold a new peer's context here, or name a peer that is elsewhere",
				ArgsUsage: "NAME",
				Description: `Without --id the peer is new: it gets a key and a context here. With --id NAME
becomes the petname of a peer that is elsewhere; with --url scripts for it go to
the worker there, and with --host only that worker's receipts are taken for good.
With --id and --hold its context is here, and its key is not.`,
				Flags: []cli.Flag{
					rootFlag(),
					&cli.StringFlag{Name: "id", Usage: "the peer's `DID`, did:key:z6Mk…"},
					&cli.StringFlag{Name: "url", Usage: "`URL` of the worker that holds its context"},
					&cli.StringFlag{Name: "host", Usage: "`DID` of that worker, which signs its receipts"},
					&cli.BoolFlag{Name: "hold", Usage: "with --id: hold the context here"},
					&cli.StringFlag{Name: "store", Usage: "keep the context in the `BACKEND` fs, sqlite or another; see docs/storage.md"},
					jsonFlag(),
				},
				Action: peerAdd,
			},
			{
				Name:      "list",
				Usage:     "list the peers that this root knows",
				ArgsUsage: " ",
				Flags:     []cli.Flag{rootFlag(), jsonFlag()},
				Action:    peerList,
			},
			{
				Name:      "show",
				Usage:     "show one peer",
				ArgsUsage: "PEER",
				Flags:     []cli.Flag{rootFlag(), jsonFlag()},
				Action:    peerShow,
			},
			peerExportCommand(),
			peerImportCommand(),
		},
	}
}

func peerAdd(c *cli.Context) error {
	if err := args(c, 1, 1, "NAME"); err != nil {
		return err
	}
	name, err := peer.ParseName(c.Args().First())
	if err != nil {
		return coded{exitUsage, err}
	}
	var id, at peer.ID
	if c.IsSet("id") {
		if id, err = peer.ParseID(c.String("id")); err != nil {
			return coded{exitUsage, err}
		}
	}
	if c.IsSet("host") {
		if at, err = peer.ParseID(c.String("host")); err != nil {
			return coded{exitUsage, err}
		}
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	url, hold := c.String("url"), c.Bool("hold")
	switch {
	case id == "" && (url != "" || at != "" || hold):
		return usage("--url, --host and --hold go with --id: whose context is it?")
	case c.IsSet("store") && id != "" && !hold:
		return usage("--store says how a context is kept here, and that of %s is elsewhere: hold it here with --hold", name)
	case hold && (url != "" || at != ""):
		return usage("--hold keeps the context here, --url and --host say that it is elsewhere: choose")
	}
	var e peer.Entry
	if id == "" || hold {
		if c.IsSet("store") {
			root.Config.Store.Backend = c.String("store")
		}
		if _, err := usableBackend(root, cmp.Or(root.Config.Store.Backend, host.FS)); err != nil {
			return err
		}
		e, err = root.AddPeer(name, id)
	} else {
		err = root.Peers.SetRoute(name, peer.Route{ID: id, URL: url, Host: at})
		e, _ = root.Peers.ByName(name)
	}
	if err != nil {
		return err
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(peerView(e))
	}
	p.f("%s %s  %s\n", p.green("✓"), p.bold(string(e.Name)), e.ID)
	switch {
	case !e.Held() && e.URL == "":
		p.f("  %s\n", p.dim("is elsewhere; to send it scripts too, say where with --url URL"))
	case !e.Held():
		p.f("  scripts for %s go to %s\n", e.Name, e.URL)
		if e.Host == "" {
			p.f("  %s\n", p.dim("without --host DID a receipt of any host is taken for good"))
		}
	default:
		p.f("  context  %s\n", relative(e.Dir))
		if c.IsSet("id") {
			p.f("  key      %s\n", "kept elsewhere: this host cannot send as "+string(e.Name))
		}
		p.f("  %s\n", p.dim("nobody may run anything there yet; see "+host.Command+" policy allow --help"))
	}
	return nil
}

type peerJSON struct {
	Name    peer.Name `json:"name,omitempty"`
	ID      peer.ID   `json:"id"`
	Held    bool      `json:"held"`
	Dir     string    `json:"dir,omitempty"`
	URL     string    `json:"url,omitempty"`
	Host    peer.ID   `json:"host,omitempty"`
	HasKey  bool      `json:"has_key"`
	Circles []string  `json:"circles,omitempty"`
	Modules []string  `json:"modules,omitempty"`
	Policy  []string  `json:"policy_files,omitempty"`
	// Problems are why what is in the policy folder is not in force as it is.
	Problems []string    `json:"policy_problems,omitempty"`
	Given    []givenJSON `json:"delegations,omitempty"` // that it was given
	Store    string      `json:"store,omitempty"`
	Holds    *heldJSON   `json:"holds,omitempty"` // absent if that cannot be told now
	Quota    *heldJSON   `json:"quota,omitempty"` // the most that it may
}

// givenJSON is a delegation that a peer was given.
type givenJSON struct {
	Delegation script.Digest `json:"delegation"`
	As         peer.ID       `json:"as"`
	NotAfter   time.Time     `json:"not_after"`
}

// heldJSON is what a context holds.
type heldJSON struct {
	Entries uint64 `json:"entries"` // files, directories and links
	Bytes   uint64 `json:"bytes"`
	Log     uint64 `json:"log_bytes"`
}

func peerView(e peer.Entry) peerJSON {
	v := peerJSON{Name: e.Name, ID: e.ID, Held: e.Held(), Dir: e.Dir, URL: e.URL, Host: e.Host}
	if e.Held() {
		_, err := os.Lstat(filepath.Join(e.Dir, "peer.key"))
		v.HasKey = err == nil
	}
	return v
}

func peerList(c *cli.Context) error {
	if err := args(c, 0, 0, "without arguments"); err != nil {
		return err
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	// A list is read for what is wrong with a peer too, which a lookup of others does
	// not look for.
	if err := root.Peers.Refresh(); err != nil {
		return err
	}
	p := printerOf(c)
	all := root.Peers.All()
	if c.Bool("json") {
		views := make([]peerJSON, 0, len(all))
		for _, e := range all {
			views = append(views, peerView(e))
		}
		return p.json(views)
	}
	for _, e := range all {
		where := "here"
		switch {
		case !e.Held() && e.URL != "":
			where = e.URL
		case !e.Held():
			where = "elsewhere"
		case !peerView(e).HasKey:
			where = "here, key elsewhere"
		}
		p.f("%-12s  %s  %s\n", e.Name, e.ID, p.dim(where))
	}
	if len(all) == 0 {
		newPrinter(c.App.ErrWriter).f("no peers yet; %s peer add NAME\n", host.Command)
	}
	warn(c, root)
	return nil
}

// warn tells of peers that are not served.
func warn(c *cli.Context, root *host.Root) {
	e := newPrinter(c.App.ErrWriter)
	for _, err := range root.Peers.Problems() {
		e.f("%s %s\n", e.yellow("!"), line(err.Error()))
	}
}

func peerShow(c *cli.Context) error {
	if err := args(c, 1, 1, "PEER"); err != nil {
		return err
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	e, err := root.Peers.Resolve(c.Args().First())
	if err != nil {
		return coded{exitNotFound, err}
	}
	v := peerView(e)
	var circlesErr error
	if e.Held() {
		var circles *peer.Circles
		if circles, circlesErr = peer.ReadCircles(e.CirclesFile(), root.Peers.Knows); circlesErr == nil {
			v.Circles = circles.Names()
		} else if errors.Is(circlesErr, fs.ErrNotExist) {
			circlesErr = nil
		}
		v.Modules = moduleNames(filepath.Join(e.Dir, "modules"))
		v.Policy = names(filepath.Join(e.Dir, "policy"), ".cedar")
		v.Problems = checkPeer(root, e).Problems
	}
	var given []string
	if e.Held() {
		held, err := host.Delegations(host.DelegationsDir(e))
		if err != nil {
			return err
		}
		for _, h := range held {
			if h.Err != nil {
				given = append(given, line(h.Err.Error()))
				continue
			}
			first, last := h.Links[0], h.Links[len(h.Links)-1]
			v.Given = append(v.Given, givenJSON{last.ID, first.Issuer, last.NotAfter})
			given = append(given, fmt.Sprintf("%s as %s until %s", short(last.ID), nameOf(root, first.Issuer), until(last.NotAfter)))
		}
	}
	var kept storage.Kept
	var problem error
	if e.Held() {
		contexts := contextsOf(root)
		if kept, err = contexts.Of(e); err != nil {
			return err
		}
		q := kept.Quota
		v.Store, v.Quota = kept.Name, &heldJSON{q.Entries, uint64(q.Bytes), uint64(q.Log)}
		u, err := contexts.Volume(c.Context, e)
		if problem = err; err == nil {
			v.Holds = &heldJSON{uint64(u.Entries), uint64(u.Bytes), uint64(u.Log)}
		}
	}
	p := printerOf(c)
	if c.Bool("json") {
		return errors.Join(p.json(v), circlesErr, problem)
	}
	row := func(label, value string) {
		if value != "" {
			p.f("%s %s\n", p.dim(pad(label, 9)), value)
		}
	}
	row("peer", p.bold(string(v.Name)))
	row("id", string(v.ID))
	row("url", v.URL)
	row("host", string(v.Host))
	if e.Held() {
		row("context", relative(v.Dir))
		row("stored", kept.Name+", "+kept.Backend.Where(e))
		if v.HasKey {
			row("key", "kept here")
		} else {
			row("key", "kept elsewhere: this host cannot send as "+string(v.Name))
		}
		row("circles", orNone(v.Circles))
		row("modules", orNone(v.Modules))
		row("policies", orNone(v.Policy))
		row("may send", strings.Join(given, ", "))
		if n := len(v.Problems); n > 0 {
			row(" ", p.red("not in force as written: ")+line(v.Problems[0]))
			if n > 1 {
				row(" ", p.dim(fmt.Sprintf("and %d more; see %s policy check %s", n-1, host.Command, v.Name)))
			}
		}
		if v.Holds != nil {
			row("data", fmt.Sprintf("%s of %s, %s of %s", bytesText(v.Holds.Bytes), bytesText(v.Quota.Bytes),
				count(int(v.Holds.Entries), "entry"), number(v.Quota.Entries)))
			row("log", fmt.Sprintf("%s of %s", bytesText(v.Holds.Log), bytesText(v.Quota.Log)))
		}
	}
	return errors.Join(circlesErr, problem)
}

// names lists the files of dir with a suffix, without it.
func names(dir, suffix string) (list []string) {
	entries, _ := os.ReadDir(dir) // a directory that is not there has none
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && !strings.HasPrefix(name, ".") {
			list = append(list, name)
		}
	}
	return list
}
