package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/transport"
	"github.com/circles-host/circles/host/transport/http2"
)

func sendCommand() *cli.Command {
	return &cli.Command{
		Name:      "send",
		Usage:     "send a script to a peer and print its result",
		ArgsUsage: "MODULE[:ENTRY]|-e TEXT [PARAMS|@FILE|-]",
		Description: `MODULE is a name that the target knows, sha256:DIGEST, or a file that is carried
along: FILE.wasm, or a text. PARAMS are passed as they are; @FILE reads them from
a file, "-" from standard input.

The result goes to standard output, what became of the script to standard error.
When the target's context is in this root and no worker serves it, the script
runs right here. Exit codes: 0 done, 3 refused, 4 failed, 5 not found, 6 try
again, 8 pending: the target's owner looks first at what it would do.

   circles-host send --as alice --to bob guestbook:sign '{"message":"hello"}'
   circles-host send --as alice --to bob -e 'target.write("hi.txt", "hello " + caller.name)'

A text is JavaScript unless --lang, or its file's suffix, says otherwise.`,
		Flags: []cli.Flag{
			rootFlag(),
			&cli.StringFlag{Name: "text", Aliases: []string{"e"}, Usage: "carry this `TEXT` as the script, instead of MODULE"},
			langFlag(),
			&cli.StringFlag{Name: "as", Usage: "send as `PEER`, whose key is in this root"},
			&cli.StringFlag{Name: "on-behalf-of", Usage: "send in the name of `PEER`, by a delegation to --as, or without it to this host"},
			&cli.StringFlag{Name: "delegation", Usage: "by that in `FILE`, instead of one that was kept"},
			&cli.StringFlag{Name: "to", Usage: "send to `PEER`, a petname or did:key"},
			&cli.StringFlag{Name: "host", Usage: "the worker's `URL`, instead of the one that the target's route names"},
			&cli.StringSliceFlag{Name: "lend", Usage: "let the script do `ACTION:PATH` in the sender's context; read:/card.txt, list:/photos, get:cards/home, query:cards"},
			&cli.DurationFlag{Name: "deadline", Usage: "give up after `TIME`", Value: time.Minute},
			&cli.BoolFlag{Name: "dry-run", Usage: "run it on a transaction that is dropped, and show what it would change"},
			waitFlag(),
			&cli.StringFlag{Name: "receipt", Usage: "keep the signed receipt in `FILE`; log --receipt FILE reads it"},
			&cli.StringFlag{Name: "seal", Usage: "sign the script into `FILE`, - for standard output, and do not send it; with --json as the body of an HTTP request"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := first(sendArgs(c), sender(c)); err != nil {
				return err
			}
			root, err := openRoot(c)
			if err != nil {
				return err
			}
			s, err := scriptFrom(c)
			if err != nil {
				return err
			}
			if c.String("seal") != "" {
				return seal(c, root, s)
			}
			sent, err := deliver(c.Context, c, root, s)
			if err != nil {
				return err
			}
			if sent.Receipt.Code == script.Pending {
				from, err := root.Peers.Resolve(c.String("as"))
				if err != nil {
					return err
				}
				pending := &sentScript{Sent: sent, from: from}
				if err := pending.keep(); err != nil {
					return err
				}
				if err := pending.await(c, root); err != nil {
					return err
				}
				sent = pending.Sent
			}
			if err := keepReceipt(c, sent); err != nil {
				return err
			}
			return report(c, sent)
		},
	}
}

// sendArgs checks what stands before and after the code that is sent.
func sendArgs(c *cli.Context) error {
	if c.IsSet("text") {
		return args(c, 0, 1, "-e TEXT [PARAMS]")
	}
	return args(c, 1, 2, "MODULE[:ENTRY]|-e TEXT [PARAMS]")
}

// sender checks that it is said who sends, and to whom.
func sender(c *cli.Context) error {
	switch {
	case c.IsSet("on-behalf-of") && len(c.StringSlice("lend")) > 0:
		return usage("--lend: what is %s's is not the sender's to lend", c.String("on-behalf-of"))
	case c.IsSet("on-behalf-of"):
		return needs(c, "to") // it is this host, unless --as says otherwise
	case c.IsSet("delegation"):
		return usage("--delegation goes with --on-behalf-of PEER")
	}
	return needs(c, "as", "to")
}

// keepReceipt writes the receipt to the file of --receipt, if there is one.
func keepReceipt(c *cli.Context, sent host.Sent) error {
	if file := c.String("receipt"); file != "" {
		if err := os.WriteFile(file, sent.Bytes, 0o600); err != nil {
			return fmt.Errorf("keep the receipt: %w", err)
		}
	}
	return nil
}

// times are from when, and until when, a script may run.
func times(c *cli.Context) (notBefore, deadline time.Time, err error) {
	d := c.Duration("deadline")
	if d <= 0 {
		return notBefore, deadline, usage("--deadline %v: want a time above 0, as in 30s", d)
	}
	notBefore = time.Now()
	return notBefore, notBefore.Add(d), nil
}

// scriptFrom makes the script that the command line asks for, but for its
// target and caller.
func scriptFrom(c *cli.Context) (s script.Script, err error) {
	used := 0
	if s.Logic, s.Entry, used, err = logicOf(c); err != nil {
		return s, err
	}
	if s.Params, err = params(c.Args().Get(used), c.App.Reader); err != nil {
		return s, err
	}
	if s.Lent, err = lent(c); err != nil {
		return s, err
	}
	s.DryRun = c.Bool("dry-run")
	s.NotBefore, s.Deadline, err = times(c)
	return s, err
}

// lent is what --lend names.
func lent(c *cli.Context) (grants []script.Grant, err error) {
	for _, text := range c.StringSlice("lend") {
		action, path, ok := strings.Cut(text, ":")
		if !ok || action == "" || path == "" {
			return nil, usage("--lend %q: want ACTION:PATH, as in read:/card.txt or get:cards/home", text)
		}
		if a := script.Action(action); !a.Reads() {
			if strings.HasPrefix(path, "/") {
				return nil, usage("--lend %q: what is lent can be read or listed: want read:%s or list:%s", text, path, path)
			}
			return nil, usage("--lend %q: what is lent can be got or queried: want get:%s or query:%s", text, path, path)
		} else if err := script.CheckResource(a, path); err != nil {
			return nil, usage("--lend %q: %w", text, err)
		}
		grants = append(grants, script.Grant{Action: script.Action(action), Path: path})
	}
	return grants, nil
}

// params reads PARAMS, @FILE or "-".
func params(arg string, stdin io.Reader) (b []byte, err error) {
	switch {
	case arg == "-":
		b, err = io.ReadAll(io.LimitReader(stdin, script.MaxParams+1))
	case strings.HasPrefix(arg, "@"):
		b, err = os.ReadFile(arg[1:])
	default:
		b = []byte(arg)
	}
	if err != nil {
		return nil, fmt.Errorf("read params: %w", err)
	}
	if len(b) > script.MaxParams {
		return nil, usage("params have more than %d bytes", script.MaxParams)
	}
	return b, nil
}

// ends are who sends a script, with the key to do so, and to whom.
func ends(c *cli.Context, root *host.Root) (from, to peer.Entry, key *peer.Key, err error) {
	if c.IsSet("on-behalf-of") && !c.IsSet("as") {
		if key, err = root.Key(); err != nil {
			return from, to, nil, err
		}
		from.ID = key.ID()
	} else if from, err = root.Peers.Resolve(c.String("as")); err != nil {
		return from, to, nil, coded{exitNotFound, err}
	}
	if to, err = root.Peers.Resolve(c.String("to")); err != nil {
		return from, to, nil, coded{exitNotFound, err}
	}
	if key == nil {
		key, err = keyOf(root, from)
	}
	return from, to, key, err
}

// chained gives s its target, and the chain by which it is sent, if it is on
// another's behalf.
func chained(c *cli.Context, root *host.Root, s *script.Script, from, to peer.Entry) (err error) {
	s.Target = to.ID
	if !c.IsSet("on-behalf-of") {
		return nil
	}
	dir := root.DelegationsDir()
	if c.IsSet("as") {
		dir = host.DelegationsDir(from)
	}
	s.Chain, err = chainFor(c, root, s, from.ID, dir)
	return err
}

// keyOf is the key by which a peer sends.
func keyOf(root *host.Root, from peer.Entry) (*peer.Key, error) {
	key, err := from.Key()
	if errors.Is(err, os.ErrNotExist) {
		err = coded{exitNotFound, fmt.Errorf("cannot sign as %s: its key is not in %s; send from where it is", who(from), relative(root.Dir))}
	}
	return key, err
}

// seal signs a script and leaves it to others to carry.
func seal(c *cli.Context, root *host.Root, s script.Script) error {
	from, to, key, err := ends(c, root)
	if err == nil {
		err = chained(c, root, &s, from, to)
	}
	if err != nil {
		return err
	}
	sealed, id, err := envelope.SealScript(s, key)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if sealed, err = json.Marshal(map[string][]byte{"script": sealed}); err != nil {
			return err
		}
	}
	if file := c.String("seal"); file != "-" {
		if err := os.WriteFile(file, sealed, 0o600); err != nil {
			return fmt.Errorf("keep the sealed script: %w", err)
		}
		e := newPrinter(c.App.ErrWriter)
		e.f("%s\n", e.dim(fmt.Sprintf("script %s for %s, to be delivered before %s", short(id), who(to), s.Deadline.Local().Format(time.TimeOnly))))
		return nil
	}
	_, err = c.App.Writer.Write(sealed)
	return err
}

