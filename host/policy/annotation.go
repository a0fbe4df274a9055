package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/circles-host/circles/host/near"
	"github.com/circles-host/circles/host/units"
)

// Limits are what @limits says a script may use. A field that is zero was not
// named. They narrow what the host allows, and never widen it.
type Limits struct {
	Time      time.Duration
	Memory    uint64 // bytes
	Output    uint64 // bytes
	Log       uint64 // bytes
	HostCalls uint64
	Fuel      uint64
	Sends     uint64 // scripts that it sends to others

	// Of the target's files; store.Limits says what is counted.
	Bytes   uint64
	File    uint64 // bytes
	Entries uint64
	Handles uint64
	Depth   uint64
}

// limit is one field of Limits but for the time, by the name that @limits gives it.
type limit struct {
	name  string
	value *uint64
	bytes bool
}

func (l *Limits) all() []limit {
	return []limit{
		{"memory", &l.Memory, true}, {"output", &l.Output, true}, {"log", &l.Log, true},
		{"host_calls", &l.HostCalls, false}, {"fuel", &l.Fuel, false}, {"sends", &l.Sends, false},
		{"bytes", &l.Bytes, true}, {"file", &l.File, true},
		{"entries", &l.Entries, false}, {"handles", &l.Handles, false}, {"depth", &l.Depth, false},
	}
}

// narrow takes the nearer of each limit.
func (l Limits) narrow(other Limits) Limits {
	l.Time = nearer(l.Time, other.Time)
	others := other.all()
	for i, f := range l.all() {
		*f.value = nearer(*f.value, *others[i].value)
	}
	return l
}

func nearer[T ~int64 | ~uint64](a, b T) T {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// ParseLimits reads limits as @limits has them: "time=200ms, memory=32MiB,
// fuel=50M".
func ParseLimits(text string) (l Limits, err error) {
	names := []string{"time"}
	for _, f := range l.all() {
		names = append(names, f.name)
	}
	last := len(names) - 1
	known := "it can be " + strings.Join(names[:last], ", ") + " or " + names[last]
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return Limits{}, fmt.Errorf("limit %q: want NAME=VALUE, as in time=200ms; %s", strings.TrimSpace(part), known)
		}
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !slices.Contains(names, name) {
			hint := ""
			if n := near.Name(name, names); n != "" {
				hint = fmt.Sprintf(" (did you mean %s?)", n)
			}
			return Limits{}, fmt.Errorf("there is no limit %q%s; %s", name, hint, known)
		}
		if err := l.set(name, []byte(value)); err != nil {
			return Limits{}, fmt.Errorf("limit %s: %w", name, err)
		}
		if seen[name] {
			return Limits{}, fmt.Errorf("limit %s is given twice", name)
		}
		seen[name] = true
	}
	return l, nil
}

func (l *Limits) set(name string, value []byte) (err error) {
	if name == "time" {
		var d units.Duration
		err = d.UnmarshalText(value)
		l.Time = time.Duration(d)
		return err
	}
	for _, f := range l.all() {
		switch {
		case f.name != name:
		case f.bytes:
			var size units.Size
			err = size.UnmarshalText(value)
			*f.value = uint64(size)
		default:
			var count units.Count
			err = count.UnmarshalText(value)
			*f.value = uint64(count)
		}
	}
	return err
}

// String is the limits as @limits has them; "" if none is set.
func (l Limits) String() string {
	var parts []string
	if l.Time != 0 {
		parts = append(parts, "time="+l.Time.String())
	}
	for _, f := range l.all() {
		switch {
		case *f.value == 0:
		case f.bytes:
			parts = append(parts, f.name+"="+units.Size(*f.value).String())
		default:
			parts = append(parts, f.name+"="+units.Count(*f.value).String())
		}
	}
	return strings.Join(parts, ", ")
}

// annotations are what a rule says beside permitting and forbidding.
type annotations struct {
	limits Limits        // of the scripts that it permits
	review time.Duration // how long those are held for the owner to decide; 0 if they run at once
	reason string        // shown to whom it refuses
	hides  bool          // what it forbids is as if it were not there
}

// maxReason bounds what every refusal repeats.
const maxReason = 500 // bytes

