package image

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/transfer"
	transferimage "github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

// Ensure returns the image of ref unpacked: from the store where it is, else
// pulled. One that is there for another platform only is pulled again.
func (s *Store) Ensure(ctx context.Context, ref string, auth *Auth, progress func(Progress)) (Image, error) {
	img, err := s.Get(ctx, ref)
	switch {
	case err == nil && img.Unpacked:
		return img, nil
	case err == nil:
		return s.Unpack(ctx, img)
	case IsNotFound(err) || IsNoPlatform(err):
		return s.Pull(ctx, ref, auth, progress)
	}
	return Image{}, err
}

// pullKey is what makes two pulls the same one.
type pullKey struct {
	name string
	auth Auth
	keys string
}

// Pull pulls ref from its registry, unpacked, whether or not it is in the
// store. auth nil means the node's docker config. All that pull the same
// reference with the same credentials at one time share one pull; it goes on
// until the last of them has given up. progress, which may be nil, is called
// one at a time and must not block.
//
// The bytes go from the registry to containerd, and are unpacked there when all
// of them have come. ctx bounds the whole; Config.ProgressDeadline ends a pull in
// which nothing moves.
func (s *Store) Pull(ctx context.Context, ref string, auth *Auth, progress func(Progress)) (Image, error) {
	return s.share(ctx, ref, auth, Keys{}, progress)
}

// PullFor is Pull for a pod with pull secrets, which are tried before the node's
// docker config. With which of them it went is noted on the image: see Access.
func (s *Store) PullFor(ctx context.Context, ref string, keys Keys, progress func(Progress)) (Image, error) {
	return s.share(ctx, ref, nil, keys, progress)
}

func (s *Store) share(ctx context.Context, ref string, auth *Auth, keys Keys, progress func(Progress)) (Image, error) {
	named, err := parseName(ref)
	if err != nil {
		return Image{}, err
	}
	key := pullKey{name: named.String(), keys: keys.sum}
	if auth != nil {
		key.auth = *auth
	}
	return s.flights.do(ctx, key, progress, func(ctx context.Context, tell func(Progress)) (Image, error) {
		tell(Progress{Ref: key.name, Phase: PhaseWaiting})
		giveBack, err := s.slot(ctx)
		if err != nil {
			return Image{}, err
		}
		defer giveBack()
		return s.pullAny(ctx, named, auth, keys, pull{tell: tell, idle: giveBack})
	})
}

