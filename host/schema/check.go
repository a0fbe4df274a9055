package schema

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxWork bounds one check, in steps of some 30 ns: a third of a second. A
	// megabyte of bookings takes 300,000. Alternatives of alternatives, which are
	// short to write, would take for ever.
	maxWork = 10 << 20
	// maxNested bounds how deep rules are in each other, by the value and in place.
	maxNested = 10_000
	// maxViolations are told of a value; the others are counted.
	maxViolations = 20
)

// Violations is what is wrong with a value. Its text has one line for each, at most
// 20 and "and N more": "/seats: is a string, and must be an integer". What is wrong
// with the value as a whole begins with the colon: its pointer is empty.
type Violations struct {
	List []Violation
	More int // that are not in the list
}

// Violation is one thing that is wrong.
type Violation struct {
	Pointer string // JSON Pointer, as far as it can be shown; "" is the value
	Reason  string // "is a string, and must be an integer"
}

func (v Violation) String() string { return v.Pointer + ": " + v.Reason }

func (v *Violations) Error() string {
	lines := make([]string, 0, len(v.List)+1)
	for _, one := range v.List {
		lines = append(lines, one.String())
	}
	if v.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", v.More))
	}
	return strings.Join(lines, "\n")
}

// Check reads a record's value, and says what of it is not as the schema has it,
// as *Violations. Another error is that of ctx.
func (s *Schema) Check(ctx context.Context, value []byte) (*Value, error) {
	v, err := ReadJSON(string(value))
	if err != nil {
		return nil, &Violations{List: []Violation{{Reason: err.Error()}}}
	}
	if err := s.CheckValue(ctx, &v); err != nil {
		return nil, err
	}
	return &v, nil
}

// CheckValue is Check for a value that was read before.
func (s *Schema) CheckValue(ctx context.Context, v *Value) error {
	e := evaluation{ctx: ctx, most: s.work}
	e.rule(s.root, v, nil, true)
	if s.indexes != nil && e.stopped == nil {
		e.indexed(s.indexes, v)
	}
	switch {
	case e.stopped != nil:
		if errors.Is(e.stopped, errWork) {
			return &Violations{List: []Violation{{Pointer: e.pointer(), Reason: e.stopped.Error()}}}
		}
		return e.stopped
	case len(e.out.List) > 0:
		return &e.out
	}
	return nil
}

var errWork = errors.New("checking it against the schema takes too long; make the value smaller, or have the owner make the schema simpler")

// evaluation is one value being checked.
type evaluation struct {
	ctx     context.Context
	out     Violations
	work    int
	most    int
	nested  int
	looked  int // work, when ctx was last looked at
	stopped error
	path    []step
}

type step struct {
	name  string
	index int // if name is ""
	item  bool
}

func (e *evaluation) pointer() string {
	var b strings.Builder
	for _, s := range e.path {
		if b.Len() > 160 {
			b.WriteString("/…")
			break
		}
		b.WriteByte('/')
		if s.item {
			b.WriteString(strconv.Itoa(s.index))
		} else {
			b.WriteString(shorten(join("", s.name)[1:]))
		}
	}
	return b.String()
}

// spend counts work, and reports whether there may be more.
func (e *evaluation) spend(n int) bool {
	e.work += n
	if e.stopped != nil {
		return false
	}
	if e.work > e.most {
		e.stopped = errWork
		return false
	}
	if e.work-e.looked > 1<<14 {
		e.looked = e.work
		if e.ctx.Err() != nil {
			e.stopped = context.Cause(e.ctx)
			return false
		}
	}
	return true
}

func (e *evaluation) say(report bool, format string, args ...any) bool {
	if !report {
		return false
	}
	if len(e.out.List) >= maxViolations {
		e.out.More++
		return false
	}
	reason := fmt.Sprintf(format, args...)
	if len(reason) > 300 {
		reason = strings.ToValidUTF8(reason[:300], "") + "…"
	}
	e.out.List = append(e.out.List, Violation{e.pointer(), reason})
	return false
}

