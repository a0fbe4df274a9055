package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/review"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

func reviewCommand() *cli.Command {
	deciding := func(flags ...cli.Flag) []cli.Flag {
		return append(append([]cli.Flag{
			rootFlag(), signerFlag(),
			&cli.StringFlag{Name: "host", Usage: "the worker's `URL`, instead of the one that the peer's route names"},
			&cli.DurationFlag{Name: "deadline", Usage: "give up after `TIME`", Value: time.Minute},
			&cli.BoolFlag{Name: "dry-run", Usage: "decide nothing, and show what would become of it now"},
		}, flags...), jsonFlag())
	}
	return &cli.Command{
		Name:  "review",
		Usage: "look at the scripts that wait for a peer's approval, and decide",
		Subcommands: []*cli.Command{
			{
				Name:      "list",
				Usage:     "list what waits, and refuse what nobody decided about in time",
				ArgsUsage: "PEER",
				Description: `A script waits when the policy that permits it carries @review. It has been run, on a
transaction that was dropped, and its caller knows only that it is pending.`,
				Flags:  []cli.Flag{rootFlag(), signerFlag(), jsonFlag()},
				Action: reviewList,
			},
			{
				Name:      "show",
				Usage:     "show what a script would do, who sent it, and which code it is",
				ArgsUsage: "PEER ID",
				Description: `ID is the beginning of the script's id. What is shown is what the script did when it
came, on the data of then; approve --dry-run shows what it would do now.`,
				Flags:  []cli.Flag{rootFlag(), signerFlag(), jsonFlag()},
				Action: reviewShow,
			},
			{
				Name:      "approve",
				Usage:     "run a script that waits, if it still does what was looked at",
				ArgsUsage: "PEER ID",
				Description: `The script runs on the data as they are now, and under the policies as they are now.
If it would change, or answer, something else than show showed, nothing is done and
it still waits. Exit codes: 0 done, 3 not permitted any more, 4 it does something
else by now, or failed; 5 there is none with that id, or its module is gone.`,
				Flags: deciding(
					&cli.BoolFlag{Name: "allow-changed", Usage: "whatever it changes and answers now"},
					&cli.BoolFlag{Name: "allow-answer", Usage: "whatever it answers now, if it changes what was looked at; for what tells the time, or rolls dice"},
				),
				Action: func(c *cli.Context) error {
					return decide(c, script.Decision{
						Ruling: script.Approve, OtherChanges: c.Bool("allow-changed"),
						OtherAnswer: c.Bool("allow-changed") || c.Bool("allow-answer"),
					})
				},
			},
			{
				Name:      "reject",
				Usage:     "refuse a script that waits",
				ArgsUsage: "PEER ID",
				Flags:     deciding(&cli.StringFlag{Name: "reason", Usage: "tell its caller `TEXT`"}),
				Action: func(c *cli.Context) error {
					return decide(c, script.Decision{Ruling: script.Reject, Reason: c.String("reason")})
				},
			},
		},
	}
}

// heldScript is a script that waits, as its target's owner may see it.
type heldScript struct {
	Script  script.ID       `json:"script"`
	Caller  peer.ID         `json:"caller"`
	Expires time.Time       `json:"expires"`
	Pending *script.Receipt `json:"pending"`
	// Would is what became of it when it was run to be looked at.
	Would *script.Receipt `json:"would,omitempty"`
	// Of what was sent, what no receipt has.
	Language     string   `json:"language,omitempty"` // of the text that it carries
	Text         string   `json:"text,omitempty"`
	Params       string   `json:"params,omitempty"`
	ParamsBase64 []byte   `json:"params_base64,omitempty"`
	Lent         []string `json:"lent,omitempty"`
	Problem      string   `json:"problem,omitempty"` // it cannot be approved
}

