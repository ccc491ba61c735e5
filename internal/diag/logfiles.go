package diag

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nodeagent/internal/logs"
)

// LookAtLogs makes a View from the directories of log files alone: for when
// nobody answers. Directories are named <namespace>_<name>_<uid>/<container>.
func LookAtLogs(dir string) (*View, error) {
	v := &View{Source: FromLogs, Pods: []Pod{}, Problems: []Problem{},
		Notes: []string{"neither the daemon nor containerd answers; found by the log files"}}
	pods, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the directory of pods' logs: %w", err)
	}
	for _, e := range pods {
		namespace, rest, ok := strings.Cut(e.Name(), "_")
		name, uid, ok2 := strings.Cut(rest, "_")
		if !ok || !ok2 || !e.IsDir() {
			continue
		}
		p := Pod{Namespace: namespace, Name: name, UID: uid, Phase: "Unknown", Status: "Unknown",
			IPs: []string{}, Sandboxes: []Sandbox{}, Containers: []Container{}}
		if info, err := e.Info(); err == nil {
			p.Created = instant(info.ModTime())
		}
		containers, err := os.ReadDir(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // removed meanwhile
		}
		for _, c := range containers {
			if c.IsDir() {
				p.Containers = append(p.Containers, Container{Name: c.Name(), Latest: true, State: "Unknown"})
			}
		}
		v.Pods = append(v.Pods, p)
	}
	return v, nil
}

// LogPath returns the log file of a container's run: the newest one, or the one
// that ended last. That is the one before the newest; but where the newest has
// ended too and waits for its restart, it is the newest itself, as it is for
// kubectl. podLogs is the directory of all pods' logs.
func LogPath(podLogs string, p *Pod, c *Container, previous bool) (string, error) {
	dir := filepath.Join(podLogs, p.Namespace+"_"+p.Name+"_"+p.UID, c.Name)
	if c.LogPath != "" {
		dir = filepath.Dir(c.LogPath)
	}
	runs, err := logs.Instances(dir)
	if err != nil {
		return "", err
	}
	newest := int(c.Attempt)
	if c.ID == "" { // not known: the files tell
		if len(runs) == 0 {
			return "", &NotFoundError{What: "log of container " + p.FullName() + "/" + c.Name, Name: dir, Hint: notStarted(c)}
		}
		newest = runs[len(runs)-1]
	}
	want := newest
	if previous && c.Wait == "" {
		want--
	}
	path := filepath.Join(dir, logs.FileName(want))
	for _, r := range runs {
		if r == want {
			return path, nil
		}
	}
	if !previous || want == newest {
		return "", &NotFoundError{What: "log of container " + p.FullName() + "/" + c.Name, Name: path, Hint: notStarted(c)}
	}
	return "", &NotFoundError{What: "log of an earlier run of " + p.FullName() + "/" + c.Name, Name: path,
		Hint: fmt.Sprintf("its newest run is number %d, and the log of one run before it is kept", newest)}
}

func notStarted(c *Container) string {
	if c.State == "Waiting" && c.Reason != "" {
		return "it has not started: " + strings.TrimSuffix(c.Reason+": "+c.Message, ": ")
	}
	return "it has not written one"
}

// ReadLog copies the log at path as o says. With o.Follow it goes on until the
// run of the container ends, or ctx.
func ReadLog(ctx context.Context, runDir string, c *Container, path string, o logs.ReadOptions, read func(context.Context, logs.ReadOptions) error) error {
	if o.Follow {
		ended, stop := untilExit(ctx, runDir, c)
		defer stop()
		o.Ended = ended
	}
	err := read(ctx, o)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &NotFoundError{What: "log", Name: path, Hint: "it was removed meanwhile"}
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil // told to stop
	}
	return err
}
