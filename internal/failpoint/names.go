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

	DurableWriteBefore  Name = "durable/write:before"
	DurableRenameBefore Name = "durable/rename:before"
	DurableRenameAfter  Name = "durable/rename:after"
	DurableSyncAfter    Name = "durable/sync:after"

	PodnetRecordBefore  Name = "podnet/record:before"
	PodnetRecordAfter   Name = "podnet/record:after"
	PodnetLinkBefore    Name = "podnet/link:before"
	PodnetLinkAfter     Name = "podnet/link:after"
	PodnetAddressBefore Name = "podnet/address:before"
	PodnetAddressAfter  Name = "podnet/address:after"
	PodnetPortsBefore   Name = "podnet/ports:before"
	PodnetPortsAfter    Name = "podnet/ports:after"
	PodnetUnportsBefore Name = "podnet/unports:before"
	PodnetUnportsAfter  Name = "podnet/unports:after"
	PodnetUnlinkBefore  Name = "podnet/unlink:before"
	PodnetUnlinkAfter   Name = "podnet/unlink:after"
	PodnetForgetBefore  Name = "podnet/forget:before"
	PodnetForgetAfter   Name = "podnet/forget:after"
	PodnetCNIAddBefore  Name = "podnet/cni-add:before"
	PodnetCNIAddAfter   Name = "podnet/cni-add:after"
	PodnetCNIDelBefore  Name = "podnet/cni-del:before"
	PodnetCNIDelAfter   Name = "podnet/cni-del:after"

	PodDirPrepareBefore Name = "poddir/prepare:before"
	PodDirPrepareAfter  Name = "poddir/prepare:after"
	PodDirRemoveBefore  Name = "poddir/remove:before"
	PodDirRemoveAfter   Name = "poddir/remove:after"
	WorkerImageAfter    Name = "worker/image:after"
	WorkerConfigAfter   Name = "worker/config:after"
)

// All returns every fail-point, in the order of this file.
func All() []Name {
	return []Name{
		CRISandboxRecordBefore,
		CRISandboxRecordAfter,
		DurableWriteBefore,
		DurableRenameBefore,
		DurableRenameAfter,
		DurableSyncAfter,
		PodnetRecordBefore,
		PodnetRecordAfter,
		PodnetLinkBefore,
		PodnetLinkAfter,
		PodnetAddressBefore,
		PodnetAddressAfter,
		PodnetPortsBefore,
		PodnetPortsAfter,
		PodnetUnportsBefore,
		PodnetUnportsAfter,
		PodnetUnlinkBefore,
		PodnetUnlinkAfter,
		PodnetForgetBefore,
		PodnetForgetAfter,
		PodnetCNIAddBefore,
		PodnetCNIAddAfter,
		PodnetCNIDelBefore,
		PodnetCNIDelAfter,
		PodDirPrepareBefore,
		PodDirPrepareAfter,
		PodDirRemoveBefore,
		PodDirRemoveAfter,
		WorkerImageAfter,
		WorkerConfigAfter,
	}
}