// deliver sends s as --as to --to.
func deliver(ctx context.Context, c *cli.Context, root *host.Root, s script.Script) (host.Sent, error) {
	from, to, key, err := ends(c, root)
	if err == nil {
		err = chained(c, root, &s, from, to)
	}
	if err != nil {
		return host.Sent{}, err
	}
	return deliverTo(ctx, c, root, s, from, to, key)
}

// deliverTo sends s from a peer, by its key, to another or itself.
func deliverTo(ctx context.Context, c *cli.Context, root *host.Root, s script.Script, from, to peer.Entry, key *peer.Key) (host.Sent, error) {
	s.Target = to.ID
	via, err := route(ctx, root, to, c.String("host"))
	if err != nil {
		return host.Sent{}, err
	}
	defer via.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Until(s.Deadline)+10*time.Second)
	defer cancel()
	lend := func(l *host.Lender) {
		l.Parties = root.Peers.Meet(from.ID, to.ID, nil)
		if circles, err := peer.ReadCircles(from.CirclesFile(), root.Peers.Knows); err == nil {
			l.Parties = root.Peers.Meet(from.ID, to.ID, circles)
		}
		set, err := policy.Load(filepath.Join(from.Dir, "policy"))
		if err != nil {
			set = policy.Broken(err)
		}
		l.Policies = set
		l.OpenStore = func(ctx context.Context) (store.Store, error) { return contextsOf(root).OpenOrRead(ctx, from) }
	}
	done := func() {}
	if (s.Logic.Text != script.Text{}) { // the first one of its language on this machine waits for the interpreter
		done = progress(ctx, c.App.ErrWriter, "running the text")
	}
	sent, err := host.Send(ctx, via, s, key, via.host, lend)
	done()
	if err != nil && c.Context.Err() != nil {
		return sent, coded{exitInterrupted, fmt.Errorf("interrupted; the log of %s has what became of script %s", who(to), short(sent.ID))}
	}
	return sent, err
}

