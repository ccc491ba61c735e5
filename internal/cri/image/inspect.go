package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits on what an image's author controls and this process reads or counts
// (CVE-2026-53493: amplification by an index's graph; CVE-2026-47262: unbounded
// JSON).
const (
	maxManifest    = 4 << 20 // bytes of an index or a manifest
	maxConfig      = 8 << 20 // bytes of an image config
	maxDescriptors = 1000    // of one image, all levels
	maxDepth       = 3       // of indexes in indexes
)

// inspect reads what the store holds under target and picks this machine's
// part of it. The answer is complete but for the name.
func (s *Store) inspect(ctx context.Context, target ocispec.Descriptor) (Image, error) {
	if img, ok := s.cache.get(target.Digest); ok {
		return img, nil
	}
	ctx, cancel := s.call(ctx)
	defer cancel()
	in := inspector{cs: s.cfg.Client.ContentStore(), match: s.match}
	img, err := in.image(ctx, target)
	if err != nil {
		return Image{}, err
	}
	if img.ChainID != "" {
		_, err = s.cfg.Client.SnapshotService(s.cfg.Snapshotter).Stat(ctx, img.ChainID.String())
		if err != nil && !errdefs.IsNotFound(err) {
			return Image{}, fmt.Errorf("look for unpacked image: %w", err)
		}
	}
	img.Unpacked = err == nil
	if img.Unpacked {
		// Only then: whoever gets it next may look again.
		s.cache.put(target.Digest, img)
	}
	return img, nil
}

type inspector struct {
	cs    content.Provider
	match platforms.MatchComparer

	descriptors int
	seen        []ocispec.Platform // what there is, for the message
}

// errNoMatch says that a branch of the graph has nothing for this machine.
var errNoMatch = errors.New("nothing for this platform")

func (in *inspector) image(ctx context.Context, target ocispec.Descriptor) (Image, error) {
	img, err := in.walk(ctx, target, 0)
	if errors.Is(err, errNoMatch) {
		return Image{}, &failure{kind: kindNoPlatform, msg: "is " + listPlatforms(in.seen)}
	}
	if err != nil {
		return Image{}, err
	}
	img.Target = target.Digest
	img.sources, err = in.sources(ctx, target.Digest)
	return img, err
}

func (in *inspector) walk(ctx context.Context, desc ocispec.Descriptor, depth int) (Image, error) {
	switch {
	case images.IsIndexType(desc.MediaType):
		return in.index(ctx, desc, depth)
	case images.IsManifestType(desc.MediaType):
		return in.manifest(ctx, desc)
	}
	return Image{}, &failure{kind: kindRefused, msg: fmt.Sprintf("is of unknown media type %q", desc.MediaType)}
}

func (in *inspector) index(ctx context.Context, desc ocispec.Descriptor, depth int) (Image, error) {
	if depth >= maxDepth {
		return Image{}, &failure{kind: kindRefused, msg: fmt.Sprintf("has more than %d indexes inside each other", maxDepth)}
	}
	var idx ocispec.Index
	if err := in.read(ctx, desc, maxManifest, &idx); err != nil {
		return Image{}, err
	}
	if err := in.count(len(idx.Manifests)); err != nil {
		return Image{}, err
	}
	fit := idx.Manifests[:0:0]
	for _, m := range idx.Manifests {
		switch {
		case !images.IsIndexType(m.MediaType) && !images.IsManifestType(m.MediaType):
		case m.Platform == nil:
			fit = append(fit, m)
		default:
			// Attestations are no platform that anybody can choose.
			if m.Platform.OS != "unknown" {
				in.seen = append(in.seen, *m.Platform)
			}
			if in.match.Match(*m.Platform) {
				fit = append(fit, m)
			}
		}
	}
	slices.SortStableFunc(fit, in.better)
	var last error = errNoMatch
	for _, m := range fit {
		img, err := in.walk(ctx, m, depth+1)
		if err == nil {
			return img, nil
		}
		if !errors.Is(err, errNoMatch) && !errdefs.IsNotFound(err) {
			return Image{}, err
		}
		if errors.Is(last, errNoMatch) {
			last = err
		}
	}
	return Image{}, last
}

// better orders manifests by how well their platform fits.
func (in *inspector) better(a, b ocispec.Descriptor) int {
	switch {
	case a.Platform == nil && b.Platform == nil:
		return 0
	case a.Platform == nil:
		return 1
	case b.Platform == nil:
		return -1
	case in.match.Less(*a.Platform, *b.Platform):
		return -1
	case in.match.Less(*b.Platform, *a.Platform):
		return 1
	}
	return 0
}