// waitingIn reads what waits in a context: by its log, which is checked on the way,
// and what is kept beside it.
func waitingIn(c *cli.Context, root *host.Root, e peer.Entry) ([]heldScript, error) {
	key, err := root.Key()
	if err != nil {
		return nil, err
	}
	s, err := contextsOf(root).Read(c.Context, e)
	if err != nil {
		return nil, inUse(c, root, e, err)
	}
	defer s.Close()
	former, err := formerHosts(c)
	if err != nil {
		return nil, err
	}
	log := newLogReader(s, e, append(former, key.ID())...)
	var waiting []heldScript
	read := func() error {
		for l, err := range log.next(c.Context) {
			if err != nil {
				return coded{exitInvalid, err}
			}
			switch r := l.Receipt; {
			case r.Code == script.Pending:
				waiting = append(waiting, heldScript{Script: r.Script, Caller: r.Caller, Expires: r.Expires, Pending: r})
			case !r.Pending.IsZero():
				waiting = without(waiting, r.Script)
			}
		}
		return nil
	}
	if err := read(); err != nil {
		return nil, err
	}
	err = s.View(c.Context, func(tx store.Tx) error {
		for i := range waiting {
			if err := waiting[i].look(c, tx.Private()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return waiting, read() // what was decided meanwhile does not wait any more
}

func without(list []heldScript, id script.ID) []heldScript {
	for i := range list {
		if list[i].Script == id {
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}

// look reads what is kept of a script.
func (w *heldScript) look(c *cli.Context, private store.FS) error {
	item, ok, err := review.Find(private, w.Script)
	var held *review.Held
	if err == nil && !ok {
		err = review.ErrDamaged
	}
	if err == nil {
		held, err = item.Open(c.Context, private, w.Pending.Kept)
	}
	if errors.Is(err, review.ErrDamaged) {
		w.Problem = err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	would, err := script.DecodeReceipt(held.Would)
	if err != nil {
		return coded{exitInvalid, err}
	}
	w.Would = &would
	v, err := envelope.OpenHeld(held.Sealed, w.Script, w.Pending.Target)
	if err != nil {
		return coded{exitInvalid, err}
	}
	w.Language, w.Text = v.Script().Logic.Text.Language, v.Script().Logic.Text.Source
	w.Params, w.ParamsBase64 = script.Readable(v.Script().Params)
	for _, g := range v.Script().Lent {
		w.Lent = append(w.Lent, string(g.Action)+":"+g.Path)
	}
	return nil
}

func reviewList(c *cli.Context) error {
	if err := args(c, 1, 1, "PEER"); err != nil {
		return err
	}
	root, e, err := rootAndHeld(c, c.Args().First())
	if err != nil {
		return err
	}
	waiting, err := waitingIn(c, root, e)
	if err != nil {
		return err
	}
	if refused, err := expire(c, root, e, waiting); err != nil {
		return err
	} else if refused {
		if waiting, err = waitingIn(c, root, e); err != nil {
			return err
		}
	}
	p := printerOf(c)
	if c.Bool("json") {
		if waiting == nil {
			waiting = []heldScript{}
		}
		return p.json(waiting)
	}
	for _, w := range waiting {
		about := "damaged; reject it"
		if w.Would != nil {
			about = outcomeText(w.Would)
		}
		p.f("%s  %s  %s  %s\n", short(w.Script), pad(sentBy(root, w.Pending)+" "+codeText(w.Pending), 28), pad(about, 12), p.dim(untilText(w.Expires)))
	}
	if len(waiting) == 0 {
		newPrinter(c.App.ErrWriter).f("nothing waits for %s to look at it\n", e.Name)
	}
	return nil
}

// expire has the host refuse what has expired, if something has, and this is where
// the owner's key is. It reports whether it was asked to.
func expire(c *cli.Context, root *host.Root, e peer.Entry, waiting []heldScript) (bool, error) {
	expired := false
	for _, w := range waiting {
		expired = expired || !time.Now().Before(w.Expires)
	}
	if !expired {
		return false, nil
	}
	key, err := e.Key()
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	now := time.Now()
	s := script.Script{Logic: script.Logic{Decide: script.Decision{Ruling: script.Expire}}, NotBefore: now, Deadline: now.Add(time.Minute)}
	sent, err := deliverTo(c.Context, c, root, s, e, e, key)
	if err == nil && sent.Receipt.Code != script.Done {
		err = fmt.Errorf("refuse what expired: %s: %s", sent.Receipt.Code, sent.Receipt.Message)
	}
	return err == nil, err
}

// outcomeText says in few words what a script would do.
func outcomeText(r *script.Receipt) string {
	if r.Code != script.Done {
		return r.Code.String()
	}
	return count(len(r.Effects)+int(r.MoreEffects), "change")
}

func untilText(t time.Time) string {
	left := time.Until(t)
	switch {
	case left <= 0:
		return "expired"
	case left < time.Minute:
		return "until " + when(t) + ", less than a minute"
	case left < 48*time.Hour:
		return fmt.Sprintf("until %s, %s", when(t), strings.TrimSuffix(left.Truncate(time.Minute).String(), "0s"))
	}
	return fmt.Sprintf("until %s, %s", when(t), ageText(left))
}

// ageText is a time that may be days.
func ageText(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day {
		return count(int(d/day), "day")
	}
	return d.String()
}

func reviewShow(c *cli.Context) error {
	if err := args(c, 2, 2, "PEER ID"); err != nil {
		return err
	}
	root, e, err := rootAndHeld(c, c.Args().First())
	if err != nil {
		return err
	}
	waiting, err := waitingIn(c, root, e)
	if err != nil {
		return err
	}
	w, err := oneOf(waiting, e, c.Args().Get(1))
	if err != nil {
		return err
	}
	p := printerOf(c)
	if c.Bool("json") {
		return p.json(w)
	}
	row := func(label, value string) {
		if value != "" {
			p.f("%s %s\n", p.dim(pad(label, 9)), value)
		}
	}
	r := w.Pending
	row("script", w.Script.String())
	row("caller", nameOf(root, w.Caller)+p.dim("  "+string(w.Caller)))
	showVia(p, root, r, row)
	row("module", codeText(r))
	row(" ", p.dim(r.Module.String()))
	if w.Text != "" {
		row("text", "in "+clean(w.Language))
		p.f("%s\n", indent("  ", clean(w.Text)))
	}
	row("params", line(cut(w.Params, 500)))
	if w.ParamsBase64 != nil {
		row("params", bytesText(uint64(len(w.ParamsBase64)))+" that are no text; --json has them")
	}
	row("lends", clean(strings.Join(w.Lent, ", ")))
	row("policies", orNone(r.Policies))
	row("waits", untilText(w.Expires))
	if w.Would == nil {
		p.f("%s %s\n", p.red("✗"), clean(w.Problem+"; it cannot be run: reject it"))
		return coded{code: exitInvalid}
	}
	showWould(p, w.Would)
	wouldSend(p, root, w.Would.Sent)
	p.f("%s %s review approve %s %s\n", p.dim("to let it:"), host.Command, e.Name, short(w.Script))
	p.f("%s %s review reject %s %s --reason TEXT\n", p.dim("or not:   "), host.Command, e.Name, short(w.Script))
	return nil
}

// showWould prints what a script would do.
func showWould(p *printer, r *script.Receipt) {
	p.f("%s %s\n", p.dim(pad("would", 9)), outcomeText(r))
	wouldChange(p, r.Effects)
	if r.MoreEffects > 0 {
		p.f("would: %d changes more\n", r.MoreEffects)
	}
	if r.Message != "" {
		p.f("would fail: %s\n", clean(r.Message))
	}
	if len(r.Result) > 0 {
		p.f("would answer: %s\n", line(cut(string(r.Result), 2000)))
	}
	if len(r.Log) > 0 {
		p.f("%s\n", indent(p.dim("would log │ "), clean(string(r.Log))))
	}
}

// oneOf finds the one script whose id begins so.
func oneOf(waiting []heldScript, e peer.Entry, id string) (found heldScript, err error) {
	prefix := strings.ToLower(strings.TrimPrefix(id, "sha256:"))
	for _, w := range waiting {
		switch {
		case !strings.HasPrefix(fmt.Sprintf("%x", w.Script[:]), prefix):
		case !found.Script.IsZero():
			return found, usage("%s is the beginning of %x and of %x: say more of it", prefix, found.Script[:], w.Script[:])
		default:
			found = w
		}
	}
	if found.Script.IsZero() {
		return found, coded{exitNotFound, fmt.Errorf("no script %s waits for %s to look at it; %s review list %s lists those that do", id, e.Name, host.Command, e.Name)}
	}
	return found, nil
}

// decide sends the owner's decision, which is a script of the owner's own.
func decide(c *cli.Context, d script.Decision) error {
	if err := args(c, 2, 2, "PEER ID"); err != nil {
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
	key, err := keyOf(root, e)
	if err != nil {
		return err
	}
	if d.Script, err = script.ParseDigest(strings.ToLower(c.Args().Get(1))); err != nil {
		if !e.Held() {
			return usage("what waits for %s is not here: say the whole id of the script, sha256: and 64 digits", who(e))
		}
		waiting, err := waitingIn(c, root, e)
		if err != nil {
			return err
		}
		w, err := oneOf(waiting, e, c.Args().Get(1))
		if err != nil {
			return err
		}
		d.Script = w.Script
	}
	s := script.Script{Logic: script.Logic{Decide: d}, DryRun: c.Bool("dry-run")}
	if s.NotBefore, s.Deadline, err = times(c); err != nil {
		return err
	}
	sent, err := deliverTo(c.Context, c, root, s, e, e, key)
	if err != nil {
		return err
	}
	return reportDecision(c, e, d, sent)
}

// reportDecision prints what became of a decision, and of the script.
func reportDecision(c *cli.Context, e peer.Entry, d script.Decision, sent host.Sent) error {
	r := sent.Receipt
	if c.Bool("json") {
		return report(c, sent)
	}
	p, note := printerOf(c), newPrinter(c.App.ErrWriter)
	if r.DryRun && d.Ruling == script.Approve && (r.Code == script.Done || r.Code == script.Conflict) {
		showWould(p, &script.Receipt{Code: script.Done, Effects: r.Effects, MoreEffects: r.MoreEffects, Result: r.Result, Log: r.Log})
		if r.Code == script.Done {
			note.f("%s\n", note.dim("dry run, nothing was done: it is what was looked at"))
			return nil
		}
	}
	if r.Code != script.Done {
		return report(c, sent)
	}
	var became struct {
		Code    script.Code `json:"code"`
		Message string      `json:"message"`
		Effects int         `json:"effects"`
	}
	if err := json.Unmarshal(r.Result, &became); err != nil {
		return fmt.Errorf("the host answered something else than what became of the script: %w", err)
	}
	switch {
	case r.DryRun:
		note.f("%s\n", note.dim("dry run, nothing was done: it would be "+became.Code.String()))
	case d.Ruling == script.Reject:
		note.f("%s\n", note.dim(fmt.Sprintf("rejected, receipt %s", short(d.Script))))
	case became.Code == script.Done:
		p.f("%s %s\n", p.green("done"), count(became.Effects, "change"))
		note.f("%s\n", note.dim(fmt.Sprintf("approved, receipt %s; %s log %s %s shows it, %s undo --as %s %s undoes it",
			short(d.Script), host.Command, e.Name, short(d.Script), host.Command, e.Name, short(d.Script))))
	default:
		note.f("%s %s\n", note.red(became.Code.String()+":"), clean(became.Message))
		note.f("%s\n", note.dim("approved, receipt "+short(d.Script)))
		return silently(receiptExit(became.Code))
	}
	return nil
}
