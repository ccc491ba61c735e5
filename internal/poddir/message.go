package poddir

import (
	"bytes"
	"context"
	"io"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"golang.org/x/sys/unix"

	"nodeagent/internal/logs"
	"nodeagent/internal/pod"
)

// Limits of a termination message: the last 4096 bytes of the file, or the last 2048
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
		text = endOfLog(run.LogPath)
	}
	return string(bytes.ToValidUTF8(text, []byte("\ufffd")))
}

// logDeadline bounds the reading of a log that may be being written.
const logDeadline = 2 * time.Second

// endOfLog returns the last lines of the log, of both streams.
func endOfLog(path string) []byte {
	if path == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), logDeadline)
	defer cancel()
	var end lastBytes
	if err := logs.Read(ctx, path, logs.ReadOptions{Tail: maxMessageLogLines}, &end, &end); err != nil && len(end) == 0 {
		return nil
	}
	return end
}

// lastBytes keeps the last maxMessageLog bytes written to it.
type lastBytes []byte

func (b *lastBytes) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	if over := len(*b) - maxMessageLog; over > 0 {
		*b = append((*b)[:0], (*b)[over:]...)
	}
	return len(p), nil
}

// readRegular reads at most the last limit bytes of a plain file: the container
// may have put anything in its place, but not led us elsewhere.
func readRegular(path string, limit int64) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil
	}
	if over := st.Size() - limit; over > 0 {
		if _, err := f.Seek(over, io.SeekStart); err != nil {
			return nil
		}
	}
	text, _ := io.ReadAll(io.LimitReader(f, limit))
	return text
}
