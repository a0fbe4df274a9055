package policy

import (
	"fmt"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/script"
)

// behalf is what binds a script that another sent on its caller's behalf, beside
// what the policies permit the caller: what each delegation of the chain allows,
// and what the policies forbid to any of those whom it came by. Who is forbidden
// something does not come in by another's door; a permit of their own nobody on
// the way needs, and none widens what the caller may do. nil binds nothing.
type behalf struct {
	chain []envelope.Link
	via   []*question // what the policies say of each of Parties.Via
}

func (s *Set) behalf(r Request) *behalf {
	if len(r.Chain) == 0 {
		return nil
	}
	b := &behalf{chain: r.Chain}
	for _, p := range r.Parties.Via {
		b.via = append(b.via, s.asked(r, p, false))
	}
	return b
}

// narrow is v, or if that permits what is forbidden to one whom the script came
// by, the verdict about that one. A policy that fails for that one may be such a
// forbid.
func (b *behalf) narrow(v Verdict, action script.Action, resource types.EntityUID) Verdict {
	if b == nil || !v.Permitted {
		return v
	}
	for _, q := range b.via {
		if of := q.ask(action, resource); !of.Permitted && (len(of.Policies) > 0 || of.Problem != nil || of.Unread != nil) {
			return of
		}
	}
	return v
}

// allow says which delegation does not let the script do action on path; "" if all
// do.
func (b *behalf) allow(action script.Action, path string) string {
	if b == nil || action == Call { // a delegation is about what is touched in the end
		return ""
	}
	for i := range b.chain {
		if l := &b.chain[i]; !l.Allow(action, path) {
			return fmt.Sprintf("delegation %s, by which it was sent, does not allow it", l.ID.Short())
		}
	}
	return ""
}

// run says which delegation does not let the code of r be run; "" if all do.
func (b *behalf) run(r Request) string {
	if b == nil {
		return ""
	}
	for i := range b.chain {
		if l := &b.chain[i]; !l.Runs(r.Code.Name, r.Code.Digest, r.Entry) {
			return fmt.Sprintf("%s may not run %s in the context of %s: entries: delegation %s does not let it be run",
				r.sender(), r.what(), label(r.Parties.Target), l.ID.Short())
		}
	}
	return ""
}

// sender is how a message calls who sent the script.
func (r Request) sender() string {
	if n := len(r.Parties.Via); n > 0 {
		return fmt.Sprintf("%s, on behalf of %s,", label(r.Parties.Via[n-1]), label(r.Parties.Caller))
	}
	return label(r.Parties.Caller)
}

// delegation is what policies can see of a chain.
func (r Request) delegation() types.Record {
	ids := make([]types.Value, len(r.Chain))
	for i, l := range r.Chain {
		ids[i] = types.String(digestText(l.ID))
	}
	return types.NewRecord(types.RecordMap{
		"signer": peerUID(r.Chain[len(r.Chain)-1].To),
		"links":  types.Long(len(r.Chain)),
		"ids":    types.NewSet(ids...),
	})
}
