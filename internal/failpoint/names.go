package failpoint

// Name names one fail-point: room, step, and whether it sits before or after
// the external call or durable write that it guards.
type Name string

// The fail-points of a pod's start and stop, in the order in which a pod meets
// them within each room. All lists them; the binary prints the list, so that a
// test can prove that every one was visited.
const (
	CgroupsMkdirBefore  Name = "cgroups/pod/mkdir:before"
	CgroupsMkdirAfter   Name = "cgroups/pod/mkdir:after"
	CgroupsLimitsBefore Name = "cgroups/pod/limits:before"
	CgroupsLimitsAfter  Name = "cgroups/pod/limits:after"
	CgroupsRemoveBefore Name = "cgroups/pod/remove:before"
	CgroupsRemoveAfter  Name = "cgroups/pod/remove:after"

	CRISandboxIntentBefore   Name = "cri/sandbox/intent:before"
	CRISandboxIntentAfter    Name = "cri/sandbox/intent:after"
	CRINamespacesBefore      Name = "cri/sandbox/namespaces:before"
	CRINamespacesAfter       Name = "cri/sandbox/namespaces:after"
	CRINetworkSetupBefore    Name = "cri/sandbox/network-setup:before"
	CRINetworkSetupAfter     Name = "cri/sandbox/network-setup:after"
	CRISandboxRecordBefore   Name = "cri/sandbox/record:before"
	CRISandboxRecordAfter    Name = "cri/sandbox/record:after"
	CRIContainerRecordBefore Name = "cri/container/record:before"
	CRIContainerRecordAfter  Name = "cri/container/record:after"
	CRISnapshotPrepareBefore Name = "cri/container/snapshot-prepare:before"
	CRISnapshotPrepareAfter  Name = "cri/container/snapshot-prepare:after"
	CRITaskCreateBefore      Name = "cri/container/task-create:before"
	CRITaskCreateAfter       Name = "cri/container/task-create:after"
	CRITaskStartBefore       Name = "cri/container/task-start:before"
	CRITaskStartAfter        Name = "cri/container/task-start:after"
	CRINotePostStartBefore   Name = "cri/container/note-post-start:before"
	CRINotePostStartAfter    Name = "cri/container/note-post-start:after"
	CRIStopRecordBefore      Name = "cri/container/stop-record:before"
	CRIStopRecordAfter       Name = "cri/container/stop-record:after"
	CRIStopSignalBefore      Name = "cri/container/stop-signal:before"
	CRIStopSignalAfter       Name = "cri/container/stop-signal:after"
	CRIStopKillBefore        Name = "cri/container/stop-kill:before"
	CRIStopKillAfter         Name = "cri/container/stop-kill:after"
	CRIExitLabelBefore       Name = "cri/container/exit-label:before"
	CRIExitLabelAfter        Name = "cri/container/exit-label:after"
	CRITaskDeleteBefore      Name = "cri/container/task-delete:before"
	CRITaskDeleteAfter       Name = "cri/container/task-delete:after"
	CRIContainerDeleteBefore Name = "cri/container/record-delete:before"
	CRIContainerDeleteAfter  Name = "cri/container/record-delete:after"
	CRISnapshotRemoveBefore  Name = "cri/container/snapshot-remove:before"
	CRISnapshotRemoveAfter   Name = "cri/container/snapshot-remove:after"
	CRINetworkTeardownBefore Name = "cri/sandbox/network-teardown:before"
	CRINetworkTeardownAfter  Name = "cri/sandbox/network-teardown:after"
	CRISandboxUnpinBefore    Name = "cri/sandbox/unpin:before"
	CRISandboxUnpinAfter     Name = "cri/sandbox/unpin:after"
	CRIShimExitBefore        Name = "cri/sandbox/shim-exit:before"
	CRIShimExitAfter         Name = "cri/sandbox/shim-exit:after"
	CRISandboxDeleteBefore   Name = "cri/sandbox/record-delete:before"
	CRISandboxDeleteAfter    Name = "cri/sandbox/record-delete:after"

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

	HookRunBefore Name = "hook/run:before"
	HookRunAfter  Name = "hook/run:after"

	VolumeDirBefore     Name = "volume/dir:before"
	VolumeDirAfter      Name = "volume/dir:after"
	VolumeMountBefore   Name = "volume/mount:before"
	VolumeMountAfter    Name = "volume/mount:after"
	VolumeWriteBefore   Name = "volume/write:before"
	VolumeWriteAfter    Name = "volume/write:after"
	VolumeSwapAfter     Name = "volume/swap:after"
	VolumeSubPathBefore Name = "volume/subpath:before"
	VolumeSubPathAfter  Name = "volume/subpath:after"
	VolumeLocalBefore   Name = "volume/local:before"
	VolumeLocalAfter    Name = "volume/local:after"
	VolumeUnmountBefore Name = "volume/unmount:before"
	VolumeUnmountAfter  Name = "volume/unmount:after"
	VolumeRemoveBefore  Name = "volume/remove:before"
	VolumeRemoveAfter   Name = "volume/remove:after"
)

