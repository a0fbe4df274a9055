package host

import (
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/script"
)

// ranInstead says in the receipt that the owner of the target has mapped what the
// script asked for to a module of that name, which policy was asked about.
func (r *receipt) ranInstead(asked script.Logic, name string) {
	r.Instead, r.Asked = name, module.Asked(asked)
}

// hostChanged follows a change of the host's modules: the peer's layer may have
// waited for it, and so may tests of its policies.
func (c *peerContext) hostChanged() {
	c.modules.Retry(c.host.running)
	c.retest()
}
