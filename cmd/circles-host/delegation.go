package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/revoked"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/units"
)

func delegationCommand() *cli.Command {
	return &cli.Command{
		Name:  "delegation",
		Usage: "let somebody else send scripts in your name, and take that back",
		Subcommands: []*cli.Command{
			{
				Name:      "create",
				Usage:     "sign a delegation",
				ArgsUsage: "WHO MODULE[:ENTRY]…",
				Description: `Lets WHO, a petname or the did:key of a peer or a host, send scripts to --to as --as,
that run MODULE: a name, sha256:DIGEST, or * for any. They may touch what is named
here, and no more than the target lets --as itself. With --pass-on it gives some of
a delegation on that --as, or without it this host, was given.

It is kept where WHO looks for it if that is in this root, and else printed: a few
lines of text, for WHO to keep with delegation add.

   circles-host delegation create carol guestbook:sign --as alice --to bob --write /guestbook`,
				Flags: append([]cli.Flag{
					rootFlag(),
					&cli.StringFlag{Name: "as", Usage: "the `PEER` in whose name, whose key is in this root"},
					&cli.StringSliceFlag{Name: "to", Usage: "the `PEER` to whom scripts may be sent"},
					&cli.StringFlag{Name: "lasts", Usage: "for how long it is good, `TIME`, as in 90m or 30d", Value: "24h"},
					&cli.IntFlag{Name: "depth", Usage: fmt.Sprintf("let it be passed on `N` times, at most %d", script.MaxChain-1)},
					&cli.StringFlag{Name: "pass-on", Usage: "give on some of the delegation in `FILE`"},
					&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write it to `FILE`"},
					jsonFlag(),
				}, touchFlags("let it")...),
				Action: delegationCreate,
			},
			{
				Name:      "add",
				Usage:     "keep a delegation that a peer of this root, or this host, was given",
				ArgsUsage: "FILE",
				Flags:     []cli.Flag{rootFlag(), jsonFlag()},
				Action:    delegationAdd,
			},
			{
				Name:      "show",
				Usage:     "check a delegation, and show what it allows, link by link",
				ArgsUsage: "FILE|ID",
				Flags:     []cli.Flag{rootFlag(), jsonFlag()},
				Action:    delegationShow,
			},
			{
				Name:      "list",
				Usage:     "list delegations that peers of this root, or this host, were given",
				ArgsUsage: "[PEER]",
				Flags: []cli.Flag{
					rootFlag(),
					&cli.BoolFlag{Name: "revoked", Usage: "instead those that were taken back here"},
					jsonFlag(),
				},
				Action: delegationList,
			},
			{
				Name:      "revoke",
				Usage:     "take a delegation back",
				ArgsUsage: "FILE|ID",
				Description: `Scripts that carry it, or one that passes it on, are refused from then on: in the
context of --to, or in all contexts of this root. A target elsewhere has to be told:
with --as, one who issued it signs that, and --send hands it over, if the target's owner
knows who signed it; or --output writes it, and there FILE is what was signed. Until
then, and where nobody tells, a delegation is good until it ends by itself.

   circles-host delegation revoke 1f2e3d --as alice --send bob
   circles-host delegation revoke 1f2e3d --as alice --output no-longer
   circles-host delegation revoke no-longer --to bob`,
				Flags: []cli.Flag{
					rootFlag(),
					&cli.StringFlag{Name: "as", Usage: "sign it as the `PEER` who issued it, or one that it passes on"},
					&cli.StringFlag{Name: "to", Usage: "only in the context of `PEER`, in this root"},
					&cli.StringSliceFlag{Name: "send", Usage: "with --as, or a FILE that is signed: hand it over for the context of `PEER`, wherever that is"},
					&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "with --as: write it to `FILE`, for other hosts, and take nothing back here"},
					jsonFlag(),
				},
				Action: delegationRevoke,
			},
		},
	}
}

// signerOf is who signs as --as, or without it this host, and where the delegations
// are that it was given.
func signerOf(c *cli.Context, root *host.Root) (key *peer.Key, dir string, err error) {
	if !c.IsSet("as") {
		key, err = root.Key()
		return key, root.DelegationsDir(), err
	}
	e, err := root.Peers.Resolve(c.String("as"))
	if err != nil {
		return nil, "", coded{exitNotFound, err}
	}
	key, err = keyOf(root, e)
	return key, host.DelegationsDir(e), err
}