// All returns every fail-point, in the order of this file.
func All() []Name {
	return []Name{
		CgroupsMkdirBefore, CgroupsMkdirAfter,
		CgroupsLimitsBefore, CgroupsLimitsAfter,
		CgroupsRemoveBefore, CgroupsRemoveAfter,
		CRISandboxIntentBefore, CRISandboxIntentAfter,
		CRINamespacesBefore, CRINamespacesAfter,
		CRINetworkSetupBefore, CRINetworkSetupAfter,
		CRISandboxRecordBefore, CRISandboxRecordAfter,
		CRIContainerRecordBefore, CRIContainerRecordAfter,
		CRISnapshotPrepareBefore, CRISnapshotPrepareAfter,
		CRITaskCreateBefore, CRITaskCreateAfter,
		CRITaskStartBefore, CRITaskStartAfter,
		CRINotePostStartBefore, CRINotePostStartAfter,
		CRIStopRecordBefore, CRIStopRecordAfter,
		CRIStopSignalBefore, CRIStopSignalAfter,
		CRIStopKillBefore, CRIStopKillAfter,
		CRIExitLabelBefore, CRIExitLabelAfter,
		CRITaskDeleteBefore, CRITaskDeleteAfter,
		CRIContainerDeleteBefore, CRIContainerDeleteAfter,
		CRISnapshotRemoveBefore, CRISnapshotRemoveAfter,
		CRINetworkTeardownBefore, CRINetworkTeardownAfter,
		CRISandboxUnpinBefore, CRISandboxUnpinAfter,
		CRIShimExitBefore, CRIShimExitAfter,
		CRISandboxDeleteBefore, CRISandboxDeleteAfter,
		DurableWriteBefore,
		DurableRenameBefore, DurableRenameAfter,
		DurableSyncAfter,
		PodnetRecordBefore, PodnetRecordAfter,
		PodnetLinkBefore, PodnetLinkAfter,
		PodnetAddressBefore, PodnetAddressAfter,
		PodnetPortsBefore, PodnetPortsAfter,
		PodnetUnportsBefore, PodnetUnportsAfter,
		PodnetUnlinkBefore, PodnetUnlinkAfter,
		PodnetForgetBefore, PodnetForgetAfter,
		PodnetCNIAddBefore, PodnetCNIAddAfter,
		PodnetCNIDelBefore, PodnetCNIDelAfter,
		PodDirPrepareBefore, PodDirPrepareAfter,
		PodDirRemoveBefore, PodDirRemoveAfter,
		WorkerImageAfter,
		WorkerConfigAfter,
		HookRunBefore, HookRunAfter,
		VolumeDirBefore, VolumeDirAfter,
		VolumeMountBefore, VolumeMountAfter,
		VolumeWriteBefore, VolumeWriteAfter, VolumeSwapAfter,
		VolumeSubPathBefore, VolumeSubPathAfter,
		VolumeLocalBefore, VolumeLocalAfter,
		VolumeUnmountBefore, VolumeUnmountAfter,
		VolumeRemoveBefore, VolumeRemoveAfter,
	}
}
