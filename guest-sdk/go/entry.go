package circles

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
)

// Handle runs handler as an entry: it is the whole body of an exported function.
//
//	//go:wasmexport sign
//	func sign(ptr, n uint32) uint32 { return circles.Handle(ptr, n, signBook) }
//
// Params and result are bytes whose meaning is the module's own. An error fails
// the script with its message, a panic with its value; the stack of a panic goes
// to stderr, and so to the receipt's log. Either way nothing that the script wrote
// remains.
//
// The result must not be changed after handler returned it.
func Handle(ptr, n uint32, handler func(params []byte) ([]byte, error)) uint32 {
	params := liftParams(ptr, n)
	defer dropHandles()
	result, err := recovering(params, handler)
	if err != nil {
		return lowerError(err.Error())
	}
	return lowerResult(result)
}

// HandleJSON is Handle for params and results that are JSON. No params at all
// count as {}. Params that are not an In, have members that In does not have, or
// are followed by something else fail the script and say so.
func HandleJSON[In, Out any](ptr, n uint32, handler func(In) (Out, error)) uint32 {
	return Handle(ptr, n, func(params []byte) ([]byte, error) {
		var in In
		if err := unmarshal(params, &in); err != nil {
			return nil, err
		}
		out, err := handler(in)
		if err != nil {
			return nil, err
		}
		result, err := json.Marshal(out)
		if err != nil {
			return nil, fmt.Errorf("encode result: %w", err)
		}
		return result, nil
	})
}

func unmarshal(params []byte, in any) error {
	if len(bytes.TrimSpace(params)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(params))
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil {
		return fmt.Errorf("params: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("params: more than one JSON value")
	}
	return nil
}

func recovering(params []byte, handler func([]byte) ([]byte, error)) (result []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			os.Stderr.Write(debug.Stack())
			result, err = nil, fmt.Errorf("panic: %v", v)
		}
	}()
	return handler(params)
}
