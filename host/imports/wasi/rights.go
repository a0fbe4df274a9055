package wasi

// rights say what may be done with a descriptor (base), and what with those
// that are opened through it (inheriting). A descriptor is opened with those
// that the guest asked for and can only lose some. They are a guest's own
// discipline, to hand a part of itself less than the whole: what a script may do
// is decided by the store's guard, whatever rights it holds.
//
// https://github.com/WebAssembly/WASI/blob/snapshot-01/phases/snapshot/docs.md#rights
type rights uint64

const (
	rightDatasync rights = 1 << iota
	rightRead
	rightSeek
	rightSetFlags
	rightSync
	rightTell
	rightWrite
	rightAdvise
	rightAllocate
	rightCreateDirectory
	rightCreateFile
	rightLinkSource
	rightLinkTarget
	rightPathOpen
	rightReaddir
	rightReadlink
	rightRenameSource
	rightRenameTarget
	rightPathStat
	rightPathSetSize
	rightPathSetTimes
	rightStat
	rightSetSize
	rightSetTimes
	rightSymlink
	rightRemoveDirectory
	rightUnlink
	rightPoll
	_ // sock_shutdown
	_ // sock_accept

	allRights rights = 1<<30 - 1
)

// What applies to a kind of file. The rest is left off when one is opened, as
// the specification has it: programs ask for all that they might need before
// they know what they will find.
const (
	fileRights = rightDatasync | rightRead | rightSeek | rightSetFlags | rightSync | rightTell | rightWrite |
		rightAdvise | rightAllocate | rightStat | rightSetSize | rightSetTimes | rightPoll

	directoryRights = rightDatasync | rightSetFlags | rightSync |
		rightCreateDirectory | rightCreateFile | rightLinkSource | rightLinkTarget | rightPathOpen | rightReaddir |
		rightReadlink | rightRenameSource | rightRenameTarget | rightPathStat | rightPathSetSize | rightPathSetTimes |
		rightStat | rightSetTimes | rightSymlink | rightRemoveDirectory | rightUnlink | rightPoll

	// A stream has neither seek nor tell, which is how libc knows one.
	streamRights = rightDatasync | rightSetFlags | rightSync | rightAdvise | rightStat | rightPoll
)
