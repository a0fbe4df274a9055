package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// Permit is permission for one peer, or one circle, to run one module, and for
// that module to touch files and records while it runs for them. It is written as policies
// that a person can read and go on editing.
type Permit struct {
	ID     string    // of the policies, and the file's name; "" for one made of the names
	Peer   peer.ID   // who, or
	Circle string    // which circle
	Name   peer.Name // the peer's petname, for the comment and the ID; "" when it has none

	Module string        // the module by its name in its layer,
	Digest script.Digest // by its content, or by its Publisher; one must be given, all may be
	// Language is that of the text which Digest is of, if it is of one: the same bytes may
	// mean something else in another.
	Language string
	// Publisher is who has to have signed the module; alone it is for whatever they sign.
	Publisher peer.ID
	// Entries are the only entries that may be run; nil for all. "" is the
	// default entry, and what a command has.
	Entries []string

	// Limits of the scripts that it permits; zero for those of the host.
	Limits Limits
	// Review is how long they wait for the owner to look at what they would do; 0
	// means that they run.
	Review time.Duration

	// Files and directories with all below them, as absolute clean paths.
	Read, List, Write, Remove []string
	// Collections of records, or single ones as COLLECTION/KEY; of Query
	// collections only.
	Get, Put, Query, Delete []string
	// Call are the names of modules.
	Call []string
	// Send are the did:keys of those to whom it may send scripts as the context's owner.
	Send []string
	// Exact leaves out what is below: just these files and records, and of a
	// directory or a collection just itself.
	Exact bool
	// Within writes only what may be touched, by what may run already.
	Within bool
}

// Add adds an action, on a path or, if it is one of records, on those.
func (p *Permit) Add(action script.Action, path string) {
	if list := map[script.Action]*[]string{
		script.Read: &p.Read, script.List: &p.List, script.Write: &p.Write, script.Remove: &p.Remove,
		script.Get: &p.Get, script.Put: &p.Put, script.Query: &p.Query, script.Delete: &p.Delete, Call: &p.Call,
		script.Send: &p.Send,
	}[action]; list != nil {
		*list = append(*list, path)
	}
}

// Format writes the permit as Cedar, in the order in which people ask: who may
// run what, then what that may touch. What it returns has been parsed and type
// checked. The error says which part of p cannot be written as a policy.
//
// Names and paths may be a stranger's: whatever is in them stays in a string.
func (p Permit) Format() (string, error) { return p.format(p.slug()) }

func (p Permit) format(id string) (string, error) {
	principal, who, err := p.who()
	if err != nil {
		return "", err
	}
	conditions, what := p.conditions()
	if conditions == nil {
		return "", errors.New("write permit: say which module may be run, by its name, its digest or its publisher")
	}
	when := when(conditions)

	var b strings.Builder
	head := "\n// What that may touch while it runs for them, and all that is below.\n"
	if p.Exact {
		head = "\n// What that may touch while it runs for them, and nothing below.\n"
	}
	if p.Within {
		head = fmt.Sprintf("// What %s may touch while it runs for %s.\n", comment(what), comment(who))
	} else {
		fmt.Fprintf(&b, "// %s may run %s here.\n", comment(who), comment(what))
		fmt.Fprintf(&b, "@id(%s)\n", cedarString(id))
		if p.Limits != (Limits{}) {
			fmt.Fprintf(&b, "@limits(%s)\n", cedarString(p.Limits.String()))
		}
		if p.Review != 0 {
			fmt.Fprintf(&b, "@review(%s)\n", cedarString(reviewText(p.Review)))
		}
		fmt.Fprintf(&b, "permit (\n  %s,\n  action == Action::\"submit\",\n  resource\n)%s", principal, when)
	}

	touched := p.touched()
	if err := writeTouched(&b, touched, id, "permit", principal, when, head); err != nil {
		return "", fmt.Errorf("write permit: %w", err)
	}

	// A check of this function, and of what it was given: a string that is not
	// UTF-8 does not come back as it was.
	written, err := Parse([]File{{"permit.cedar", b.String()}})
	if err != nil {
		return "", fmt.Errorf("write permit: %w", err)
	}
	r := p.example()
	if v := written.Submit(r); !v.Permitted && !p.Within {
		return "", errors.New("write permit: a name has characters in it that a policy cannot hold")
	}
	for _, f := range touched {
		if err := written.Grants(r).Allow(f.actions[0], f.path); err != nil {
			return "", fmt.Errorf("write permit: %q has characters in it that a policy cannot hold", f.path)
		}
	}
	return b.String(), nil
}

