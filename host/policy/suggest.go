package policy

import (
	"fmt"
	"path"
	"strings"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Narrow checks that p, which makes after of before, allows r what p says, and
// changes nothing for what is nearly r: another caller, another entry, other code,
// and files and records beside, above and below those that p names. The error says
// what it found.
func (p Permit) Narrow(before, after *Set, r Request) error {
	if v := after.Submit(r); !v.Permitted && !p.Within {
		return fmt.Errorf("it is not permitted to run: %s", v)
	}
	touched := map[Need]bool{}
	for _, t := range p.touched() {
		for _, action := range t.actions {
			touched[Need{action, t.path}] = true
			if err := after.Grants(r).Allow(action, t.path); err != nil {
				return err
			}
		}
	}
	for _, name := range p.Call {
		for _, near := range []string{name + "x", "x" + name} {
			if (before.Grants(r).Allow(Call, near) == nil) != (after.Grants(r).Allow(Call, near) == nil) {
				return fmt.Errorf("it may call %s too", near)
			}
		}
	}
	all := func(r Request, name string) error {
		if was, is := before.Submit(r).Permitted, after.Submit(r).Permitted; was != is {
			return fmt.Errorf("%s may run it", name)
		}
		old, now := before.Grants(r), after.Grants(r)
		for n := range touched {
			if (old.Allow(n.Action, n.Path) == nil) != (now.Allow(n.Action, n.Path) == nil) {
				return fmt.Errorf("%s may %s %s", name, n.Action, n.Path)
			}
		}
		return nil
	}
	for name, change := range map[string]func(*Request){
		"somebody else":         func(r *Request) { r.Parties.Caller.ID = r.Parties.Target.ID; r.Parties.Caller.Name = "" },
		"a stranger":            func(r *Request) { r.Parties.Caller = peer.Peer{ID: "did:key:z6Mkstranger"} },
		"another entry":         func(r *Request) { r.Entry += "x" },
		"other bytes":           func(r *Request) { r.Code.Digest[0] ^= 1 },
		"a module of that name": func(r *Request) { r.Code.Digest = script.Digest{1} },
	} {
		if name == "another entry" && p.Entries == nil {
			continue
		}
		near := r
		if change(&near); near.Parties.Caller.ID == r.Parties.Caller.ID && name == "somebody else" {
			continue // the caller is the owner
		}
		if err := all(near, name); err != nil {
			return err
		}
	}
	old, now := before.Grants(r), after.Grants(r)
	for n := range touched {
		if n.Action == Call {
			continue
		}
		actions := []script.Action{script.Read, script.List, script.Write, script.Remove}
		near := []string{n.Path, n.Path + "x", path.Join(n.Path, "x"), path.Dir(n.Path)}
		if n.Action == script.Send {
			actions, near = []script.Action{script.Send}, []string{n.Path, string(r.Parties.Caller.ID), string(r.Parties.Target.ID)}
		}
		if n.Action.OfRecords() {
			actions = []script.Action{script.Get, script.Put, script.Query, script.Delete}
			collection, _, _ := strings.Cut(n.Path, "/")
			near = []string{n.Path, n.Path + "x", collection, collection + "/x", collection + "x"}
		}
		for _, action := range actions {
			for _, at := range near {
				if touched[Need{action, at}] {
					continue
				}
				if (old.Allow(action, at) == nil) != (now.Allow(action, at) == nil) {
					return fmt.Errorf("it may %s %s too", action, at)
				}
			}
		}
	}
	return nil
}