// at evaluates a rule on a member or an item.
func (e *evaluation) at(s step, r *rule, v *Value, report bool) bool {
	e.path = append(e.path, s)
	ok := e.rule(r, v, nil, report)
	if e.stopped == nil { // else it is where it happened
		e.path = e.path[:len(e.path)-1]
	}
	return ok
}

// seen are the members or items of a value that a rule has evaluated: what
// unevaluatedProperties and unevaluatedItems leave.
type seen struct{ bits []uint64 }

func (s *seen) add(i int) {
	if s == nil {
		return
	}
	for len(s.bits) <= i/64 {
		s.bits = append(s.bits, 0)
	}
	s.bits[i/64] |= 1 << (i % 64)
}

func (s *seen) has(i int) bool { return i/64 < len(s.bits) && s.bits[i/64]&(1<<(i%64)) != 0 }

func (s *seen) merge(of *seen) {
	for len(s.bits) < len(of.bits) {
		s.bits = append(s.bits, 0)
	}
	for i, b := range of.bits {
		s.bits[i] |= b
	}
}

// rule reports whether v is as r has it, and with report says what is not. What it
// evaluated goes to outer, if that is wanted.
func (e *evaluation) rule(r *rule, v *Value, outer *seen, report bool) bool {
	if r.always {
		return true
	}
	if !e.spend(1) {
		return false
	}
	if r.never {
		return e.say(report, "is not allowed here")
	}
	if e.nested++; e.nested > maxNested {
		e.stopped = errWork
		return false
	}
	defer func() { e.nested-- }()

	if r.types != 0 && (r.types&v.kind == 0 || r.whole && v.kind == number && !decimalOf(v.text).integer()) {
		return e.say(report, "is %s, and must be %s", v.article(), r.typesText())
	}
	var mine *seen
	if (outer != nil || r.restMembers != nil || r.restItems != nil) && v.kind&(array|object) != 0 {
		mine = &seen{}
	}
	ok := e.listed(r, v, report)
	quick := func() bool { return !ok && !report || e.stopped != nil }
	if quick() {
		return false
	}
	switch v.kind {
	case number:
		ok = e.number(r, v, report) && ok
	case text:
		ok = e.text(r, v, report) && ok
	case array:
		ok = e.array(r, v, mine, report) && ok
	case object:
		ok = e.object(r, v, mine, report) && ok
	}
	if quick() {
		return false
	}
	ok = e.combined(r, v, mine, report) && ok
	if quick() {
		return false
	}
	if r.restMembers != nil && v.kind == object && ok { // what failed has evaluated nothing
		for i := range v.members {
			m := &v.members[i]
			if !mine.has(i) {
				if r.restMembers.never {
					ok = e.unknown(r, m, report)
				} else {
					ok = e.at(step{name: m.name}, r.restMembers, &m.value, report) && ok
				}
				mine.add(i)
			}
			if quick() {
				return false
			}
		}
	}
	if r.restItems != nil && v.kind == array && ok {
		for i := range v.items {
			if !mine.has(i) {
				ok = e.at(step{index: i, item: true}, r.restItems, &v.items[i], report) && ok
				mine.add(i)
			}
			if quick() {
				return false
			}
		}
	}
	if ok && outer != nil && mine != nil {
		e.spend(len(mine.bits))
		outer.merge(mine)
	}
	return ok && e.stopped == nil
}

// unknown says that a property is none of the schema's.
func (e *evaluation) unknown(r *rule, m *member, report bool) bool {
	if !report || !e.spend(10+len(r.order)) {
		return false
	}
	e.path = append(e.path, step{name: m.name})
	e.say(true, "is no property that the schema has%s", meant(m.name, r.order))
	e.path = e.path[:len(e.path)-1]
	return false
}