// who is the principal as a scope has it, and as a person calls it.
func (p Permit) who() (principal, who string, err error) {
	switch {
	case p.Peer != "" && p.Circle != "":
		return "", "", errors.New("write permit: give a peer or a circle, not both")
	case p.Peer != "":
		return "principal == " + cedarText(peerUID(p.Peer)), label(peer.Peer{ID: p.Peer, Name: p.Name}), nil
	case p.Circle != "" && !printable(p.Circle):
		return "", "", fmt.Errorf("write permit: no circle can be named %q", p.Circle)
	case p.Circle != "":
		return "principal in " + cedarText(types.NewEntityUID(typeCircle, types.String(p.Circle))), "the circle " + p.Circle, nil
	}
	return "", "", errors.New("write permit: say which peer or circle may run it")
}

// conditions say which code is meant, and what a person calls it.
func (p Permit) conditions() (conditions []string, what string) {
	what = p.Module
	if p.Module != "" {
		conditions = append(conditions, "context.module.name == "+cedarString(p.Module))
	}
	if p.Digest != (script.Digest{}) {
		conditions = append(conditions, "context.module.digest == "+cedarString(digestText(p.Digest)))
		if what == "" {
			what = "the module with this digest"
		}
		if p.Language != "" {
			conditions = append(conditions, "context.module.language == "+cedarString(p.Language))
			what = "the text in " + p.Language + " with this digest"
		}
	}
	if p.Publisher != "" {
		conditions = append(conditions, "context.module.publisher == "+cedarString(string(p.Publisher)))
		if what = what + " signed by " + p.Publisher.Short(); len(conditions) == 1 {
			what = "whatever is" + what
		}
	}
	if conditions == nil {
		return nil, ""
	}
	switch len(p.Entries) {
	case 0:
	case 1:
		conditions = append(conditions, "context.entry == "+cedarString(p.Entries[0]))
	default:
		entries := make([]string, len(p.Entries))
		for i, e := range p.Entries {
			entries[i] = cedarString(e)
		}
		conditions = append(conditions, "["+strings.Join(entries, ", ")+"].contains(context.entry)")
	}
	return conditions, what
}

// when ends a policy.
func when(conditions []string) string {
	if conditions == nil {
		return ";\n"
	}
	return " when {\n  " + strings.Join(conditions, " &&\n  ") + "\n};\n"
}

// writeTouched writes a policy about each thing that is touched, of the same
// principal and under the same conditions; head comes before the first.
func writeTouched(b *strings.Builder, touched []touch, id, effect, principal, when, head string) error {
	of := map[script.Action]int{} // how many of a kind there were
	for i, f := range touched {
		kind, what := f.kind()
		actions := make([]string, len(f.actions))
		for i, a := range f.actions {
			if wrong := wrongResource(a, f.path); wrong != "" {
				return fmt.Errorf("%s %q: %s", what, f.path, wrong)
			}
			actions[i] = cedarText(actionUID(a))
		}
		if i == 0 {
			b.WriteString(head)
		} else {
			b.WriteString("\n")
		}
		touchID := id + "-" + string(kind)
		if of[kind]++; of[kind] > 1 {
			touchID = fmt.Sprintf("%s-%d", touchID, of[kind])
		}
		in := "in"
		if f.exact {
			in = "=="
		}
		fmt.Fprintf(b, "@id(%s)\n%s (\n  %s,\n  action in [%s],\n  resource %s %s\n)%s",
			cedarString(touchID), effect, principal, strings.Join(actions, ", "), in, cedarText(f.scope()), when)
	}
	return nil
}

// example is a request that p means to permit.
func (p Permit) example() Request {
	r := Request{Code: Code{Found: true, Name: p.Module, Digest: p.Digest, Language: p.Language, Publisher: p.Publisher}}
	r.Parties.Caller = peer.Peer{ID: p.Peer}
	if p.Circle != "" {
		r.Parties.Caller.Circles = []string{p.Circle}
	}
	if len(p.Entries) > 0 {
		r.Entry = p.Entries[len(p.Entries)-1]
	}
	return r
}

// touch is what may be done to one path, collection or record.
type touch struct {
	path    string // or record, module or peer
	exact   bool   // that alone, and nothing below
	actions []script.Action
}

// kind is what policies about it are called by, and what it is.
func (f touch) kind() (group script.Action, what string) {
	switch {
	case f.actions[0] == Call:
		return Call, "module"
	case f.actions[0] == script.Send:
		return script.Send, "peer"
	case f.actions[0].OfRecords():
		return records, "record"
	}
	return files, "path"
}

// scope is what the actions may be done to.
func (f touch) scope() types.EntityUID {
	kind := typePath
	switch group, _ := f.kind(); {
	case group == Call:
		kind = typeModule
	case group == script.Send:
		kind = typePeer
	case group == records && strings.Contains(f.path, "/"):
		kind = typeRecord
	case group == records:
		kind = typeCollection
	}
	return types.NewEntityUID(kind, types.String(f.path))
}