// delegationsOf is where a peer of this root, or this host, looks for its
// delegations; "" if it is neither.
func delegationsOf(root *host.Root, id peer.ID) string {
	if e, ok := root.Peers.ByID(id); ok && e.Held() {
		return host.DelegationsDir(e)
	}
	if key, err := root.Key(); err == nil && key.ID() == id {
		return root.DelegationsDir()
	}
	return ""
}

func delegationCreate(c *cli.Context) error {
	const most = 1 + script.MaxEntries
	if err := first(args(c, 2, most, "WHO MODULE[:ENTRY]…"), needs(c, "lasts")); err != nil {
		return err
	}
	if !c.IsSet("as") && !c.IsSet("pass-on") {
		return usage("delegation create needs --as PEER; without it, it is this host that passes on what it was given, with --pass-on FILE")
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	key, _, err := signerOf(c, root)
	if err != nil {
		return err
	}
	to, err := root.Peers.Resolve(c.Args().First())
	if err != nil {
		return coded{exitNotFound, err}
	}
	d := script.Delegation{To: to.ID, Depth: uint32(max(c.Int("depth"), 0)), Entries: c.Args().Tail()}
	if d.Allows, err = touched(c, root); err != nil {
		return err
	}
	for _, g := range d.Allows {
		if err := script.CheckResource(g.Action, g.Path); err != nil {
			return usage("--%s: %w", g.Action, err)
		}
	}
	var lasts units.Age
	if err := lasts.UnmarshalText([]byte(c.String("lasts"))); err != nil || lasts < 0 {
		return usage("--lasts %q: want a time, as in 90m, 12h or 30d", c.String("lasts"))
	}
	if time.Duration(lasts) > script.MaxDelegated {
		return usage("--lasts %s: at most %dd", c.String("lasts"), script.MaxDelegated/(24*time.Hour))
	}
	d.NotAfter = time.Now().Add(time.Duration(lasts)).Truncate(time.Second)
	for _, name := range c.StringSlice("to") {
		e, err := root.Peers.Resolve(name)
		if err != nil {
			return coded{exitNotFound, err}
		}
		d.Targets = append(d.Targets, e.ID)
	}
	var chain [][]byte
	if file := c.String("pass-on"); file != "" {
		h, err := host.ReadDelegation(file)
		if err != nil {
			return coded{exitInvalid, err}
		}
		last := h.Links[len(h.Links)-1]
		chain, d.Parent = h.Sealed, last.ID
		if len(d.Targets) == 0 {
			d.Targets = last.Targets
		}
		if !c.IsSet("lasts") && d.NotAfter.After(last.NotAfter) {
			d.NotAfter = last.NotAfter
		}
	}
	if len(d.Targets) == 0 {
		return usage("delegation create needs --to PEER: to whom may scripts be sent?")
	}
	sealed, id, err := envelope.SealDelegation(d, key)
	if err != nil {
		return coded{exitUsage, err}
	}
	chain = append(chain, sealed)
	if _, err := envelope.OpenChain(chain); err != nil { // what widens it shows here
		return coded{exitUsage, err}
	}
	text := string(envelope.Text(envelope.DelegationText, chain...))
	file := c.String("output")
	if file != "" {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return fmt.Errorf("write delegation: %w", err)
		}
	} else if dir := delegationsOf(root, d.To); dir != "" {
		if file, err = host.KeepDelegation(dir, chain); err != nil {
			return err
		}
	}
	p, e := printerOf(c), newPrinter(c.App.ErrWriter)
	switch {
	case c.Bool("json"):
		return p.json(map[string]any{"delegation": id, "file": file, "text": text})
	case file == "":
		p.f("%s", text)
		e.f("%s\n", e.dim(fmt.Sprintf("delegation %s, good until %s; %s keeps it with: %s delegation add FILE", short(id), until(d.NotAfter), nameOf(root, d.To), host.Command)))
	default:
		p.f("%s delegation %s, good until %s\n  %s\n", p.green("✓"), short(id), until(d.NotAfter), relative(file))
	}
	return nil
}

