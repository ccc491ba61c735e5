// Package logs owns the log files of containers: the CRI line format, writing
// with rotation as it writes, and reading with following across rotation.
//
// A line is "<RFC3339Nano> <stdout|stderr> <P|F> <content>\n": P when the line
// goes on in the next record, F when it is complete (the format that kubelet's
// pkg/kubelet/kuberuntime/logs reads; split at 16 KiB as containerd's CRI plugin
// does).
//
// It never talks to a container, a runtime or a network, and it never blocks a
// container: what cannot be stored is counted and dropped. What lies in a log
// directory is hostile: neither a symbolic link nor a FIFO there is followed.
//
// A Writer may be used from several goroutines, a Stream from one at a time; a
// Reader belongs to one goroutine. No function here starts a goroutine.
package logs

// MaxContent is how many bytes of a container's line go into one record.
const MaxContent = 16 << 10

// Name is the name of a stream as it stands in the log.
type Name string

// The two streams of a container. A terminal has Stdout only.
const (
	Stdout Name = "stdout"
	Stderr Name = "stderr"
)