// way is how a script gets to its target's host.
type way struct {
	transport.Sender
	host peer.ID // who signs the receipt; "" when that is not known
}

func route(ctx context.Context, root *host.Root, to peer.Entry, url string) (*way, error) {
	w := &way{host: to.Host}
	if to.Held() {
		key, err := root.Key()
		if err != nil {
			return nil, err
		}
		w.host = key.ID()
	}
	switch {
	case url != "":
	case to.URL != "":
		url = to.URL
	case to.Held():
		// A worker that does not answer may have run the script all the same, so it
		// is not run here in that case: it would be another script, with its own
		// nonce, and be done twice.
		if url = root.Worker(ctx, to); url == "" {
			here, err := openHere(ctx, root)
			return &way{Sender: here, host: w.host}, err
		}
	default:
		name := "NAME"
		if to.Name != "" {
			name = string(to.Name)
		}
		return nil, coded{exitNotFound, fmt.Errorf("where is the context of %s? Say --host URL, or once and for all: %s peer add %s --id %s --url URL", who(to), host.Command, name, to.ID)}
	}
	client, err := http2.Dial(url, nil)
	if err != nil {
		return nil, coded{exitUsage, err}
	}
	w.Sender = client
	return w, nil
}

// here is a worker in this process, for a root that no other serves.
type here struct{ *host.Host }