// slot waits until a pull may run: its beginning by Config.PullQPS (kubelet fails
// what is too early with "pull QPS exceeded", and the pod waits 10 s for nothing),
// and then for one of Config.Parallel. The slot is given back at the end, or when
// nothing has moved for Config.LendAfter: a registry that hangs holds up nobody
// else's pulls, however few may run at once.
func (s *Store) slot(ctx context.Context) (giveBack func(), err error) {
	if err := s.pace.Wait(ctx); err != nil {
		return nil, cmp.Or(context.Cause(ctx), err)
	}
	select {
	case s.slots <- struct{}{}:
		return sync.OnceFunc(func() { <-s.slots }), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// pull is one pull under way.
type pull struct {
	tell func(Progress)
	idle func() // nothing moves
}

// pullAny tries the credentials that fit, the most specific first, until one is
// not refused.
func (s *Store) pullAny(ctx context.Context, named reference.Named, auth *Auth, pod Keys, p pull) (Image, error) {
	keys := s.keyring()
	tries := keys.lookup(named, auth, pod)
	for i, a := range tries {
		img, err := s.pull(ctx, named.String(), keys.helper(named, a), a.label(), p)
		if err == nil {
			return img, nil
		}
		if !IsUnauthorized(err) || i == len(tries)-1 {
			return Image{}, keys.explain(named, err)
		}
	}
	return Image{}, errors.New("pull: no credentials to try") // lookup never returns none
}

func (s *Store) pull(ctx context.Context, name string, creds registry.CredentialHelper, access string, p pull) (img Image, err error) {
	// Cancelling ends the streams of progress and credentials too: the
	// transfer's client reads them until its context ends.
	ctx, cancel := context.WithCancelCause(quiet(s.namespaced(ctx)))
	defer cancel(nil)
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return Image{}, fmt.Errorf("pull image %q: %w", name, err)
	}
	defer func() { done(err) }()

	before, err := s.record(ctx, name)
	if err != nil && !IsNotFound(err) {
		return Image{}, fmt.Errorf("pull image %q: %w", name, err)
	}
	t := newTracker(name, s.cfg.ProgressDeadline, s.cfg.MaxSize, p.tell, func(err error) { cancel(err) })
	t.lend(s.cfg.LendAfter, p.idle)
	defer t.stop()
	if err := s.transfer(ctx, name, creds, labelled(before.Labels, access), t); err != nil {
		return Image{}, s.pullError(ctx, name, t, err)
	}
	t.fetched()
	img, err = s.pulled(ctx, name)
	if err != nil {
		s.takeBack(ctx, name, before)
		return Image{}, err
	}
	img.Access = s.keepGrants(ctx, img, before)
	p.tell(Progress{Ref: name, Phase: PhaseComplete, Done: img.Size, Total: img.Size, Blobs: len(t.blobs), Ready: len(t.blobs)})
	return img, nil
}

// quiet keeps the client library's own log lines, one for each pull that was
// cancelled, out of the daemon's stderr.
func quiet(ctx context.Context) context.Context {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return log.WithLogger(ctx, logrus.NewEntry(l))
}

// labelled are the labels of a record that a pull writes: those it had, and with
// what it was pulled. They are written together with the target, so that nobody
// ever finds what was pulled with a secret without its note.
func labelled(before map[string]string, access string) map[string]string {
	labels := maps.Clone(before)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[accessLabel] = access
	return labels
}

// keepGrants notes also who could use the image before, if it is still the same.
func (s *Store) keepGrants(ctx context.Context, img Image, before images.Image) Access {
	old := accessOf(before.Labels)
	if before.Target.Digest != img.Target || !old.Pulled || img.Access.Node {
		return img.Access
	}
	all := img.Access.with(old)
	label := all.label()
	if len(all.grants) > maxGrants || label == img.Access.label() {
		return img.Access
	}
	if err := s.label(ctx, []string{img.Name}, map[string]string{accessLabel: label}); err != nil {
		s.cfg.Logger.Warn("note who may use an image", "image", img.Name, "err", err)
		return img.Access // they have to pull it again
	}
	return all
}

func (s *Store) transfer(ctx context.Context, name string, creds registry.CredentialHelper, labels map[string]string, t *tracker) error {
	opts := []registry.Opt{registry.WithCredentials(creds)}
	if s.cfg.HostsDir != "" {
		opts = append(opts, registry.WithHostDir(s.cfg.HostsDir))
	}
	src, err := registry.NewOCIRegistry(ctx, name, opts...)
	if err != nil {
		return err
	}
	dst := transferimage.NewStore(name,
		transferimage.WithPlatforms(*s.cfg.Platform),
		transferimage.WithManifestLimit(1),
		transferimage.WithImageLabels(labels))
	return s.cfg.Client.Transfer(ctx, src, dst, transfer.WithProgress(t.on))
}

// pullError says why a transfer failed: by our own limits, for want of a
// platform, or as containerd tells it.
func (s *Store) pullError(ctx context.Context, name string, t *tracker, err error) error {
	msg := fmt.Sprintf("pull image %q", name)
	var f *failure
	if cause := context.Cause(ctx); errors.As(cause, &f) {
		return &failure{kind: f.kind, msg: msg + ": " + f.msg, err: f.err}
	} else if cause != nil {
		return fmt.Errorf("%s: %w", msg, cause)
	}
	if target := t.target(); has(err.Error(), "no match for platform in manifest") && target.Digest != "" {
		// The lease still holds the index that was fetched: it knows what there
		// is.
		if _, why := s.inspect(ctx, target); kindOf(why) == kindNoPlatform {
			return s.explain(name, why)
		}
		return &failure{kind: kindNoPlatform, msg: msg, err: err}
	}
	return classify(msg, err)
}

// pulled looks at what a pull brought, afresh.
func (s *Store) pulled(ctx context.Context, name string) (Image, error) {
	record, err := s.record(ctx, name)
	if err != nil {
		return Image{}, err
	}
	// The content may have come from another repository before.
	s.cache.drop(record.Target.Digest)
	img, err := s.named(ctx, record)
	if err != nil {
		return Image{}, err
	}
	if !img.Unpacked {
		return s.unpack(ctx, img)
	}
	return img, nil
}

// takeBack points the name at what it pointed at before a pull whose image
// turned out to be unusable, so that a good image is not lost to a bad tag.
func (s *Store) takeBack(ctx context.Context, name string, before images.Image) {
	ctx, cancel := s.call(context.WithoutCancel(ctx))
	defer cancel()
	is := s.cfg.Client.ImageService()
	var err error
	if before.Name == "" {
		err = is.Delete(ctx, name)
	} else {
		_, err = is.Update(ctx, before, "target", "labels")
	}
	if err != nil && !errdefs.IsNotFound(err) {
		s.cfg.Logger.Warn("take back image record", "image", name, "err", err)
	}
}

// ownerLabel marks the leases of a Store.
const ownerLabel = "nodeagent.io/image-store"

// lease holds what a pull or import brings until its record is written; done
// must be called, with the error that ended it. After a failure it waits until
// containerd has collected what came half: a blob that does not have its digest
// would be taken up again by the next try, and fail it. Where the daemon dies
// before, Sweep or the expiry ends it.
func (s *Store) lease(ctx context.Context) (_ context.Context, done func(error), err error) {
	ls := s.cfg.Client.LeasesService()
	giveBack := func(l leases.Lease, opts ...leases.DeleteOpt) {
		ctx, cancel := s.call(context.WithoutCancel(ctx))
		defer cancel()
		if err := ls.Delete(ctx, l, opts...); err != nil && !errdefs.IsNotFound(err) {
			s.cfg.Logger.Warn("give back lease", "lease", l.ID, "err", err)
		}
	}
	// Who gives up meanwhile waits for the answer all the same: a call that is cut
	// may be carried out later, even after the lease was given back. Where no
	// answer comes in time the name is known, since it is ours.
	cctx, cancel := s.call(context.WithoutCancel(ctx))
	defer cancel()
	id := s.cfg.Owner + "-" + rand.Text()
	l, err := ls.Create(cctx, leases.WithID(id), leases.WithExpiration(leaseExpiry),
		leases.WithLabels(map[string]string{ownerLabel: s.cfg.Owner}))
	if err != nil {
		giveBack(leases.Lease{ID: id})
		return ctx, nil, fmt.Errorf("take lease: %w", err)
	}
	return leases.WithLease(ctx, l.ID), func(failed error) {
		if failed != nil {
			giveBack(l, leases.SynchronousDelete)
		} else {
			giveBack(l)
		}
	}, nil
}

// Unpack makes sure that the image's root file system is in the snapshotter: it
// looks, whatever img says, and unpacks what is missing.
func (s *Store) Unpack(ctx context.Context, img Image) (Image, error) {
	type unpackKey struct{ chain, target string }
	got, err := s.flights.do(ctx, unpackKey{img.ChainID.String(), img.Target.String()}, nil,
		func(ctx context.Context, _ func(Progress)) (Image, error) { return s.unpack(ctx, img) })
	if errdefs.IsNotFound(err) {
		s.noteLost(img)
	}
	if err != nil {
		return Image{}, err
	}
	img.Unpacked = got.Unpacked
	return img, nil
}

// noteLost notes that a part of the image is gone from the content store, so
// that it counts as absent until somebody pulls it again.
func (s *Store) noteLost(img Image) {
	img.Name, img.RepoTags, img.lost = "", nil, true
	s.cache.put(img.Target, img)
}

func (s *Store) unpack(ctx context.Context, img Image) (Image, error) {
	ctx, cancel := context.WithTimeout(s.namespaced(ctx), unpackDeadline)
	defer cancel()
	if img.ChainID == "" {
		return Image{}, &failure{kind: kindRefused, msg: fmt.Sprintf("image %q has no layers", img.Name)}
	}
	_, err := s.cfg.Client.SnapshotService(s.cfg.Snapshotter).Stat(ctx, img.ChainID.String())
	if errdefs.IsNotFound(err) {
		err = s.apply(ctx, img)
	}
	if err != nil {
		return Image{}, fmt.Errorf("unpack image %q: %w", img.Name, err)
	}
	img.Unpacked = true
	cached := img
	cached.Name, cached.RepoTags = "", nil
	s.cache.put(img.Target, cached)
	return img, nil
}

// apply unpacks the layers that are missing. Each is on the disk before it is
// committed: a snapshot that exists counts as whole for ever, and containerd,
// also where it unpacks in the course of a transfer, leaves its files in the page
// cache. A power cut within half a minute of a pull would leave programs of no
// bytes behind a name that says that the image is there.
func (s *Store) apply(ctx context.Context, img Image) error {
	record, err := s.record(ctx, img.Name)
	if err != nil {
		return err
	}
	if record.Target.Digest != img.Target {
		record.Target = ocispec.Descriptor{MediaType: record.Target.MediaType, Digest: img.Target, Size: record.Target.Size}
	}
	return s.platformImage(record).Unpack(ctx, s.cfg.Snapshotter, containerd.WithUnpackApplyOpts(diff.WithSyncFs(true)))
}