func (in *inspector) manifest(ctx context.Context, desc ocispec.Descriptor) (Image, error) {
	var m ocispec.Manifest
	if err := in.read(ctx, desc, maxManifest, &m); err != nil {
		return Image{}, err
	}
	if err := in.count(len(m.Layers) + 1); err != nil {
		return Image{}, err
	}
	if !images.IsConfigType(m.Config.MediaType) {
		return Image{}, &failure{kind: kindRefused, msg: fmt.Sprintf("holds no container image but %q", m.Config.MediaType)}
	}
	var cfg ocispec.Image
	if err := in.read(ctx, m.Config, maxConfig, &cfg); err != nil {
		return Image{}, err
	}
	if len(cfg.RootFS.DiffIDs) > maxDescriptors {
		return Image{}, &failure{kind: kindRefused, msg: fmt.Sprintf("has %d layers, over %d", len(cfg.RootFS.DiffIDs), maxDescriptors)}
	}
	p := platforms.Normalize(cfg.Platform)
	// Old builders leave the platform out; then nothing says that it is wrong.
	if cfg.Architecture != "" && cfg.OS != "" && !in.match.Match(p) {
		if !slices.ContainsFunc(in.seen, func(q ocispec.Platform) bool { return platforms.Format(q) == platforms.Format(p) }) {
			in.seen = append(in.seen, p)
		}
		return Image{}, errNoMatch
	}
	img := Image{
		ID:       m.Config.Digest,
		Size:     desc.Size + m.Config.Size,
		Config:   cfg.Config,
		DiffIDs:  cfg.RootFS.DiffIDs,
		Platform: p,
	}
	if len(cfg.RootFS.DiffIDs) > 0 {
		img.ChainID = identity.ChainID(slices.Clone(cfg.RootFS.DiffIDs))
	}
	for _, l := range m.Layers {
		img.Size += max(l.Size, 0)
	}
	return img, nil
}

func (in *inspector) count(n int) error {
	if in.descriptors += n; in.descriptors > maxDescriptors {
		return &failure{kind: kindRefused, msg: fmt.Sprintf("has more than %d descriptors", maxDescriptors)}
	}
	return nil
}

// read reads a blob of at most limit bytes into v.
func (in *inspector) read(ctx context.Context, desc ocispec.Descriptor, limit int64, v any) error {
	ra, err := in.cs.ReaderAt(ctx, desc)
	if err != nil {
		return fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	defer ra.Close()
	if ra.Size() > limit {
		return &failure{kind: kindRefused, msg: fmt.Sprintf("has a %s of %d bytes, over %d", desc.MediaType, ra.Size(), limit)}
	}
	b := make([]byte, ra.Size())
	if _, err := ra.ReadAt(b, 0); err != nil && err != io.EOF {
		return fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return &failure{kind: kindRefused, msg: fmt.Sprintf("has a broken %s", desc.MediaType), err: err}
	}
	return nil
}

// sourceLabel is the prefix of containerd's labels on a blob that say from
// which registry it came: prefix + host without port = repository[,repository…].
const sourceLabel = "containerd.io/distribution.source."

// sources returns the repositories that a blob came from.
func (in *inspector) sources(ctx context.Context, target digest.Digest) ([]string, error) {
	cs, ok := in.cs.(content.InfoProvider)
	if !ok {
		return nil, nil
	}
	info, err := cs.Info(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("look for the registry of %s: %w", target, err)
	}
	var out []string
	for label, repos := range info.Labels {
		host, ok := strings.CutPrefix(label, sourceLabel)
		if !ok {
			continue
		}
		for repo := range strings.SplitSeq(repos, ",") {
			out = append(out, host+"/"+repo)
		}
	}
	return out, nil
}

func listPlatforms(ps []ocispec.Platform) string {
	if len(ps) == 0 {
		return "for no platform at all"
	}
	var names []string
	for _, p := range ps {
		names = append(names, fmt.Sprintf("%.40q", platforms.Format(p)))
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > 20 {
		names = append(names[:20], fmt.Sprintf("and %d more", len(names)-20))
	}
	return "for " + strings.ReplaceAll(strings.Join(names, ", "), `"`, "") + " only"
}
