package policy

import (
	"iter"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/circles-host/circles/host/budget"
)

// Occasion is when and how a script came.
type Occasion struct {
	Now       time.Time
	Transport string // that it came by, "http"; "local" if by none
	// Used is what the caller's scripts used before. Only a Set that Counts looks
	// at it.
	Used budget.Used
}

// Counts is how far back policies ask what a caller used; 0 if none does, and then
// nobody need count.
func (s *Set) Counts() time.Duration { return s.counts }

// Again is when a script that is refused now would be permitted, if it comes again
// as it is and nothing else is used until then: the first of later, which is what
// counts then. It is zero if that is not known, or not to be told.
func (s *Set) Again(e *RefusedError, later iter.Seq2[time.Time, budget.Used]) time.Time {
	if s.counts == 0 || e.Reason != "" || e.Verdict.Hidden || len(e.Verdict.Failed) > 0 || e.Verdict.Problem != nil {
		return time.Time{}
	}
	r := e.Request
	for at, used := range later {
		if r.Now, r.Used = at, used; s.Submit(r).Permitted {
			return at
		}
	}
	return time.Time{}
}

// countsOf is how far back conditions look at what was used.
func countsOf(tree *ast.Policy) (back time.Duration) {
	windows := map[types.String]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}
	isUsed := func(n ast.IsNode) bool {
		access, ok := n.(ast.NodeTypeAccess)
		if !ok || access.Value != "used" {
			return false
		}
		v, ok := access.Arg.(ast.NodeTypeVariable)
		return ok && v.Name == "context"
	}
	for _, c := range tree.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeTypeAccess:
				switch v, ok := n.Arg.(ast.NodeTypeVariable); {
				case isUsed(n.Arg):
					back = max(back, windows[n.Value])
					return false
				case ok && v.Name == "context" && n.Value != "used":
					return false
				}
			case ast.NodeTypeVariable:
				if n.Name == "context" { // all of it, or all that was used
					back = windows["day"]
				}
			}
			return true
		})
	}
	return back
}

// usedRecord is what policies see of what was used.
func usedRecord(u budget.Used) types.Record {
	if u == (budget.Used{}) {
		return nothingUsed
	}
	window := func(a budget.Amount) types.Record {
		return types.NewRecord(types.RecordMap{
			"scripts": types.Long(a.Scripts), "fuel": types.Long(a.Fuel), "bytes": types.Long(a.Bytes),
		})
	}
	return types.NewRecord(types.RecordMap{"minute": window(u.Minute), "hour": window(u.Hour), "day": window(u.Day)})
}

// nothingUsed is made once: it is what nearly all see.
var nothingUsed = func() types.Record {
	nothing := types.NewRecord(types.RecordMap{"scripts": types.Long(0), "fuel": types.Long(0), "bytes": types.Long(0)})
	return types.NewRecord(types.RecordMap{"minute": nothing, "hour": nothing, "day": nothing})
}()
