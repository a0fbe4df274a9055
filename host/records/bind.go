package records

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/circles-host/circles/host/schema"
	"github.com/circles-host/circles/host/script"
	"github.com/circles-host/circles/host/store"
)

// bound is the directory of the schemas that collections are bound to, in the
// private file system: schemas/bookings.json is what is in force of the owner's
// file of that name.
const bound = "schemas"

// Schemas says what a collection is bound to; nil if to nothing.
type Schemas interface {
	Of(collection string) *schema.Schema
}

func boundFile(collection string) string { return bound + "/" + collection + schema.Suffix }

// ViolationError is the error of a value that is not as its collection's schema has
// it.
type ViolationError struct{ *schema.Violations }

func (e *ViolationError) Unwrap() error { return e.Violations }

// check holds a value against the collection's schema, if it has one.
func (t *Tx) check(ctx context.Context, collection string, value []byte) error {
	if t.schemas == nil {
		return nil
	}
	s := t.schemas.Of(collection)
	if s == nil {
		return nil
	}
	_, err := s.Check(ctx, value)
	var violations *schema.Violations
	if errors.As(err, &violations) {
		return &ViolationError{violations}
	}
	return err
}

// Bound returns the schema that a collection of a context is bound to, nil if there
// is none. It is like if that has the same text, which is faster than reading it.
func Bound(private store.FS, collection string, like *schema.Schema) (*schema.Schema, error) {
	t := In(private, Config{ReadOnly: true})
	text, _, err := t.read(boundFile(collection), 1<<20)
	if errors.Is(err, store.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if like != nil && like.Text() == text {
		return like, nil
	}
	s, err := schema.Parse(collection+schema.Suffix, text)
	if err != nil {
		return nil, damaged(boundFile(collection), err)
	}
	return s, nil
}

// BoundCollections are the collections of a context that are bound to a schema.
func BoundCollections(private store.FS) ([]string, error) {
	files, err := In(private, Config{ReadOnly: true}).names(bound)
	var names []string
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name, schema.Suffix); ok && f.Kind == store.KindFile && script.CheckCollection(name) == nil {
			names = append(names, name)
		}
	}
	return names, err
}

// Violating is a record that is not as a schema has it.
type Violating struct {
	Key string
	*schema.Violations
}

// Checked is what a collection was found to be, held against a schema.
type Checked struct {
	Records   int
	Violating int         // of them
	First     []Violating // the first maxShown of those
}

// maxShown is how many records Checked names.
const maxShown = 20

// StoredError is the error of a schema that records violate which are there.
type StoredError struct {
	Collection string
	Checked
}

func (e *StoredError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d records of %s are not as the new schema has them, so that the old one stays in force: change them "+
		"(circles-host schema migrate), or say \"x-circles-stored\": \"as-is\" in the schema to let them be", e.Violating, e.Records, e.Collection)
	for i, r := range e.First {
		if i == 3 {
			fmt.Fprintf(&b, "\n  and %d more", e.Violating-i)
			break
		}
		fmt.Fprintf(&b, "\n  %s%s", shown(r.Key), r.List[0])
	}
	return b.String()
}

// Check holds all records of a collection against a schema.
func (t *Tx) Check(ctx context.Context, collection string, s *schema.Schema) (Checked, error) {
	var c Checked
	err := t.each(ctx, collection, func(key string, value []byte) error {
		c.Records++
		_, err := s.Check(ctx, value)
		var violations *schema.Violations
		if !errors.As(err, &violations) {
			return err
		}
		if c.Violating++; len(c.First) < maxShown {
			c.First = append(c.First, Violating{strings.Clone(key), violations})
		}
		return nil
	})
	return c, err
}

// each calls f with every record of a collection, in order. The key is f's as long
// as it runs.
func (t *Tx) each(ctx context.Context, collection string, f func(key string, value []byte) error) error {
	if err := script.CheckCollection(collection); err != nil {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	c, err := t.collection(ctx, collection)
	if err != nil {
		return err
	}
	for _, p := range c.pages {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := t.load(p); err != nil {
			return err
		}
		for i, e := range p.entries {
			value, err := e.value()
			if err != nil {
				return p.damage(i, err)
			}
			if err := f(e.key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// Bind binds a collection to a schema, if the records that are there are as it has
// them, or it says that they may stay; else nothing is changed, and the error is a
// *StoredError.
func (t *Tx) Bind(ctx context.Context, collection string, s *schema.Schema) (Checked, error) {
	c, err := t.Check(ctx, collection, s)
	if err != nil {
		return c, fmt.Errorf("check the records of %s: %w", collection, err)
	}
	if c.Violating > 0 && !s.KeepsStored() {
		return c, &StoredError{collection, c}
	}
	if _, err := t.Reindex(ctx, collection, s.Indexes()); err != nil {
		return c, fmt.Errorf("make the indexes of %s: %w", collection, err)
	}
	if err := t.fs.Mkdir(bound); err != nil && !errors.Is(err, store.ErrExists) {
		return c, err
	}
	return c, t.overwrite(boundFile(collection), s.Text())
}

// Unbind lets a collection take any values again, and does away with its indexes.
func (t *Tx) Unbind(ctx context.Context, collection string) error {
	if _, err := t.Reindex(ctx, collection, nil); err != nil {
		return err
	}
	err := t.fs.Unlink(boundFile(collection))
	if errors.Is(err, store.ErrNotExist) {
		return nil
	}
	return err
}

// overwrite writes a file that is made from others, whatever is there.
func (t *Tx) overwrite(path, text string) error {
	f, err := t.fs.Open(path, store.FlagWrite|store.FlagCreate|store.FlagTruncate)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(text), 0)
	return errors.Join(err, f.Close())
}

// Under binds collections to other schemas than they were until now in the
// transaction.
func (t *Tx) Under(s Schemas) { t.schemas = s }

// Keys are the keys of a collection, in order.
func (t *Tx) Keys(ctx context.Context, collection string) ([]string, error) {
	var keys []string
	err := t.each(ctx, collection, func(key string, _ []byte) error {
		if len(keys) == maxIndexed {
			return fmt.Errorf("more than %d records are not migrated at once: %w", maxIndexed, store.ErrQuota)
		}
		keys = append(keys, strings.Clone(key))
		return nil
	})
	return keys, err
}