func openHere(ctx context.Context, root *host.Root) (transport.Sender, error) {
	config := configOf(root)
	config.OpenStore = contextsOf(root).Open
	h, err := host.Open(ctx, root, config)
	if err != nil {
		return nil, err
	}
	return here{h}, nil
}

// configOf is how every worker of a root is configured; how it stores contexts is not in
// it.
func configOf(root *host.Root) host.Config {
	return host.Config{
		Languages: hostLanguages(), CacheDir: os.Getenv(cacheVariable), Limits: root.Config.Engine(), Files: root.Config.Files(), Undo: root.Config.Undo.History(),
		Versions: root.Config.Modules.Keep(), MaxSends: root.Config.Sends(), Dial: dialHost,
	}
}

// dialHost is how scripts that others send get to another host.
func dialHost(url string) (transport.Sender, error) { return http2.Dial(url, nil) }

func (h here) Send(ctx context.Context, sealed []byte, answer transport.Back) ([]byte, error) {
	return h.Deliver(ctx, sealed, answer)
}

// report prints what became of a script.
func report(c *cli.Context, sent host.Sent) error {
	r := sent.Receipt
	p, e := printerOf(c), newPrinter(c.App.ErrWriter)
	code := receiptExit(r.Code)
	if c.Bool("json") {
		if err := p.json(&r); err != nil {
			return err
		}
		return silently(code)
	}
	if len(r.Log) > 0 {
		e.f("%s\n", indent(e.dim("log │ "), clean(string(r.Log))))
	}
	parts := partsText(r.Parts)
	if parts != "" {
		parts = e.dim("what ran: "+parts) + "\n"
	}
	if code == exitOK {
		if err := p.result(r.Result, e); err != nil {
			return err
		}
		e.f("%s", parts)
		if r.DryRun {
			wouldChange(e, r.Effects)
			e.f("%s\n", e.dim(fmt.Sprintf("dry run, nothing was changed: took %s, would be permitted by %s, receipt %s", took(r.Usage.Wall), strings.Join(r.Policies, ", "), short(r.Script))))
			return nil
		}
		e.f("%s\n", e.dim(fmt.Sprintf("done in %s, permitted by %s, receipt %s", took(r.Usage.Wall), strings.Join(r.Policies, ", "), short(r.Script))))
		return nil
	}
	reason, hint := splitHint(r.Message)
	if r.Code == script.Pending {
		e.f("%s %s\n", e.yellow(r.Code.String()+":"), clean(reason))
		e.f("%s %s receipt --as %s %s\n", e.dim("to ask what became of it:"), host.Command, quote(c.String("as")), short(r.Script))
		return silently(code)
	}
	e.f("%s %s\n", e.red(r.Code.String()+":"), clean(reason))
	if hint != "" {
		e.f("%s %s\n", e.dim("to allow it:"), clean(hint))
	}
	e.f("%s%s\n", parts, e.dim("receipt "+short(r.Script)))
	return silently(code)
}

// wouldChange prints the effects of a dry run.
func wouldChange(e *printer, effects []script.Effect) {
	for _, x := range effects {
		e.f("would: %s\n", effectText(x))
		if x.Diff != "" {
			printDiff(e, "  ", x.Diff)
		}
	}
}

// printDiff prints a unified diff.
func printDiff(p *printer, prefix, diff string) {
	for _, l := range strings.Split(strings.TrimRight(diff, "\n"), "\n") {
		paint := p.dim
		switch {
		case strings.HasPrefix(l, "+++ "), strings.HasPrefix(l, "--- "):
			paint = p.bold
		case strings.HasPrefix(l, "+"):
			paint = p.green
		case strings.HasPrefix(l, "-"):
			paint = p.red
		}
		p.f("%s%s\n", prefix, paint(clean(l)))
	}
}

// silently ends with an exit code when everything has been said.
func silently(code int) error {
	if code == exitOK {
		return nil
	}
	return coded{code: code}
}

func short(id script.Digest) string { return fmt.Sprintf("%x", id[:6]) }

// took shows a duration as people say it.
func took(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
