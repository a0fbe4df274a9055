package circles

// Call runs an entry of another module of the context in which this one runs, by the
// module's name; "" is the entry run. It does what it does in the same transaction, in an
// instance of its own, with no more than the policy permits both. If it fails, the
// error has the code Failed and the module's words, and nothing that it wrote remains.
func Call(module, entry string, params []byte) ([]byte, error) {
	b, err := hostCall(module, entry, params)
	return b, failed("call", module, err)
}

// Base runs an entry of what this module stands before: the next of its chain, or the
// module of the same name in the layer below; "" is the entry that this one was entered
// by. If there is nothing below, the error is fs.ErrNotExist.
func Base(entry string, params []byte) ([]byte, error) {
	b, err := hostBase(entry, params)
	return b, failed("call the base,", entry, err)
}

// Entry is the entry that was asked for. A module that has no such entry, and stands in
// a chain, is entered by run.
func Entry() string { return hostEntry() }

// Send sends a script from this context's peer, which is to be the target, to another
// one, and returns its result. to is a did:key or the name that the context's owner gave
// the peer; logic a module's name, or "sha256:" and a digest in hex; "" is the entry run.
// If the script fails, the error has the code Failed and the script's words.
func (c *Context) Send(to, logic, entry string, params []byte) ([]byte, error) {
	b, err := hostSend(c.party, to, logic, entry, params)
	return b, failed("send to", to, err)
}
