package source

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// sourceURL is what a pod from a URL says its source is.
const sourceURL = "http"

// DefaultURLRescan is how often the URL is read: kubelet's httpCheckFrequency. HTTP
// has nobody who could tell of a change.
const DefaultURLRescan = 20 * time.Second

const urlDeadline = 10 * time.Second // for one read, as kubelet has it

// URLConfig is what a source of static pods behind a URL is made of.
type URLConfig struct {
	URL    string
	Header http.Header // sent with each request: it may hold secrets
	// NodeName becomes part of each pod's name and identity.
	NodeName string
	// OS and Arch are the node's, as Go spells them; this program's by default.
	OS, Arch string
	// Rescan is the time between two reads; DefaultURLRescan by default.
	Rescan time.Duration
	// Default fills a pod's open fields, Validate judges it. Both are pure.
	Default  func(*corev1.Pod)
	Validate func(*corev1.Pod) field.ErrorList
	// Client reads; http.DefaultClient by default.
	Client *http.Client
	// Emit takes each new snapshot; it must not block. The latest one counts.
	Emit func(Snapshot)
}

// URL is the source of static pods behind a URL (staticPodURL).
type URL struct {
	cfg     URLConfig
	name    string     // the URL without what may be secret
	reader  *Manifests // reads documents; it has no directory
	pods    []wanted
	sum     [sha256.Size]byte
	known   bool // it was read once
	wrong   []Problem
	changed bool
}

// NewURL checks the configuration. It asks nobody.
func NewURL(cfg URLConfig) (*URL, error) {
	at, err := url.Parse(cfg.URL)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, errors.New("configure URL source: staticPodURL is not an http or https URL") // it may hold a password
	}
	if cfg.Rescan <= 0 {
		cfg.Rescan = DefaultURLRescan
	}
	if cfg.Client == nil {
		cfg.Client = http.DefaultClient
	}
	name := *at
	name.User, name.RawQuery, name.Fragment = nil, "", ""
	reader, err := NewManifests(Config{
		Path: "/", NodeName: cfg.NodeName, OS: cfg.OS, Arch: cfg.Arch, Default: cfg.Default, Validate: cfg.Validate, Emit: cfg.Emit,
	})
	if err != nil {
		return nil, err
	}
	reader.origin = sourceURL
	return &URL{cfg: cfg, name: name.String(), reader: reader, changed: true}, nil
}

// Run reads the URL until ctx ends, and emits a snapshot at once and whenever
// something changed. What is wrong is part of the snapshot. It returns nil; it is
// called once.
func (u *URL) Run(ctx context.Context) error {
	again := time.NewTicker(u.cfg.Rescan)
	defer again.Stop()
	u.emit()
	for {
		body, err := u.read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		u.take(body, err)
		u.emit()
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

func (u *URL) read(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, urlDeadline)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.cfg.URL, nil)
	if err != nil {
		return nil, errors.New("make a request of staticPodURL")
	}
	req.Header = u.cfg.Header.Clone()
	resp, err := u.cfg.Client.Do(req)
	if err != nil {
		var inner *url.Error // names the URL, which may hold secrets
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, fmt.Errorf("read static pods: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read static pods: the server says %q", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFileBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read static pods: %w", err)
	case len(body) > maxFileBytes:
		return nil, fmt.Errorf("read static pods: more than %d bytes", maxFileBytes)
	case len(body) == 0:
		return nil, errors.New("read static pods: the answer is empty")
	}
	return body, nil
}

// take takes what was read. Only a whole answer that is understood changes what is
// wanted: whatever else happens, the pods stay as they were.
func (u *URL) take(body []byte, err error) {
	var wrong []Problem
	switch sum := sha256.Sum256(body); {
	case err != nil:
		wrong = []Problem{{File: u.name, Message: plain(err.Error())}}
	case u.known && sum == u.sum:
	default:
		pods, bad := u.reader.decode(u.cfg.URL, body)
		for _, f := range bad {
			wrong = append(wrong, Problem{File: u.name, Line: f.line, Pod: f.pod, Message: f.message})
		}
		if bad == nil {
			u.pods, u.sum, u.known, u.changed = keep(u.pods, pods), sum, true, true
		}
	}
	if !sameProblems(u.wrong, wrong) {
		for i := range wrong {
			wrong[i].Since = time.Now()
		}
		u.wrong, u.changed = wrong, true
	}
}

func sameProblems(a, b []Problem) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Line != b[i].Line || a[i].Pod != b[i].Pod || a[i].Message != b[i].Message {
			return false
		}
	}
	return true
}

func (u *URL) emit() {
	if !u.changed {
		return
	}
	u.changed = false
	s := Snapshot{Source: sourceURL, Synced: true, Trusted: u.known, Problems: u.wrong}
	for _, w := range u.pods {
		s.add(w)
	}
	u.cfg.Emit(s)
}
