package circles

import "iter"

// Collection is the records of one name in a context: values by key, in the order
// of the bytes of their keys. It may be kept as a Context may.
//
// The name is in kebab case and has at most 64 bytes; a key is any text of 1 to
// 1,024 bytes without control characters; a value has at most 1 MiB. A collection
// is there as long as there are records in it. Values that are JSON are kept as
// such, for the context's owner to read.
//
// A script is one transaction: what it gets nobody changes before it puts.
type Collection struct {
	context *Context
	name    string
}

// Collection is the records of that name.
func (c *Context) Collection(name string) Collection { return Collection{c, name} }

// Get returns a record's value.
func (c Collection) Get(key string) ([]byte, error) {
	b, err := hostGetRecord(c.context.party, c.name, key)
	return b, failed("get", c.name+"/"+key, err)
}

// Put makes a record, or replaces its value.
func (c Collection) Put(key string, value []byte) error {
	return failed("put", c.name+"/"+key, hostPutRecord(c.context.party, c.name, key, value))
}

// Replace is Put if the record's value is expected, and for nil if there is no such
// record. Else its error has the code Conflict, and nothing changes. It is for what a
// caller read in an earlier script: within one, Get and then Put is the same.
func (c Collection) Replace(key string, expected, value []byte) error {
	return failed("replace", c.name+"/"+key, hostReplaceRecord(c.context.party, c.name, key, expected, value))
}

// Delete removes a record. One that is not there is fs.ErrNotExist.
func (c Collection) Delete(key string) error {
	return failed("delete", c.name+"/"+key, hostDeleteRecord(c.context.party, c.name, key))
}

// Record is one record of a collection. Denied says that the policy lets the
// script see that there is this record, and not what is in it.
type Record struct {
	Key    string
	Value  []byte
	Denied bool
}

// Page returns records whose keys begin with prefix and are not less than start;
// both may be empty. There are at most limit of them, or, with 0, as many as the
// host gives at once. next is the key to go on from, as start; "" at the end.
func (c Collection) Page(start, prefix string, limit uint32) (records []Record, next string, err error) {
	records, next, failure := hostListRecords(c.context.party, c.name, start, prefix, limit)
	return records, next, failed("list", c.name, failure)
}

// All yields the records whose keys begin with prefix, a page at a time: what is
// put or deleted meanwhile may be among them, or not. It ends with an error, if
// there is one.
func (c Collection) All(prefix string) iter.Seq2[Record, error] {
	return pages(func(start string) ([]Record, string, error) { return c.Page(start, prefix, 0) })
}

// pages yields the records of one page after the other.
func pages(page func(start string) ([]Record, string, error)) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for start := ""; ; {
			records, next, err := page(start)
			if err != nil {
				yield(Record{}, err)
				return
			}
			for _, r := range records {
				if !yield(r, nil) {
					return
				}
			}
			if start = next; start == "" {
				return
			}
		}
	}
}