// DefaultReview is how long a script is held that a permit with a plain @review
// lets in, and MaxReview the longest that one may be.
const (
	DefaultReview = 7 * 24 * time.Hour
	MaxReview     = 90 * 24 * time.Hour
)

// ParseReview reads how long a script is held as @review has it: "72h", "3d", or ""
// for DefaultReview.
func ParseReview(text string) (time.Duration, error) {
	if text == "" {
		return DefaultReview, nil
	}
	var age units.Age
	if err := age.UnmarshalText([]byte(text)); err != nil || age <= 0 || time.Duration(age) > MaxReview {
		return 0, fmt.Errorf("%.40q: want how long a script waits, as in 36h or 7d, and at most %s; nothing means %s", text, reviewText(MaxReview), reviewText(DefaultReview))
	}
	return time.Duration(age), nil
}

// reviewText is a time as ParseReview reads it.
func reviewText(d time.Duration) string {
	const day = 24 * time.Hour
	if d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

// known annotations, for suggestions.
var annotationNames = []string{"id", "description", "limits", "review", "reason", "hide"}

// annotate reads one annotation; the error says what is wrong with it.
//
// One that we ignored may be one that somebody relies on: a permit that narrows
// limits must not be taken for a plain one by a host that knows no limits. So
// every one that is unknown, or stands where it means nothing, is an error.
func (r *rule) annotate(key, value string, tree *ast.Policy) error {
	mayBe := func(action cedar.EntityUID) bool { return mayMatch(action, tree.Action) }
	switch key {
	case "id":
		r.id = value
		if !printable(r.id) || len(r.id) > maxID {
			return fmt.Errorf("@id must be 1 to %d bytes of printable text", maxID)
		}
		if r.id == Owner || r.id == Given || r.id == Issuer {
			return fmt.Errorf("@id(%q) is what a host calls what needs no policy; choose another", r.id)
		}
	case "description":
	case "limits":
		if r.forbids || !mayBe(actionUID(submit)) {
			return fmt.Errorf("@limits is for what is permitted to run: a permit of Action::%q", submit)
		}
		limits, err := ParseLimits(value)
		if err != nil {
			return fmt.Errorf("@limits: %w", err)
		}
		r.limits = limits
	case "review":
		if r.forbids || !mayBe(actionUID(submit)) {
			return fmt.Errorf("@review is for what is permitted to run: a permit of Action::%q", submit)
		}
		review, err := ParseReview(value)
		if err != nil {
			return fmt.Errorf("@review: %w", err)
		}
		r.review = review
	case "reason":
		if !r.forbids {
			return fmt.Errorf("@reason is for a forbid: it is told to whom that refuses")
		}
		if !printable(value) || len(value) > maxReason {
			return fmt.Errorf("@reason must be 1 to %d bytes of printable text", maxReason)
		}
		r.reason = value
	case "hide":
		if !r.forbids {
			return fmt.Errorf("@hide is for a forbid: what that forbids is shown as if it were not there")
		}
		if value != "" {
			return fmt.Errorf("@hide has no value: write @hide")
		}
		r.hides = true
	default:
		hint := ""
		if n := near.Name(key, annotationNames); n != "" {
			hint = fmt.Sprintf(" (did you mean @%s?)", n)
		}
		return fmt.Errorf("this host does not know the annotation @%s%s; it knows @%s", key, hint, strings.Join(annotationNames, ", @"))
	}
	return nil
}

// explain adds what the deciding policies say of a refusal.
func (s *Set) explain(v Verdict) Verdict {
	if v.Permitted || len(v.Failed) > 0 {
		return v
	}
	for _, id := range v.Policies {
		r := s.byID[id]
		v.Hidden = v.Hidden || r.hides
		if r.reason != "" {
			v.Reasons = append(v.Reasons, r.reason)
		}
	}
	return v
}

// limits are those of all policies that permit: each may narrow them.
func (s *Set) limits(v Verdict) (l Limits) {
	for _, id := range v.Policies {
		l = l.narrow(s.byID[id].limits)
	}
	return l
}

// review is how long the script is held, 0 if it need not be. One permit that says
// so is enough, whatever others there are: who added it wants to see the script.
func (s *Set) review(v Verdict) (d time.Duration) {
	for _, id := range v.Policies {
		d = nearer(d, s.byID[id].review)
	}
	return d
}
