// Package volume owns the volumes of pods: what lies under
// <root-dir>/pods/<uid>/volumes and <root-dir>/pods/<uid>/volume-subpaths, and
// nothing else. The paths are kubelet's. It makes emptyDir, configMap, secret,
// downwardAPI and projected volumes, judges hostPath ones, and says which mounts
// of them a container gets.
//
// It never follows a link that a pod may have planted, never deletes across a
// mount, never writes what a Secret holds anywhere but into its volume, and
// keeps no state: what is mounted and what is on disk is the truth, so that any
// daemon can finish what another began.
//
// All methods may be called from any goroutine; those of one pod one at a time,
// which its worker sees to.
package volume
