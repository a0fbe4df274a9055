package policy

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"

	"github.com/circles-host/circles/host/script"
)

// Edit is a change to a policy folder that has not been made: a file that comes,
// or one that goes. Whoever makes one can see first what it does: Diff shows it,
// and With decides by it.
type Edit struct {
	File   string // "allow-alice-guestbook.cedar"
	Before string // its text; "" if it is not there
	After  string // "" if it goes
}

// Diff is the edit as a unified diff.
func (e Edit) Diff() string {
	from, to := e.File, e.File
	if e.Before == "" {
		from = "/dev/null"
	}
	if e.After == "" {
		to = "/dev/null"
	}
	return udiff.Unified(from, to, e.Before, e.After)
}

// With is what would be in force in dir with edits.
func With(dir string, edits ...Edit) (*Set, error) {
	read, err := readDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range edits {
		read = slices.DeleteFunc(read, func(f File) bool { return f.Name == e.File })
		if e.After != "" {
			read = append(read, File{e.File, e.After})
		}
	}
	return Parse(read)
}

// Apply makes the edit in dir, which it makes if need be. A new file appears whole
// or not at all, so that a host that watches the directory never sees half of it;
// the error wraps fs.ErrExist when there is one of that name by now. A file that is
// not as Before has it any more is left alone.
func (e Edit) Apply(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save policy: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("save policy: %w", err)
	}
	defer root.Close()
	if e.After == "" {
		return e.remove(root)
	}
	temporary := ".permit-" + rand.Text()
	defer func() { _ = root.Remove(temporary) }()
	if err := writeNew(root, temporary, e.After); err != nil {
		return fmt.Errorf("save policy: %w", err)
	}
	// A link, unlike a renaming, does not replace what somebody else has just
	// saved under this name.
	err = root.Link(temporary, e.File)
	if err != nil && !errors.Is(err, fs.ErrExist) { // a file system without links
		err = root.Rename(temporary, e.File)
	}
	if err != nil {
		return fmt.Errorf("save policy: %w", err)
	}
	return nil
}

func (e Edit) remove(root *os.Root) error {
	info, err := root.Stat(e.File)
	if err != nil {
		return fmt.Errorf("remove policy: %w", err)
	}
	text, err := readFile(root, listed{name: e.File, mode: info.Mode()})
	if err != nil {
		return fmt.Errorf("remove policy %s: %w", e.File, err)
	}
	if text != e.Before {
		return fmt.Errorf("remove policy: %s was changed meanwhile; look at it again", e.File)
	}
	if err := root.Remove(e.File); err != nil {
		return fmt.Errorf("remove policy: %w", err)
	}
	return nil
}

// Forbid keeps a peer, or a circle, from running a module, or one that they run
// from touching files and records. It is what Permit is, with these differences:
// without a module it is about all of them; with files or records it is about
// those, and lets the module run. It outweighs every permit.
type Forbid struct {
	Permit
	Reason string // told to whom it refuses; "" for nothing
	Hide   bool   // what it forbids looks as if it were not there
}

// Plan writes the forbid as a new policy file, to be looked at first.
func (f Forbid) Plan(dir string) (Edit, error) {
	p := f.Permit
	if p.ID == "" {
		p.ID = "deny" + strings.TrimPrefix(p.slug(), "allow")
	}
	return plan(dir, p.slug(), f.format)
}

// Format writes the forbid as Cedar, in the manner of Permit.Format.
func (f Forbid) Format() (string, error) {
	p := f.Permit
	if p.ID == "" {
		p.ID = "deny" + strings.TrimPrefix(p.slug(), "allow")
	}
	return f.format(p.slug())
}

