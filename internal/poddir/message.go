package poddir

import (
	"bytes"
	"io"
	"os"

	corev1 "k8s.io/api/core/v1"

	"golang.org/x/sys/unix"

	"nodeagent/internal/logs"
	"nodeagent/internal/pod"
)

// Limits of a termination message: 4096 bytes of the file, or the last 2048
// bytes or 80 lines of the log (kubelet's MaxContainerTerminationMessage…).
const (
	maxMessage         = 4096
	maxMessageLog      = 2048
	maxMessageLogLines = 80
)

// TerminationMessage reads what the dead container left to be told: its file,
// or the end of its log where its policy says so, the file is empty and it
// failed. What cannot be read is no message.
func (d *Dirs) TerminationMessage(p *corev1.Pod, c *corev1.Container, run pod.Container) string {
	text := readRegular(d.terminationLog(p.UID, c.Name, run.Attempt), maxMessage)
	if len(text) == 0 && run.ExitCode != 0 && c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
		text, _ = logs.Tail(run.LogPath, maxMessageLogLines, maxMessageLog)
	}
	return string(bytes.ToValidUTF8(text, []byte("\ufffd")))
}

// readRegular reads at most limit bytes of a plain file: the container may have
// put anything in its place, but not led us elsewhere.
func readRegular(path string, limit int64) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(f, limit))
	return text
}
