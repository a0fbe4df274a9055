package host

import (
	"errors"
	"strings"

	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
)

// Command is how messages name the program whose commands they suggest.
const Command = "circles-host"

// allow is the command by which the target's owner would allow a script that was
// refused: what it wants to run, with what the module says it needs. It is a
// suggestion made of a stranger's words, so every word is quoted for a shell.
//
// Without found it repeats what the script itself names, whether it is there or
// not.
func (h *Host) allow(refused *policy.RefusedError, asked script.Logic, found *module.Found) string {
	name, digest := asked.Name, asked.Digest
	if found != nil {
		p := refused.Permit()
		name, digest = p.Module, p.Digest
	}
	if name == "" && digest == (script.Digest{}) {
		return "" // there is nothing that a policy could name
	}
	words := allowWords(refused.Request.Parties, policy.Code{Name: name, Digest: digest, Text: refused.Request.Code.Text, Language: refused.Request.Code.Language})
	if found != nil && found.Manifest != nil {
		for _, need := range found.Manifest.Needs {
			if script.Action(need.Action) != script.Send { // to whom is not the module's to say
				words = append(words, "--"+need.Action, need.Path)
			}
		}
	}
	return shell(words)
}

// orPins is what a refusal came of: missing, where nobody knows which module was asked
// for as the owner's pins cannot be read. Policies that permit it by its name or its
// bytes did not find it, and another permit would not help. Strangers are refused.
func orPins(refusal, missing error) error {
	var refused *policy.RefusedError
	if errors.Is(missing, module.ErrPins) && errors.As(refusal, &refused) && refused.Request.Parties.Known() &&
		len(refused.Verdict.Policies) == 0 && refused.Again.IsZero() && refused.Verdict.Unread == nil {
		return missing
	}
	return refusal
}

// allowDenied is the command that would also allow what a script was denied
// while it ran: the script's own module, or another one that ran for it, without
// letting that be sent.
func (h *Host) allowDenied(a *policy.Accepted, w *watched) string {
	words := allowWords(a.Parties(), a.Code())
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, d := range w.denied {
		if d.Path == "" || d.Reason != "" || len(d.Verdict.Policies) > 0 {
			return "" // a policy forbids it, or a delegation leaves it out, and a permit would not help
		}
		if of := d.Module; of != a.Code().Name && i == 0 {
			words = append(allowWords(a.Parties(), policy.Code{Name: of}), "--called")
		} else if i > 0 && of != w.denied[0].Module {
			continue // which a command of its own allows, or policy suggest
		}
		words = append(words, "--"+string(d.Action), d.Path)
	}
	return shell(words)
}

func allowWords(parties peer.Parties, code policy.Code) []string {
	who := func(p peer.Peer) string {
		if p.Name != "" {
			return string(p.Name)
		}
		return string(p.ID)
	}
	words := []string{Command, "policy", "allow", "--to", who(parties.Target), who(parties.Caller)}
	switch {
	case code.Name != "":
		return append(words, code.Name)
	case code.Text: // whose bytes may mean something else in another language
		return append(words, code.Digest.String(), "--lang", code.Language)
	}
	return append(words, code.Digest.String())
}

// shell joins words so that a POSIX shell reads them as they are.
func shell(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		if w != "" && strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@%+=,") == "" {
			quoted[i] = w
			continue
		}
		quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}
