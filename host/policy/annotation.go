package policy

import (
	"fmt"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

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
}

// narrow takes the nearer of each limit.
func (l Limits) narrow(other Limits) Limits {
	return Limits{
		Time:   nearer(l.Time, other.Time),
		Memory: nearer(l.Memory, other.Memory), Output: nearer(l.Output, other.Output), Log: nearer(l.Log, other.Log),
		HostCalls: nearer(l.HostCalls, other.HostCalls), Fuel: nearer(l.Fuel, other.Fuel),
	}
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
	const known = "it can be time, memory, output, log, host_calls or fuel"
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return Limits{}, fmt.Errorf("limit %q: want NAME=VALUE, as in time=200ms; %s", strings.TrimSpace(part), known)
		}
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		var (
			duration units.Duration
			size     units.Size
			count    units.Count
		)
		switch name {
		case "time":
			err = duration.UnmarshalText([]byte(value))
			l.Time = time.Duration(duration)
		case "memory":
			err = size.UnmarshalText([]byte(value))
			l.Memory = uint64(size)
		case "output":
			err = size.UnmarshalText([]byte(value))
			l.Output = uint64(size)
		case "log":
			err = size.UnmarshalText([]byte(value))
			l.Log = uint64(size)
		case "host_calls":
			err = count.UnmarshalText([]byte(value))
			l.HostCalls = uint64(count)
		case "fuel":
			err = count.UnmarshalText([]byte(value))
			l.Fuel = uint64(count)
		default:
			hint := ""
			if n := nearest(name, []string{"time", "memory", "output", "log", "host_calls", "fuel"}); n != "" {
				hint = fmt.Sprintf(" (did you mean %s?)", n)
			}
			return Limits{}, fmt.Errorf("there is no limit %q%s; %s", name, hint, known)
		}
		if err != nil {
			return Limits{}, fmt.Errorf("limit %s: %w", name, err)
		}
		if seen[name] {
			return Limits{}, fmt.Errorf("limit %s is given twice", name)
		}
		seen[name] = true
	}
	return l, nil
}

// String is the limits as @limits has them; "" if none is set.
func (l Limits) String() string {
	var parts []string
	add := func(name, value string, set bool) {
		if set {
			parts = append(parts, name+"="+value)
		}
	}
	add("time", l.Time.String(), l.Time != 0)
	add("memory", units.Size(l.Memory).String(), l.Memory != 0)
	add("output", units.Size(l.Output).String(), l.Output != 0)
	add("log", units.Size(l.Log).String(), l.Log != 0)
	add("host_calls", units.Count(l.HostCalls).String(), l.HostCalls != 0)
	add("fuel", units.Count(l.Fuel).String(), l.Fuel != 0)
	return strings.Join(parts, ", ")
}

// annotations are what a rule says beside permitting and forbidding.
type annotations struct {
	limits Limits // of the scripts that it permits
	reason string // shown to whom it refuses
	hides  bool   // what it forbids is as if it were not there
}

// maxReason bounds what every refusal repeats.
const maxReason = 500 // bytes

// known annotations, for suggestions.
var annotationNames = []string{"id", "description", "limits", "reason", "hide"}

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
		if n := nearest(key, annotationNames); n != "" {
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
