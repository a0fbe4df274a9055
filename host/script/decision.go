package script

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/circles-host/circles/host/script/scriptpb"
)

// OfOwner reports whether l is something that the owner alone may ask for, whatever
// policies say, and no code: to undo a script, to decide about one, or, of the owner of
// a delegation, to take that back.
func (l Logic) OfOwner() bool {
	return l.Undo != (ID{}) || l.Decide != (Decision{}) || len(l.Revoke) > 0
}

func (d Decision) check() error {
	if d.Ruling != Reject && d.Reason != "" {
		return errors.New("decision: only who rejects gives a reason")
	}
	if d.Ruling != Approve && (d.OtherChanges || d.OtherAnswer) {
		return errors.New("decision: only who approves says what may be different")
	}
	switch d.Ruling {
	case Approve, Reject:
		if d.Script == (ID{}) {
			return errors.New("decision: say about which script")
		}
	case Expire:
		if d.Script != (ID{}) {
			return errors.New("decision: what expires is not named")
		}
	default:
		return errors.New("decision: approve, reject or expire")
	}
	// It goes to a stranger's terminal.
	if len(d.Reason) > MaxReason || !utf8.ValidString(d.Reason) || strings.IndexFunc(d.Reason, unicode.IsControl) >= 0 {
		return fmt.Errorf("decision: a reason is one line of text, of at most %d bytes", MaxReason)
	}
	return nil
}

func (d Decision) message() *scriptpb.Decision {
	return &scriptpb.Decision{
		Ruling: scriptpb.Ruling(d.Ruling), Script: d.Script.bytes(), Reason: d.Reason,
		OtherChanges: d.OtherChanges, OtherAnswer: d.OtherAnswer,
	}
}

func (d *Decision) set(m *scriptpb.Decision) error {
	if m.GetRuling() < 0 || m.GetRuling() > scriptpb.Ruling(Expire) {
		return fmt.Errorf("there is no ruling %d", m.GetRuling())
	}
	*d = Decision{Ruling: Ruling(m.GetRuling()), Reason: m.GetReason(), OtherChanges: m.GetOtherChanges(), OtherAnswer: m.GetOtherAnswer()}
	if len(m.GetScript()) > 0 {
		return d.Script.set(m.GetScript())
	}
	return nil
}