func (e *evaluation) listed(r *rule, v *Value, report bool) bool {
	if r.enum == nil && r.only == nil {
		return true
	}
	is := v.canonicalText()
	if !e.spend(1 + len(is)/8) {
		return false
	}
	ok := true
	if r.enum != nil {
		if _, in := slices.BinarySearch(r.enum, is); !in {
			ok = e.say(report, "is %s, and must be one of %s", v.short(), r.named)
		}
	}
	if r.only != nil && *r.only != is {
		ok = e.say(report, "is %s, and must be %s", v.short(), r.onlyNamed)
	}
	return ok
}

func (e *evaluation) number(r *rule, v *Value, report bool) bool {
	if r.least == nil && r.most == nil && r.above == nil && r.below == nil && r.multiple == nil {
		return true
	}
	d, ok := decimalOf(v.text), true
	e.spend(1 + len(v.text)/8)
	for _, b := range []struct {
		than *decimal
		ok   func(int) bool
		must string
	}{
		{r.least, func(c int) bool { return c >= 0 }, "at least"}, {r.most, func(c int) bool { return c <= 0 }, "at most"},
		{r.above, func(c int) bool { return c > 0 }, "above"}, {r.below, func(c int) bool { return c < 0 }, "below"},
	} {
		if b.than != nil && !b.ok(d.compare(*b.than)) {
			ok = e.say(report, "is %s, and must be %s %s", shorten(v.text), b.must, b.than.plain())
		}
	}
	if r.multiple != nil && e.spend(100) && !d.multipleOf(*r.multiple) {
		ok = e.say(report, "is %s, and must be a multiple of %s", shorten(v.text), r.multiple.plain())
	}
	return ok
}

// multipleOf is exact. Digits and exponents are bounded, since the numbers were read.
func (d decimal) multipleOf(of decimal) bool {
	a, _ := new(big.Int).SetString("0"+d.digits, 10)
	b, _ := new(big.Int).SetString("0"+of.digits, 10)
	ten := func(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }
	if n := d.exponent - of.exponent; n > 0 {
		a.Mul(a, ten(n))
	} else {
		b.Mul(b, ten(-n))
	}
	return b.Sign() > 0 && new(big.Int).Rem(a, b).Sign() == 0
}

// plain is a number for people.
func (d decimal) plain() string {
	sign := ""
	if d.negative {
		sign = "-"
	}
	switch {
	case d.digits == "":
		return "0"
	case d.exponent >= 0 && d.exponent+len(d.digits) <= 21:
		return sign + d.digits + strings.Repeat("0", d.exponent)
	case d.exponent < 0 && d.exponent > -21:
		s := strings.Repeat("0", max(0, 1-d.exponent-len(d.digits))) + d.digits
		return sign + s[:len(s)+d.exponent] + "." + s[len(s)+d.exponent:]
	}
	return shorten(d.String())
}

func (e *evaluation) text(r *rule, v *Value, report bool) bool {
	ok := true
	if r.shortest > 0 || r.longest >= 0 {
		n := utf8.RuneCountInString(v.text)
		e.spend(n / 64)
		if n < r.shortest {
			ok = e.say(report, "has %d characters, and must have at least %d", n, r.shortest)
		}
		if r.longest >= 0 && n > r.longest {
			ok = e.say(report, "has %d characters, and must have at most %d", n, r.longest)
		}
	}
	if r.pattern != nil && e.spend(r.pattern.cost(v.text)) && !r.pattern.MatchString(v.text) {
		ok = e.say(report, "is %s, and must match the pattern %s", v.short(), shorten(r.pattern.String()))
	}
	if r.format != nil && e.spend(len(v.text)/8) && r.format.Validate(v.text) != nil {
		ok = e.say(report, "is %s, and must be a valid %s", v.short(), r.format.Name)
	}
	return ok
}

// cost is what matching takes: RE2's is the product.
func (p *pattern) cost(s string) int { return 1 + len(s)*p.size/4 }

