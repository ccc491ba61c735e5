package failpoint

// Name names one fail-point: room, step, and whether it sits before or after
// the external call or durable write that it guards.
type Name string

// The fail-points of a pod's start and stop, in the order in which a pod meets
// them within each room. All lists them; the binary prints the list, so that a
// test can prove that every one was visited.
const (
	CRISandboxRecordBefore Name = "cri/sandbox/record:before"
	CRISandboxRecordAfter  Name = "cri/sandbox/record:after"
)

// All returns every fail-point, in the order of this file.
func All() []Name {
	return []Name{
		CRISandboxRecordBefore,
		CRISandboxRecordAfter,
	}
}