func (f Forbid) format(id string) (string, error) {
	principal, who, err := f.who()
	if err != nil {
		return "", err
	}
	conditions, what := f.conditions()
	if what == "" {
		what = "anything"
	}
	annotations := ""
	if f.Reason != "" {
		annotations += fmt.Sprintf("@reason(%s)\n", cedarString(f.Reason))
	}
	if f.Hide {
		annotations += "@hide\n"
	}
	var b strings.Builder
	touched := f.touched()
	if len(touched) == 0 {
		fmt.Fprintf(&b, "// %s may not run %s here.\n@id(%s)\n%sforbid (\n  %s,\n  action == Action::\"submit\",\n  resource\n)%s",
			comment(who), comment(what), cedarString(id), annotations, principal, when(conditions))
	} else {
		head := fmt.Sprintf("// What %s may not touch while it runs %s, and all that is below.\n", comment(who), comment(what))
		if err := writeTouched(&b, touched, id, annotations+"forbid", principal, when(conditions), head); err != nil {
			return "", fmt.Errorf("write forbid: %w", err)
		}
	}
	written, err := Parse([]File{{"deny.cedar", b.String()}})
	if err != nil {
		return "", fmt.Errorf("write forbid: %w", err)
	}
	// As with a permit: a string that is not UTF-8 does not come back as it was, and
	// a forbid of something else forbids nothing.
	r := f.example()
	forbids := func(v Verdict) bool { return len(v.Policies) > 0 && !v.Permitted }
	if len(touched) == 0 && !forbids(written.Submit(r)) {
		return "", errors.New("write forbid: a name has characters in it that a policy cannot hold")
	}
	for _, t := range touched {
		if d := written.Grants(r).decide(t.actions[0], t.path); d == nil || !forbids(d.Verdict) {
			return "", fmt.Errorf("write forbid: %q has characters in it that a policy cannot hold", t.path)
		}
	}
	return b.String(), nil
}

// Place is a policy in a file.
type Place struct {
	Policy string // its id
	File   string
	Line   int
}

// Revoke finds what lets, or keeps, somebody: the policy with an id, or, with id
// "", every permit for p's peer or circle to run p's module. What Permit or Forbid
// have written, each into a file of its own, is taken back by an Edit; what an
// owner has written among other policies is left to them, and told by its place.
func Revoke(dir, id string, p Permit) (edits []Edit, left []Place, err error) {
	read, err := readDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range read {
		rules, problems := parseFile(f)
		if problems != nil {
			continue // what is in it is not in force; removing another file still helps
		}
		base := strings.TrimSuffix(f.Name, ".cedar")
		ours := !slices.ContainsFunc(rules, func(r *rule) bool { return !partOf(base, r.id) })
		found := slices.DeleteFunc(slices.Clone(rules), func(r *rule) bool {
			return id != "" && r.id != id || id == "" && !p.isBy(r)
		})
		if ours && len(rules) > 0 && (id == base || id == "" && len(found) > 0 || len(found) == len(rules)) {
			edits = append(edits, Edit{File: f.Name, Before: f.Text})
			continue
		}
		for _, r := range found {
			left = append(left, Place{r.id, f.Name, r.line})
		}
	}
	return edits, left, nil
}

// partOf reports whether a policy's id is one that Permit and Forbid give beside
// base.
func partOf(base, id string) bool {
	rest, ok := strings.CutPrefix(id, base)
	if !ok || rest == "" {
		return ok
	}
	for _, kind := range []script.Action{files, records, Call, script.Send} {
		if number, ok := strings.CutPrefix(rest, "-"+string(kind)); ok {
			return number == "" || strings.Trim(number, "-0123456789") == ""
		}
	}
	return false
}

// isBy reports whether r permits p's peer or circle to run p's module, or the module
// something while it runs for them: all that they may of one that is only called.
func (p Permit) isBy(r *rule) bool {
	at, named := principalOf(r.principal)
	if r.forbids || !named || at != peerUID(p.Peer) && (p.Circle == "" || string(at.Type) != string(typeCircle) || string(at.ID) != p.Circle) {
		return false
	}
	c := clausesOf(r)
	if c.contradiction() != "" {
		return false
	}
	if p.Module != "" {
		name, ok := c.facts.equal[moduleName]
		return ok && string(name.MarshalCedar()) == cedarString(p.Module)
	}
	return slices.Contains(c.digests, p.Digest)
}
