//go:build !wasip1

package circles

// There is no host on other platforms: what is here lets guests' own tests and
// editors compile the package, and says clearly what is missing.

func noHost() *Error {
	return &Error{Code: Unavailable, Message: "there is no circles host here; build with GOOS=wasip1 GOARCH=wasm and send it as a script"}
}

func hostID(party) string   { return "" }
func hostName(party) string { return "" }

func hostRead(party, string) ([]byte, *Error)                   { return nil, noHost() }
func hostReadAt(party, string, uint64, uint32) ([]byte, *Error) { return nil, noHost() }
func hostWrite(party, string, []byte) *Error                    { return noHost() }
func hostAppend(party, string, []byte) *Error                   { return noHost() }
func hostMkdir(party, string) *Error                            { return noHost() }
func hostRemove(party, string) *Error                           { return noHost() }
func hostList(party, string) ([]entry, *Error)                  { return nil, noHost() }
func hostStat(party, string) (stat, *Error)                     { return stat{}, noHost() }

func hostGetRecord(party, string, string) ([]byte, *Error) { return nil, noHost() }
func hostPutRecord(party, string, string, []byte) *Error   { return noHost() }
func hostDeleteRecord(party, string, string) *Error        { return noHost() }
func hostListRecords(party, string, string, string, uint32) ([]Record, string, *Error) {
	return nil, "", noHost()
}

func hostReplaceRecord(party, string, string, []byte, []byte) *Error { return noHost() }
func hostQueryRecords(party, string, string, string, uint32) ([]Record, string, *Error) {
	return nil, "", noHost()
}
func hostSend(party, string, string, string, []byte) ([]byte, *Error) { return nil, noHost() }
func hostCall(string, string, []byte) ([]byte, *Error)                { return nil, noHost() }
func hostBase(string, []byte) ([]byte, *Error)                        { return nil, noHost() }
func hostEntry() string                                               { return "" }

// hostLog drops the line: a log line is never an error.
func hostLog(uint32, string) {}

func dropHandles() {}

func liftParams(uint32, uint32) []byte {
	panic("circles: " + noHost().Message + "; call the handler itself in a test")
}

func lowerResult([]byte) uint32 { return 0 }
func lowerError(string) uint32  { return 0 }
