package image

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Progress is the state of a pull.
type Progress struct {
	Ref         string
	Phase       string // one of the phases below
	Done, Total int64  // bytes downloaded, bytes of all blobs known so far
	Blobs       int    // blobs known
	Ready       int    // blobs downloaded
}

// The phases of a pull.
const (
	PhaseWaiting     = "waiting" // for a slot
	PhaseResolving   = "resolving"
	PhaseDownloading = "downloading"
	PhaseExtracting  = "extracting"
	PhaseComplete    = "complete"
)

// tracker follows the progress events of one pull. It ends the pull when
// nothing moves for the deadline, or when the image grows over its limits.
type tracker struct {
	ref   string
	tell  func(Progress)
	fail  func(error)
	limit int64

	mu       sync.Mutex
	timer    *time.Timer
	lender   *time.Timer // nil: nothing was lent
	lendWait time.Duration
	deadline time.Duration
	ended    bool
	phase    string
	root     ocispec.Descriptor
	blobs    map[digest.Digest]blob
}

type blob struct {
	event       string
	at          int64 // of the event
	done, total int64 // downloaded
}

func newTracker(ref string, deadline time.Duration, limit int64, tell func(Progress), fail func(error)) *tracker {
	t := &tracker{ref: ref, tell: tell, fail: fail, limit: limit, deadline: deadline,
		phase: PhaseResolving, blobs: map[digest.Digest]blob{}}
	t.timer = time.AfterFunc(deadline, t.stalled)
	tell(t.snapshot())
	return t
}

// lend calls idle when nothing has moved for wait.
func (t *tracker) lend(wait time.Duration, idle func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lendWait, t.lender = wait, time.AfterFunc(wait, idle)
}

// rest ends both timers; the lock is held.
func (t *tracker) rest() {
	t.timer.Stop()
	if t.lender != nil {
		t.lender.Stop()
	}
}

func (t *tracker) stalled() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	p := t.snapshot()
	where := p.Phase
	if p.Blobs > 0 {
		where += fmt.Sprintf(", %d of %d bytes, %d of %d blobs complete", p.Done, p.Total, p.Ready, p.Blobs)
	}
	t.fail(&failure{kind: kindStalled, msg: fmt.Sprintf("no progress for %s (%s)", t.deadline, where)})
}

// stop ends the watch. containerd's client may deliver events after the pull
// has returned: they are dropped.
func (t *tracker) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.rest()
}

// fetched ends the watch when everything is there and has to be unpacked yet.
func (t *tracker) fetched() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.rest()
	t.phase = PhaseExtracting
	t.tell(t.snapshot())
}

// on takes one event of the transfer service.
func (t *tracker) on(p transfer.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	if p.Desc == nil || p.Desc.Digest == "" {
		t.moved() // the phases before and after the blobs
		return
	}
	if p.Event == "saved" {
		t.moved()
		return
	}
	if t.root.Digest == "" {
		t.root = *p.Desc
	}
	old, known := t.blobs[p.Desc.Digest]
	now := old
	if !known && t.phase == PhaseResolving {
		t.phase = PhaseDownloading
	}
	now.event, now.at, now.total = p.Event, p.Progress, p.Desc.Size
	switch p.Event {
	case "downloading":
		now.done = p.Progress
	case "complete", "already exists":
		now.done = p.Desc.Size
	}
	if known && now == old {
		return // repeated while nothing moves
	}
	t.blobs[p.Desc.Digest] = now
	if err := t.check(*p.Desc); err != nil {
		t.ended = true
		t.rest()
		t.fail(err)
		return
	}
	t.moved()
}

func (t *tracker) moved() {
	t.timer.Reset(t.deadline)
	if t.lender != nil {
		t.lender.Reset(t.lendWait)
	}
	t.tell(t.snapshot())
}

// check holds the image to its limits while it is being fetched.
func (t *tracker) check(d ocispec.Descriptor) error {
	var total int64
	for _, b := range t.blobs {
		total += max(b.total, 0)
	}
	switch {
	case len(t.blobs) > maxDescriptors:
		return &failure{kind: kindRefused, msg: fmt.Sprintf("the image has more than %d descriptors", maxDescriptors)}
	case total > t.limit:
		return &failure{kind: kindRefused, msg: fmt.Sprintf("the image is larger than %d bytes", t.limit)}
	case (images.IsIndexType(d.MediaType) || images.IsManifestType(d.MediaType)) && d.Size > maxManifest:
		return &failure{kind: kindRefused, msg: fmt.Sprintf("the image has a manifest of %d bytes, over %d", d.Size, maxManifest)}
	case images.IsConfigType(d.MediaType) && d.Size > maxConfig:
		return &failure{kind: kindRefused, msg: fmt.Sprintf("the image has a config of %d bytes, over %d", d.Size, maxConfig)}
	}
	return nil
}

func (t *tracker) snapshot() Progress {
	p := Progress{Ref: t.ref, Phase: t.phase, Blobs: len(t.blobs)}
	for _, b := range t.blobs {
		p.Done += min(b.done, b.total)
		p.Total += b.total
		if b.done >= b.total && b.event != "waiting" && !strings.HasPrefix(b.event, "fetching") {
			p.Ready++
		}
	}
	return p
}

// target is the descriptor that the name was resolved to, as far as known.
func (t *tracker) target() ocispec.Descriptor {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.root
}
