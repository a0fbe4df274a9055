package abi

import "github.com/tetratelabs/wazero/api"

// Layout is what the tests hold against the specification.
func Layout(t *Type) (size, align uint32, flat []api.ValueType) { return t.size, t.align, t.flat }
