package wasi

// initial tells whether a guest may make this call while it is initialised once
// for all its runs, see engine.HostModule. Initialising, toolchains ask for what
// they were given (a reactor's arguments and environment are the same in each
// run), what the streams are and what is preopened (for a reactor always "/"), for
// the time, and for random bytes to seed tables with. Standard Go tries to have
// the streams not block, which is refused in each run alike.
//
// What opens, moves, writes or changes a descriptor is not among these: the next
// instance would not find it done.
func initial(function string, params []uint64) bool {
	switch function {
	case "args_get", "args_sizes_get", "environ_get", "environ_sizes_get",
		"clock_res_get", "clock_time_get", "random_get", "sched_yield",
		"fd_fdstat_get", "fd_prestat_get", "fd_prestat_dir_name":
		return true
	case "fd_fdstat_set_flags":
		return uint32(params[0]) <= 2 && uint16(params[1]) == flagNonblock
	}
	return false
}