// Touches reports whether it is about more than running.
func (p Permit) Touches() bool { return len(p.touched()) > 0 }

// touched groups p's actions by what they are done to, in the order in which they
// are given.
func (p Permit) touched() []touch {
	var all []touch
	for _, x := range []struct {
		action script.Action
		paths  []string
	}{
		{script.Read, p.Read}, {script.List, p.List}, {script.Write, p.Write}, {script.Remove, p.Remove},
		{script.Get, p.Get}, {script.Put, p.Put}, {script.Query, p.Query}, {script.Delete, p.Delete}, {Call, p.Call}, {script.Send, p.Send},
	} {
		group, _ := touch{actions: []script.Action{x.action}}.kind()
		for _, path := range x.paths {
			i := slices.IndexFunc(all, func(f touch) bool { g, _ := f.kind(); return f.path == path && g == group })
			if i < 0 {
				i = len(all)
				all = append(all, touch{path: path, exact: p.Exact || x.action == Call || x.action == script.Send, actions: []script.Action{x.action}})
			}
			if !slices.Contains(all[i].actions, x.action) {
				all[i].actions = append(all[i].actions, x.action)
			}
		}
	}
	return all
}

// Save writes the permit into a new file of the policy directory dir, which it
// makes if need be, and returns the file's name: "allow-alice-guestbook.cedar",
// or "…-2.cedar" when that is taken. The file appears whole or not at all, so
// that a host that watches the directory never sees half of it. When the
// policies there have mistakes nothing is written, since nothing would change.
func (p Permit) Save(dir string) (name string, err error) {
	for range maxTaken {
		var e Edit
		if e, err = p.Plan(dir); err == nil {
			name, err = e.File, e.Apply(dir)
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return "", err
	}
	return name, nil
}

// maxTaken is how many files of nearly the same name there may be.
const maxTaken = 1000

// Plan is what Save does, to be looked at first.
func (p Permit) Plan(dir string) (Edit, error) { return plan(dir, p.slug(), p.format) }

// plan finds a name for a new policy file, and writes it.
func plan(dir, slug string, format func(id string) (string, error)) (Edit, error) {
	existing, err := readDir(dir)
	if err != nil {
		return Edit{}, fmt.Errorf("save policy: mend the policies first: %w", err)
	}
	set, err := Parse(existing)
	if err != nil {
		return Edit{}, fmt.Errorf("save policy: mend the policies first: %w", err)
	}
	for n := 1; n <= maxTaken; n++ {
		id := slug
		if n > 1 {
			id = fmt.Sprintf("%s-%d", id, n)
		}
		name := id + ".cedar"
		if set.has(id) || slices.ContainsFunc(existing, func(f File) bool { return f.Name == name }) {
			continue
		}
		text, err := format(id)
		if err != nil {
			return Edit{}, err
		}
		if _, err := Parse(append(existing, File{name, text})); err != nil {
			return Edit{}, fmt.Errorf("save policy: %w", err)
		}
		return Edit{File: name, After: text}, nil
	}
	return Edit{}, fmt.Errorf("save policy: %s has %d files named %s already; give it another id", filepath.Base(dir), maxTaken, slug)
}

func writeNew(root *os.Root, name, text string) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func (s *Set) has(id string) bool {
	return slices.ContainsFunc(s.rules, func(r *rule) bool { return r.id == id })
}

// slug is p's ID, or one made of its names: letters, digits and "-", so that it
// is a file's name everywhere.
func (p Permit) slug() string {
	text := p.ID
	if text == "" {
		who := string(p.Name)
		switch {
		case p.Circle != "":
			who = p.Circle
		case who == "":
			who = p.Peer.Short()
		}
		text = "allow-" + who
		switch {
		case p.Module != "":
			text += "-" + p.Module
		case p.Digest != (script.Digest{}):
			text += fmt.Sprintf("-%x", p.Digest[:4])
		case p.Publisher != "":
			text += "-by-" + p.Publisher.Short()
		}
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', 'A' <= r && r <= 'Z', r == '_':
			b.WriteRune(r)
		default:
			if s := b.String(); s != "" && !strings.HasSuffix(s, "-") {
				b.WriteByte('-')
			}
		}
	}
	const most = 80 // room for "-records-12" within maxID
	slug := b.String()
	slug = strings.TrimRight(slug[:min(len(slug), most)], "-")
	if slug == "" {
		return "permit"
	}
	return slug
}

func cedarString(s string) string { return string(types.String(s).MarshalCedar()) }

func cedarText(uid types.EntityUID) string { return string(uid.MarshalCedar()) }

// comment makes s harmless in a comment: a line break in it would end the
// comment, and what follows would be policy.
func comment(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	if !printable(s) {
		return fmt.Sprintf("%q", s)
	}
	return s
}
