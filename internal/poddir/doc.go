// Package poddir owns the directories of a pod on the node: <root-dir>/pods/<uid>
// with the files under /etc that its containers get and their termination
// messages, <podLogsDir>/<namespace>_<name>_<uid>, and the links to the logs in
// /var/log/containers. The paths are kubelet's, since log collectors and other
// software expect them.
//
// It never follows a link that a pod may have planted, never deletes across a
// mount, and never reads more of a pod's file than it has to.
//
// All methods may be called from any goroutine; those of one pod are called by
// its worker only.
package poddir
