package cgroups

// Missing are the required controllers that the machine has not, for which
// EnsureNode would fail.
func (t *Tree) Missing() []string { return t.missing() }

// Has tells whether the machine has a controller where the controllers are.
func (t *Tree) Has(controller string) bool { return t.hasController(controller) }

// Kubepods is the path of the cgroup of all pods, below the mount point.
func (t *Tree) Kubepods() string { return t.kubepods() }