func until(t time.Time) string { return t.Local().Format("2006-01-02 15:04 MST") }

func delegationAdd(c *cli.Context) error {
	if err := args(c, 1, 1, "FILE"); err != nil {
		return err
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	h, err := host.ReadDelegation(c.Args().First())
	if err != nil {
		return coded{exitInvalid, err}
	}
	last := h.Links[len(h.Links)-1]
	dir := delegationsOf(root, last.To)
	if dir == "" {
		return coded{exitNotFound, fmt.Errorf("%s is for %s, who is not in %s", c.Args().First(), last.To, relative(root.Dir))}
	}
	file, err := host.KeepDelegation(dir, h.Sealed)
	if err != nil {
		return err
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(map[string]any{"delegation": last.ID, "file": file})
	}
	p.f("%s delegation %s, good until %s\n  %s\n", p.green("✓"), short(last.ID), until(last.NotAfter), relative(file))
	return nil
}

// linkJSON is one delegation of a chain for programs.
type linkJSON struct {
	ID       script.Digest `json:"delegation"`
	Issuer   peer.ID       `json:"issuer"`
	To       peer.ID       `json:"to"`
	NotAfter time.Time     `json:"not_after"`
	Depth    uint32        `json:"depth"`
	Targets  []peer.ID     `json:"targets"`
	Entries  []string      `json:"entries"`
	Allows   []string      `json:"allows,omitempty"`
	Revoked  string        `json:"revoked,omitempty"` // why it is, where that is known here
}

// chainJSON is a chain for programs.
type chainJSON struct {
	ID     script.Digest `json:"delegation"` // of the last, which stands for the chain
	File   string        `json:"file"`
	Holder peer.Name     `json:"holder,omitempty"`
	Over   string        `json:"over,omitempty"`  // why it is good for nothing any more
	Wrong  string        `json:"wrong,omitempty"` // why it never was
	Chain  []linkJSON    `json:"chain,omitempty"`
}

func chainView(root *host.Root, h host.Held) chainJSON {
	v := chainJSON{File: h.File}
	if h.Err != nil {
		v.Wrong = h.Err.Error()
		return v
	}
	v.ID = h.Links[len(h.Links)-1].ID
	if err := envelope.CheckTime(h.Links, time.Now()); err != nil {
		v.Over = err.Error()
	}
	for i, l := range h.Links {
		j := linkJSON{ID: l.ID, Issuer: l.Issuer, To: l.To, NotAfter: l.NotAfter, Depth: l.Depth, Targets: l.Targets, Entries: l.Entries}
		for _, g := range l.Allows {
			j.Allows = append(j.Allows, string(g.Action)+":"+g.Path)
		}
		if err := takenBack(root, h.Links[:i+1]); err != nil {
			j.Revoked = err.Error()
		}
		v.Chain = append(v.Chain, j)
	}
	return v
}

// takenBack is why a chain is refused in all contexts of this root, or in one of
// those that it is for.
func takenBack(root *host.Root, chain []envelope.Link) error {
	if err := revoked.Open(root.RevokedDir()).Check(chain); err != nil {
		return fmt.Errorf("%w, for all contexts of this host", err)
	}
	for _, t := range chain[len(chain)-1].Targets {
		if e, ok := root.Peers.ByID(t); ok && e.Held() {
			if err := revoked.Open(host.RevokedDir(e)).Check(chain); err != nil {
				return fmt.Errorf("%w, in the context of %s", err, e.Name)
			}
		}
	}
	return nil
}

func delegationShow(c *cli.Context) error {
	if err := args(c, 1, 1, "FILE|ID"); err != nil {
		return err
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	h, err := findDelegation(root, c.Args().First())
	if err != nil {
		return err
	}
	v := chainView(root, h)
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(v)
	}
	row := func(label, value string) { p.f("  %s %s\n", p.dim(pad(label, 8)), value) }
	for _, l := range v.Chain {
		p.f("%s %s lets %s send as %s\n", p.bold(short(l.ID)), nameOf(root, l.Issuer), nameOf(root, l.To), nameOf(root, h.Links[0].Issuer))
		row("id", l.ID.String())
		row("to", namesOf(root, l.Targets))
		row("run", strings.Join(l.Entries, ", "))
		row("touch", clean(orNone(l.Allows)))
		row("until", until(l.NotAfter))
		if l.Depth > 0 {
			row("pass on", count(int(l.Depth), "time"))
		}
		if l.Revoked != "" {
			row("revoked", p.red(l.Revoked))
		}
	}
	if v.Over != "" {
		p.f("%s %s\n", p.red("✗"), v.Over)
	}
	return nil
}

func namesOf(root *host.Root, ids []peer.ID) string {
	var list []string
	for _, id := range ids {
		list = append(list, nameOf(root, id))
	}
	return strings.Join(list, ", ")
}

// holder is a peer of this root, or this host, and where its delegations are.
type holder struct {
	name peer.Name // "" for the host
	dir  string
}

func holders(root *host.Root) []holder {
	list := []holder{{"", root.DelegationsDir()}}
	for _, e := range root.Peers.All() {
		if e.Held() {
			list = append(list, holder{e.Name, host.DelegationsDir(e)})
		}
	}
	return list
}

// findDelegation reads a file, or finds the one whose id begins so among those that
// are held in the root.
func findDelegation(root *host.Root, arg string) (host.Held, error) {
	prefix := strings.TrimPrefix(strings.ToLower(arg), "sha256:")
	if _, err := os.Stat(arg); err == nil || prefix == "" || strings.Trim(prefix, "0123456789abcdef") != "" {
		h, err := host.ReadDelegation(arg)
		if err != nil {
			code := exitInvalid
			if errors.Is(err, os.ErrNotExist) {
				code = exitNotFound
			}
			err = coded{code, err}
		}
		return h, err
	}
	var found host.Held
	for _, of := range holders(root) {
		held, err := host.Delegations(of.dir)
		if err != nil {
			return found, err
		}
		for _, h := range held {
			for n, l := range h.Links {
				if !strings.HasPrefix(fmt.Sprintf("%x", l.ID[:]), prefix) {
					continue
				}
				if found.Links != nil && found.Links[len(found.Links)-1].ID != l.ID {
					return found, usage("%s is the beginning of more than one delegation: say more of it", arg)
				}
				found = host.Held{File: h.File, Sealed: h.Sealed[:n+1], Links: h.Links[:n+1]}
			}
		}
	}
	if found.Links == nil {
		return found, coded{exitNotFound, fmt.Errorf("no delegation in %s begins with %s; %s delegation list lists them", relative(root.Dir), arg, host.Command)}
	}
	return found, nil
}

func delegationList(c *cli.Context) error {
	if err := args(c, 0, 1, "[PEER]"); err != nil {
		return err
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	of := holders(root)
	if name := c.Args().First(); name != "" {
		e, err := held(root, name)
		if err != nil {
			return err
		}
		of = []holder{{e.Name, host.DelegationsDir(e)}}
	}
	if c.Bool("revoked") {
		return listRevoked(c, root, of)
	}
	p := printerOf(c)
	views := []chainJSON{}
	for _, at := range of {
		held, err := host.Delegations(at.dir)
		if err != nil {
			return err
		}
		for _, h := range held {
			v := chainView(root, h)
			v.Holder = at.name
			views = append(views, v)
			if !c.Bool("json") {
				p.chain(root, v)
			}
		}
	}
	if c.Bool("json") {
		return p.json(views)
	}
	if len(views) == 0 {
		newPrinter(c.App.ErrWriter).f("no delegations; %s delegation create --help\n", host.Command)
	}
	return nil
}

// chain prints a chain in a line.
func (p *printer) chain(root *host.Root, v chainJSON) {
	holder := cmp.Or(string(v.Holder), "(host)")
	if v.Wrong != "" {
		p.f("%s  %s\n", pad(holder, 12), p.red(line(v.Wrong)))
		return
	}
	last := v.Chain[len(v.Chain)-1]
	state := p.dim("until " + until(last.NotAfter))
	for _, l := range v.Chain {
		if l.Revoked != "" {
			state = p.red("revoked")
		}
	}
	if v.Over != "" {
		state = p.red("over since " + until(last.NotAfter))
	}
	p.f("%s  %s  as %s to %s  %s  %s\n", pad(holder, 12), short(v.ID), nameOf(root, v.Chain[0].Issuer), namesOf(root, last.Targets), strings.Join(last.Entries, ", "), state)
}

func listRevoked(c *cli.Context, root *host.Root, of []holder) error {
	type revokedJSON struct {
		Delegation script.Digest `json:"delegation"`
		Context    peer.Name     `json:"context,omitempty"` // "": all
		By         peer.ID       `json:"by,omitempty"`      // "": the owner, or the operator
		File       string        `json:"file"`
	}
	p := printerOf(c)
	views := []revokedJSON{}
	for _, at := range of {
		dir := root.RevokedDir()
		if at.name != "" {
			e, _ := root.Peers.ByName(at.name)
			dir = host.RevokedDir(e)
		}
		all, err := revoked.All(dir)
		if err != nil {
			return coded{exitInvalid, err}
		}
		for _, r := range all {
			views = append(views, revokedJSON{r.Delegation, at.name, r.By, r.File})
			by := "here"
			if r.By != "" {
				by = "by " + nameOf(root, r.By)
			}
			if !c.Bool("json") {
				p.f("%s  %s  %s\n", pad(cmp.Or(string(at.name), "(all)"), 12), short(r.Delegation), by)
			}
		}
	}
	if c.Bool("json") {
		return p.json(views)
	}
	if len(views) == 0 {
		newPrinter(c.App.ErrWriter).f("no delegation was taken back here\n")
	}
	return nil
}

func delegationRevoke(c *cli.Context) error {
	if err := args(c, 1, 1, "FILE|ID"); err != nil {
		return err
	}
	if c.IsSet("output") && !c.IsSet("as") {
		return usage("--output writes what an issuer signs: say who that is with --as PEER")
	}
	if c.IsSet("output") && c.IsSet("to") {
		return usage("--output writes it for another host, --to takes it back here: choose")
	}
	if c.IsSet("send") && (c.IsSet("output") || c.IsSet("to")) {
		return usage("--send hands it over, --to takes it back here, --output writes it: choose")
	}
	root, err := openRoot(c)
	if err != nil {
		return err
	}
	id, sealed, err := toRevoke(c, root)
	if err != nil {
		return err
	}
	if to := c.StringSlice("send"); len(to) > 0 {
		return sendRevocation(c, root, id, sealed, to)
	}
	p := printerOf(c)
	if file := c.String("output"); file != "" {
		if err := os.WriteFile(file, envelope.Text(envelope.RevocationText, sealed), 0o600); err != nil {
			return fmt.Errorf("write revocation: %w", err)
		}
		if c.Bool("json") {
			return p.json(map[string]any{"delegation": id, "file": file})
		}
		p.f("%s %s\n  where it is used: %s delegation revoke %s\n", p.green("✓"), relative(file), host.Command, quote(file))
		return nil
	}
	dir, where := root.RevokedDir(), "in all contexts of this host"
	if name := c.String("to"); name != "" {
		e, err := held(root, name)
		if err != nil {
			return err
		}
		dir, where = host.RevokedDir(e), "in the context of "+string(e.Name)
	}
	file, err := revoked.Add(dir, id, sealed)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return p.json(map[string]any{"delegation": id, "file": file})
	}
	p.f("%s delegation %s is taken back %s\n", p.green("✓"), short(id), where)
	return nil
}

// sendRevocation hands a signed revocation over for the contexts of others. Those that
// can be told are, also if one cannot.
func sendRevocation(c *cli.Context, root *host.Root, id script.Digest, sealed []byte, to []string) error {
	if sealed == nil {
		return usage("--send hands over what an issuer signs: say who that is with --as PEER")
	}
	key, _, err := signerOf(c, root) // whoever it is: it counts by what is in it
	if err != nil {
		return err
	}
	p := printerOf(c)
	var views []map[string]any
	var failed error
	for _, name := range to {
		e, err := root.Peers.Resolve(name)
		if err != nil {
			return coded{exitNotFound, err}
		}
		now := time.Now()
		s := script.Script{Logic: script.Logic{Revoke: sealed}, NotBefore: now, Deadline: now.Add(time.Minute)}
		sent, err := deliverTo(c.Context, c, root, s, peer.Entry{ID: key.ID()}, e, key)
		if err == nil && sent.Receipt.Code != script.Done {
			err = coded{receiptExit(sent.Receipt.Code), errors.New(sent.Receipt.Message)}
		}
		if err != nil {
			failed = err
			if len(to) > 1 {
				newPrinter(c.App.ErrWriter).f("✗ %s: %s\n", who(e), clean(err.Error()))
			}
			continue
		}
		views = append(views, map[string]any{"delegation": id, "to": e.ID, "receipt": sent.ID})
		if !c.Bool("json") {
			p.f("%s delegation %s is taken back in the context of %s\n", p.green("✓"), short(id), who(e))
		}
	}
	if c.Bool("json") {
		return cmp.Or(p.json(views), failed)
	}
	return failed
}

// toRevoke is the delegation to take back, and what its issuer signed, if anybody.
func toRevoke(c *cli.Context, root *host.Root) (id script.Digest, sealed []byte, err error) {
	arg := c.Args().First()
	if sealed, err = readRevocation(arg); sealed != nil || err != nil {
		if err == nil && c.IsSet("as") {
			err = usage("%s is signed already: leave out --as", arg)
		}
		if err != nil {
			return id, nil, err
		}
		r, err := envelope.OpenRevocation(sealed)
		if err != nil {
			return id, nil, coded{exitInvalid, fmt.Errorf("%s: %w", arg, err)}
		}
		return r.Delegation, sealed, nil
	}
	if id, err = script.ParseDigest(strings.ToLower(arg)); err != nil {
		h, err := findDelegation(root, arg)
		if err != nil {
			return id, nil, err
		}
		id = h.Links[len(h.Links)-1].ID
	}
	if c.IsSet("as") {
		key, _, err := signerOf(c, root)
		if err != nil {
			return id, nil, err
		}
		if sealed, err = envelope.SealRevocation(id, key); err != nil {
			return id, nil, err
		}
	}
	return id, sealed, nil
}

// readRevocation reads a sealed revocation; nil if the file is none, or is not there.
func readRevocation(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil //nolint:nilerr // it may be an id
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, envelope.MaxText+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if !strings.HasPrefix(string(text), string(envelope.RevocationText)) {
		return nil, nil
	}
	sealed, err := envelope.ParseText(envelope.RevocationText, text)
	if err != nil {
		return nil, coded{exitInvalid, fmt.Errorf("%s: %w", file, err)}
	}
	return sealed[0], nil
}

// chainFor is by which delegations a script is sent on behalf of --on-behalf-of: those
// of --delegation, or of those that the sender was given the one that is good longest.
func chainFor(c *cli.Context, root *host.Root, s *script.Script, signer peer.ID, dir string) ([][]byte, error) {
	caller, err := root.Peers.Resolve(c.String("on-behalf-of"))
	if err != nil {
		return nil, coded{exitNotFound, err}
	}
	if file := c.String("delegation"); file != "" {
		h, err := host.ReadDelegation(file)
		if err != nil {
			return nil, coded{exitInvalid, err}
		}
		if h.Links[0].Issuer != caller.ID {
			return nil, usage("--delegation %s: it is by %s, and not by %s", file, nameOf(root, h.Links[0].Issuer), who(caller))
		}
		return h.Sealed, nil
	}
	all, err := host.Delegations(dir)
	if err != nil {
		return nil, err
	}
	var best host.Held
	now := time.Now()
	for _, h := range all {
		if h.Lets(s, caller.ID, signer, now) && (best.Links == nil || h.Links[len(h.Links)-1].NotAfter.After(best.Links[len(best.Links)-1].NotAfter)) {
			best = h
		}
	}
	if best.Links == nil {
		return nil, coded{exitNotFound, fmt.Errorf("no delegation in %s lets this be sent on behalf of %s; %s delegation list shows what they let, and --delegation FILE takes one that is elsewhere", relative(dir), who(caller), host.Command)}
	}
	return best.Sealed, nil
}