func (e *evaluation) array(r *rule, v *Value, mine *seen, report bool) bool {
	ok, n := true, len(v.items)
	if n < r.fewestItems {
		ok = e.say(report, "has %d items, and must have at least %d", n, r.fewestItems)
	}
	if r.mostItems >= 0 && n > r.mostItems {
		ok = e.say(report, "has %d items, and must have at most %d", n, r.mostItems)
	}
	if r.unique && n > 1 {
		was := make(map[string]int, n)
		for i := range v.items {
			is := v.items[i].canonicalText()
			if !e.spend(4 + len(is)/8) {
				return false
			}
			if j, twice := was[is]; twice {
				ok = e.say(report, "has equal items, %d and %d, and must have each once", j, i)
				break
			}
			was[is] = i
		}
	}
	for i := range v.items {
		item := &v.items[i]
		of := r.items
		if i < len(r.prefix) {
			of = r.prefix[i]
		}
		if of != nil {
			ok = e.at(step{index: i, item: true}, of, item, report) && ok
			mine.add(i)
		}
		if !ok && !report || e.stopped != nil {
			return false
		}
	}
	if r.contains != nil {
		that := 0
		for i := range v.items {
			if e.at(step{index: i, item: true}, r.contains, &v.items[i], false) {
				that++
				mine.add(i)
			}
			if e.stopped != nil {
				return false
			}
		}
		if that < r.fewestThat {
			ok = e.say(report, "has %d items of the kind that it must contain, and must have at least %d", that, r.fewestThat)
		}
		if r.mostThat >= 0 && that > r.mostThat {
			ok = e.say(report, "has %d items of the kind that it must contain, and must have at most %d", that, r.mostThat)
		}
	}
	return ok
}

func (e *evaluation) object(r *rule, v *Value, mine *seen, report bool) bool {
	ok, n := true, len(v.members)
	if n < r.fewest {
		ok = e.say(report, "has %d properties, and must have at least %d", n, r.fewest)
	}
	if r.mostMembers >= 0 && n > r.mostMembers {
		ok = e.say(report, "has %d properties, and must have at most %d", n, r.mostMembers)
	}
	has := v.member
	if n > 16 && len(r.required)+len(r.needs) > 4 {
		by := make(map[string]*Value, n)
		for i := range v.members {
			by[v.members[i].name] = &v.members[i].value
		}
		e.spend(n)
		has = func(name string) *Value { return by[name] }
	} else {
		e.spend(n * (len(r.required) + len(r.needs)) / 16)
	}
	missing := func(names []string, because string) {
		for _, name := range names {
			if has(name) == nil && e.spend(1) {
				e.path = append(e.path, step{name: name})
				ok = e.say(report, "is missing%s", because)
				e.path = e.path[:len(e.path)-1]
			}
		}
	}
	missing(r.required, "")
	for _, need := range r.needs {
		if need.required != nil && has(need.name) != nil {
			missing(need.required, ", and must be there with "+quote(need.name))
		}
	}
	if !ok && !report {
		return false
	}
	for i := range v.members {
		m := &v.members[i]
		evaluated := false
		each := func(of *rule) {
			evaluated = true
			ok = e.at(step{name: m.name}, of, &m.value, report) && ok
		}
		if of := r.properties[m.name]; of != nil {
			each(of)
		}
		for _, p := range r.patterns {
			if e.spend(p.cost(m.name)) && p.MatchString(m.name) {
				each(p.rule)
			}
		}
		if !evaluated && r.additional != nil {
			if evaluated = true; r.additional.never {
				ok = e.unknown(r, m, report)
			} else {
				each(r.additional)
			}
		}
		if r.names != nil && e.stopped == nil && !e.rule(r.names, &Value{kind: text, text: m.name}, nil, false) {
			ok = e.say(report, "has a property %s, and the schema does not allow that name", quote(m.name))
		}
		if evaluated {
			mine.add(i)
		}
		if !ok && !report || e.stopped != nil {
			return false
		}
	}
	return ok
}

