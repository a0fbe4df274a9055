package policy

import (
	"errors"
	"strings"

	"github.com/circles-host/circles/host/script"
)

// Call is the action of having another module of the context run: Module::"audit",
// with context.module the one that calls.
const Call script.Action = "call"

// maxModule is how long the name of a module in a layer may be; see package module.
const maxModule = 63

// checkModule says what is wrong with name as that of a module which can be called,
// or "".
func checkModule(name string) string {
	if len(name) < 1 || len(name) > maxModule || name[0] == '-' || name[len(name)-1] == '-' ||
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return `not a module's name, which is 1 to 63 of a-z, 0-9 and "-"`
	}
	return ""
}

// isAsked reports whether it is an action that a script asks for by what it is done to.
func isAsked(a script.Action) bool {
	_, err := parseAction(string(a))
	return err == nil
}

func parseAction(s string) (script.Action, error) {
	if s == string(Call) {
		return Call, nil
	}
	return script.ParseAction(s)
}

// Called are the grants of other code that runs for the script, with those params: by
// the same policies as the script's own, on behalf of the same caller. What calls it
// has by; it has no more than that. With nil it has what the policies say: the owner of
// the context has put it there, and nobody called it.
func (a *Accepted) Called(code Code, entry string, params []byte, by *Grants) *Grants {
	r := a.grants.question.request
	r.Code, r.Entry, r.Params, r.Args, r.Asked = code, entry, len(params), params, ""
	g := a.grants.question.set.Grants(r)
	g.called = by
	return g
}

// Module is the name of the code whose grants they are; "" if it has none.
func (g *Grants) Module() string {
	if g == nil || g.question == nil {
		return ""
	}
	return g.question.request.Code.Name
}

// byCaller is a denial to code that called the one that asks.
func byCaller(err error) error {
	var denied *DeniedError
	if errors.As(err, &denied) {
		denied.By = true // its own copy: see Grants.Allow
	}
	return err
}
