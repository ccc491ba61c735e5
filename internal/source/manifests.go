package source

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// DefaultRescan is how often the directory is looked through without being told
// to: kubelet's fileCheckFrequency.
const DefaultRescan = 20 * time.Second

// Config is what a manifest source is made of.
type Config struct {
	// Path is the manifest directory or one manifest file, absolute.
	Path string
	// NodeName becomes part of each pod's name and identity.
	NodeName string
	// OS and Arch are the node's, as Go spells them; this program's by default.
	OS, Arch string
	// Rescan is the time between two looks through the directory that no event
	// asked for; DefaultRescan by default.
	Rescan time.Duration
	// Default fills a pod's open fields, Validate judges it. Both are pure.
	Default  func(*corev1.Pod)
	Validate func(*corev1.Pod) field.ErrorList
	// Objects tells that the node has no API server, so that ConfigMaps and
	// Secrets in the directory are the ones that its pods refer to, and Services
	// those that they are told of. Else there may be none, and no pod may refer
	// to any.
	Objects bool
	// Emit takes each new snapshot; it must not block. The latest one counts.
	Emit func(Snapshot)
}

// Manifests is the source of static pods.
type Manifests struct {
	cfg      Config
	origin   string // what the pods say their source is
	patience patience
	read     func(path string, finished bool) (content, error)
	asFile   bool // the path is a single file

	files   map[string]*file
	pending map[string]time.Time // when to look at a file again
	stuck   map[string]chan readResult
	doubles map[string]time.Time // since when a pod stands in two files

	objectDoubles map[string]time.Time // the same of objects

	here     place // zero while the directory is away
	listed   bool  // the latest list of the directory was complete
	problems map[string]Problem
	trusted  bool
	changed  bool // since the latest snapshot
}

// NewManifests checks the configuration. It touches nothing.
func NewManifests(cfg Config) (*Manifests, error) {
	if !filepath.IsAbs(cfg.Path) {
		return nil, fmt.Errorf("configure manifest source: path %q is not absolute", cfg.Path)
	}
	if cfg.NodeName == "" {
		return nil, errors.New("configure manifest source: the node has no name")
	}
	if cfg.Default == nil || cfg.Validate == nil || cfg.Emit == nil {
		return nil, errors.New("configure manifest source: Default, Validate and Emit are needed")
	}
	if cfg.Rescan <= 0 {
		cfg.Rescan = DefaultRescan
	}
	if cfg.OS == "" {
		cfg.OS = runtime.GOOS
	}
	if cfg.Arch == "" {
		cfg.Arch = runtime.GOARCH
	}
	cfg.Path = filepath.Clean(cfg.Path)
	return &Manifests{
		cfg: cfg, origin: sourceFile, patience: patience{deleted: confirmDeleted, moved: confirmMoved}, read: readQuiet,
		files: map[string]*file{}, pending: map[string]time.Time{}, stuck: map[string]chan readResult{},
		doubles: map[string]time.Time{}, problems: map[string]Problem{},
		changed: true,
	}, nil
}

// Run reads the manifests, emits a first snapshot, and then one more whenever
// something changed, until ctx ends. Nothing that it finds makes it fail: what
// is wrong is part of the snapshot. It returns nil; it is called once.
func (m *Manifests) Run(ctx context.Context) error {
	n, err := newNotifier()
	var wake <-chan struct{}
	if err == nil {
		defer n.close()
		wake = n.wake
	}
	m.report("inotify", err)
	rescan := time.NewTicker(m.cfg.Rescan)
	defer rescan.Stop()
	again := time.NewTimer(0)
	defer again.Stop()

	m.scan(n)
	for {
		m.emit()
		m.arm(again)
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			m.digest(n)
		case <-rescan.C:
			m.scan(n)
		case <-again.C:
			m.lookAgain(n)
		}
	}
}

// report keeps or clears a problem that no single file has.
func (m *Manifests) report(what string, err error) {
	old, had := m.problems[what]
	switch {
	case err == nil && had:
		delete(m.problems, what)
		m.changed = true
	case err != nil && old.Message != plain(err.Error()):
		m.problems[what] = Problem{File: m.cfg.Path, Message: plain(err.Error()), Since: time.Now()}
		m.changed = true
	}
}

// arm sets the timer to the earliest file that is to be looked at again.
func (m *Manifests) arm(t *time.Timer) {
	var first time.Time
	for _, at := range m.pending {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	if first.IsZero() {
		t.Stop()
		return
	}
	t.Reset(time.Until(first))
}