// combined evaluates what applies to the same value. What a part of it evaluated
// counts if the part holds.
func (e *evaluation) combined(r *rule, v *Value, mine *seen, report bool) bool {
	ok := true
	if r.ref != nil {
		ok = e.rule(r.ref, v, mine, report)
	}
	for _, s := range r.allOf {
		if !ok && !report || e.stopped != nil {
			return false
		}
		ok = e.rule(s, v, mine, report) && ok
	}
	if r.anyOf != nil {
		any := false
		for _, s := range r.anyOf {
			if any = e.rule(s, v, mine, false) || any; any && mine == nil || e.stopped != nil {
				break
			}
		}
		if !any {
			ok = e.none("anyOf", r.anyOf, v, report)
		}
	}
	if r.oneOf != nil {
		which := -1
		for i, s := range r.oneOf {
			if !e.rule(s, v, mine, false) {
				if e.stopped != nil {
					return false
				}
				continue
			}
			if which >= 0 {
				ok = e.say(report, "is as alternatives %d and %d have it (oneOf), and must be as one of them only", which+1, i+1)
				break
			}
			which = i
		}
		if which < 0 {
			ok = e.none("oneOf", r.oneOf, v, report)
		}
	}
	if r.not != nil && e.rule(r.not, v, nil, false) {
		ok = e.say(report, "is what the schema excludes (not)")
	}
	if r.when != nil && e.stopped == nil {
		if branch := r.then; e.rule(r.when, v, mine, false) {
			if branch != nil {
				ok = e.rule(branch, v, mine, report) && ok
			}
		} else if r.otherwise != nil {
			ok = e.rule(r.otherwise, v, mine, report) && ok
		}
	}
	for _, need := range r.needs {
		if need.schema != nil && v.kind == object && v.member(need.name) != nil && e.stopped == nil {
			ok = e.rule(need.schema, v, mine, report) && ok
		}
	}
	return ok && e.stopped == nil
}

// none says that no alternative holds, and where only one can be meant, by the type
// of the value, what is wrong with that.
func (e *evaluation) none(keyword string, of []*rule, v *Value, report bool) bool {
	if !report || e.stopped != nil {
		return false
	}
	var meant *rule
	for _, s := range of {
		for s.ref != nil && s.types == 0 {
			s = s.ref
		}
		if s.types&v.kind != 0 || s.types == 0 && !s.never {
			if meant != nil {
				return e.say(true, "is as none of the %d alternatives has it (%s)", len(of), keyword)
			}
			meant = s
		}
	}
	if meant != nil && len(of) > 1 || len(of) == 1 {
		if was := len(e.out.List) + e.out.More; meant != nil && !e.rule(meant, v, nil, true) && len(e.out.List)+e.out.More > was {
			return false
		}
	}
	return e.say(true, "is as none of the %d alternatives has it (%s)", len(of), keyword)
}

// article is what a value is, in a sentence.
func (v *Value) article() string {
	switch v.kind {
	case null:
		return "null"
	case boolean:
		return strconv.FormatBool(v.truth)
	case number:
		return "the number " + shorten(v.text)
	case text:
		return "a string"
	}
	return "an " + kindNames[v.kind]
}

func (r *rule) typesText() string {
	var all []string
	for k := null; k <= object; k <<= 1 {
		if r.types&k == 0 {
			continue
		}
		switch name := kindNames[k]; {
		case k == null:
			all = append(all, name)
		case k == number && r.whole:
			all = append(all, "an integer")
		case k == array || k == object:
			all = append(all, "an "+name)
		default:
			all = append(all, "a "+name)
		}
	}
	return strings.Join(all, " or ")
}

// indexed refuses strings that an index cannot hold in full: records would be found
// in another order than that of their values.
func (e *evaluation) indexed(all []Index, v *Value) {
	var told []Pointer
	for _, x := range all {
		for _, p := range x.Fields {
			if f := p.In(v); f != nil && f.kind == text && len(f.text) > MaxIndexed && !slices.Contains(told, p) {
				told = append(told, p)
				e.out.List = append(e.out.List, Violation{shorten(p.text), fmt.Sprintf("has %d bytes, and a string that is indexed has at most %d", len(f.text), MaxIndexed)})
			}
		}
	}
}

// MaxIndexed is the size in bytes of the longest string that an index holds.
const MaxIndexed = 512
