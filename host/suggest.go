package host

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
)

// Suggestion is what would allow a script all that it asked for, and nothing else.
type Suggestion struct {
	Permit policy.Permit
	// Edit writes it; its After is "" if nothing is missing.
	Edit policy.Edit
	// Others are for modules that run for the script, which they do not let be sent, and
	// OtherEdits write them.
	Others     []policy.Permit
	OtherEdits []policy.Edit
	// Last is the script under it.
	Last Rehearsal
	// Forbidden are accesses that a forbid denies: no permit allows them.
	Forbidden []Access
}

// maxSuggested bounds the files and records that a suggestion names. A script that
// touches more is better allowed a directory or a collection.
const maxSuggested = 200

// maxRehearsed bounds the runs of one suggestion: a script that is allowed one
// thing more asks for the next.
const maxRehearsed = 50

// Suggest finds the narrowest permit by which s would be allowed what it asks for:
// for its caller, its entry and these bytes of code, and each file and record by
// itself. It rehearses s under what it has found so far, until nothing is denied
// any more that a permit could allow. Under another state of the files, or with
// other params, a script may ask for something else.
func (h *Host) Suggest(ctx context.Context, s script.Script) (g Suggestion, err error) {
	entry, ok := h.peers.ByID(s.Target)
	if !ok || !entry.Held() {
		return g, fmt.Errorf("suggest a permit: the context of %s is not here", s.Target)
	}
	dir := filepath.Join(entry.Dir, "policy")
	target, release, err := h.contexts.open(ctx, s.Target)
	if err != nil {
		return g, err
	}
	defer release()
	found, err := module.Find(s.Logic, target.modules, h.modules)
	if err != nil {
		return g, err
	}
	defer found.Release()
	parties := target.meet(s.Caller)
	g.Permit = policy.Permit{
		Peer: s.Caller, Name: parties.Caller.Name, Module: found.Name, Digest: found.Digest,
		Entries: []string{s.Entry}, Exact: true,
	}
	if found.Text() {
		g.Permit.Language = found.Language
	}
	before, err := policy.With(dir)
	if err != nil {
		return g, err
	}
	request := policy.Request{Parties: parties, Code: codeOf(found), Entry: s.Entry, Params: len(s.Params), Args: s.Params, Now: h.now(), Transport: "http"}
	if v := before.Submit(request); v.Permitted {
		g.Permit.Within = true
	} else if len(v.Policies) > 0 || v.Unread != nil {
		return g, fmt.Errorf("suggest a permit: %s, and no permit would help", v)
	}
	var after *policy.Set
	asked := map[traced]bool{}
	for range maxRehearsed {
		if after, err = g.plan(dir); err != nil {
			return g, err
		}
		if g.Last, err = h.Rehearse(ctx, s, after); err != nil {
			return g, err
		}
		if g.Last.Receipt.Code == script.Refused {
			return g, fmt.Errorf("suggest a permit: %s", g.Last.Receipt.Message)
		}
		more := false
		g.Forbidden = nil
		for _, a := range g.Last.Accesses {
			switch {
			case a.Allowed:
				continue
			case len(a.By) > 0:
				g.Forbidden = append(g.Forbidden, a)
				continue
			case a.Action == "":
				a.Action = script.Read // whoever may do anything may look; to read is the least
			}
			if a.Action == script.Send {
				other, ok := parties.Other(a.Path)
				if !ok {
					continue // nobody is called that
				}
				a.Path = string(other.ID)
			}
			if missing := (traced{script.Grant{Action: a.Action, Path: a.Path}, a.Lacks}); !asked[missing] {
				asked[missing], more = true, true
				g.add(missing)
			}
		}
		if len(asked) > maxSuggested || g.Last.More > 0 {
			return g, fmt.Errorf("suggest a permit: it asks for more than %d files and records, %s among them; allow a directory or a collection with %s policy allow",
				maxSuggested, g.Last.Accesses[0].Path, Command)
		}
		if !more {
			return g, g.narrow(before, after, request)
		}
	}
	return g, errors.New("suggest a permit: each time that it is allowed something, it asks for something else: " + strings.Join(lastAsked(g.Last), ", "))
}

// add has what was missing permitted to the module that lacked it.
func (g *Suggestion) add(missing traced) {
	if missing.module == g.Permit.Module {
		g.Permit.Add(missing.Action, missing.Path)
		return
	}
	i := slices.IndexFunc(g.Others, func(p policy.Permit) bool { return p.Module == missing.module })
	if i < 0 {
		i = len(g.Others)
		p := policy.Permit{Peer: g.Permit.Peer, Name: g.Permit.Name, Module: missing.module, Exact: true, Within: true}
		for _, part := range g.Last.Receipt.Parts {
			if part.Name == missing.module {
				p.Digest = part.Module
			}
		}
		g.Others = append(g.Others, p)
	}
	g.Others[i].Add(missing.Action, missing.Path)
}

// plan is what would be in force with what was found so far.
func (g *Suggestion) plan(dir string) (after *policy.Set, err error) {
	var edits []policy.Edit
	if !g.Permit.Within || g.Permit.Touches() {
		if g.Edit, err = g.Permit.Plan(dir); err != nil {
			return nil, err
		}
		edits = append(edits, g.Edit)
	}
	g.OtherEdits = nil
	for _, p := range g.Others {
		e, err := p.Plan(dir)
		if err != nil {
			return nil, err
		}
		g.OtherEdits = append(g.OtherEdits, e)
	}
	return policy.With(dir, append(edits, g.OtherEdits...)...)
}

// Edits write all that is suggested.
func (g *Suggestion) Edits() (edits []policy.Edit) {
	if g.Edit.After != "" {
		edits = append(edits, g.Edit)
	}
	return append(edits, g.OtherEdits...)
}

// narrow checks that what is suggested says no more than it should.
func (g *Suggestion) narrow(before, after *policy.Set, r policy.Request) error {
	wide := func(err error) error {
		return fmt.Errorf("suggest a permit: it would say more than it should, which is a mistake of this program: %w", err)
	}
	if g.Edit.After != "" {
		if err := g.Permit.Narrow(before, after, r); err != nil {
			return wide(err)
		}
	}
	for _, p := range g.Others {
		r := r
		r.Code, r.Args = policy.Code{Found: true, Name: p.Module, Digest: p.Digest}, nil
		if err := p.Narrow(before, after, r); err != nil {
			return wide(err)
		}
	}
	return nil
}

// lastAsked are some of what was denied last.
func lastAsked(r Rehearsal) (texts []string) {
	for _, a := range slices.Backward(r.Accesses) {
		if !a.Allowed && len(texts) < 3 {
			texts = append(texts, string(a.Action)+" "+a.Path)
		}
	}
	return texts
}
