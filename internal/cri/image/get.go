package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
)

// Get returns the image of ref: a name, or an image id (config digest, whole,
// or its start where that is the only one). IsNotFound tells that it is not
// there; IsNoPlatform that what is there cannot run here. It costs one call to
// containerd where the image was seen before.
func (s *Store) Get(ctx context.Context, ref string) (Image, error) {
	prefix, sure := asID(ref)
	if sure {
		return s.byID(ctx, ref, prefix)
	}
	named, err := parseName(ref)
	if err != nil {
		return Image{}, err
	}
	record, err := s.record(ctx, named.String())
	if IsNotFound(err) && digestOf(named) != "" {
		record, err = s.byDigest(ctx, named.Name(), digestOf(named).String(), err)
	}
	if IsNotFound(err) && prefix != "" {
		return s.byID(ctx, ref, prefix)
	}
	if err != nil {
		return Image{}, err
	}
	return s.named(ctx, record)
}

// record reads the record of a complete name.
func (s *Store) record(ctx context.Context, name string) (images.Image, error) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	record, err := s.cfg.Client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return record, &failure{kind: kindNotFound, msg: fmt.Sprintf("image %q is not on this node", name)}
	}
	if err != nil {
		return record, fmt.Errorf("look up image %q: %w", name, err)
	}
	return record, nil
}

// byDigest looks for another name of the same repository that points at the
// digest: what was pulled by tag is there by digest too.
func (s *Store) byDigest(ctx context.Context, repo, dgst string, notFound error) (images.Image, error) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	records, err := s.cfg.Client.ImageService().List(ctx, "target.digest=="+dgst)
	if err != nil {
		return images.Image{}, fmt.Errorf("look up image by digest: %w", err)
	}
	for _, r := range records {
		if repository(r.Name) == repo {
			return r, nil
		}
	}
	return images.Image{}, notFound
}

func (s *Store) byID(ctx context.Context, ref, prefix string) (Image, error) {
	list, err := s.List(ctx)
	if err != nil {
		return Image{}, err
	}
	var found []Image
	for _, img := range list {
		if img.Problem == "" && strings.HasPrefix(img.ID.String(), prefix) {
			found = append(found, img)
		}
	}
	switch len(found) {
	case 0:
		return Image{}, &failure{kind: kindNotFound, msg: fmt.Sprintf("image %q is not on this node", ref)}
	case 1:
		return found[0], nil
	}
	return Image{}, &failure{kind: kindInvalidName, msg: fmt.Sprintf("image id %q is the start of %d images", ref, len(found))}
}

// named completes what is known by digest with what the record's name says.
func (s *Store) named(ctx context.Context, record images.Image) (Image, error) {
	img, err := s.inspect(ctx, record.Target)
	if err != nil {
		return Image{}, s.explain(record.Name, err)
	}
	if img.lost {
		s.cache.drop(record.Target.Digest) // said once: somebody else may bring it back
		return Image{}, &failure{kind: kindNotFound, msg: fmt.Sprintf("image %q is not whole on this node: a layer of it is gone", record.Name)}
	}
	img.Name, img.Access, img.Pinned = record.Name, accessOf(record.Labels), record.Labels[pinnedLabel] == pinned
	if !strings.Contains(record.Name, "@") {
		img.RepoTags = []string{record.Name}
	}
	// Only what a registry served has a repository digest: that of an import
	// could be pulled from nowhere.
	if slices.Contains(img.sources, withoutPort(repository(record.Name))) {
		img.RepoDigests = []string{repository(record.Name) + "@" + img.Target.String()}
	}
	return img, nil
}

// explain makes an error of inspect, which knows no name, a sentence.
func (s *Store) explain(name string, err error) error {
	var f *failure
	if !errors.As(err, &f) {
		if errdefs.IsNotFound(err) {
			return &failure{kind: kindNotFound, msg: fmt.Sprintf("image %q is on this node in part only", name), err: err}
		}
		return fmt.Errorf("inspect image %q: %w", name, err)
	}
	msg := fmt.Sprintf("image %q %s", name, f.msg)
	if f.kind == kindNoPlatform {
		msg += "; this node is " + platforms.Format(*s.cfg.Platform)
	}
	return &failure{kind: f.kind, msg: msg, err: f.err}
}

// List returns all images, one entry an image id, sorted by name. What cannot
// run here is listed with its Problem.
func (s *Store) List(ctx context.Context) ([]Image, error) {
	records, err := s.records(ctx)
	if err != nil {
		return nil, err
	}
	byID := map[string]int{}
	var out []Image
	for _, r := range records {
		img, err := s.named(ctx, r)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("list images: %w", context.Cause(ctx))
		}
		if err != nil {
			img = Image{Name: r.Name, Target: r.Target.Digest, RepoTags: []string{r.Name}, Problem: err.Error()}
		}
		key := img.ID.String()
		if key == "" {
			key = r.Name
		}
		i, ok := byID[key]
		if !ok {
			byID[key] = len(out)
			out = append(out, img)
			continue
		}
		out[i] = merge(out[i], img)
	}
	for i := range out {
		// The CRI plugin names each image by its id as well.
		out[i].RepoTags = slices.DeleteFunc(slices.Clone(out[i].RepoTags), func(n string) bool { return strings.HasPrefix(n, "sha256:") })
	}
	slices.SortFunc(out, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// merge adds the names of b to a; both are one image.
func merge(a, b Image) Image {
	a.RepoTags = union(a.RepoTags, b.RepoTags...)
	a.RepoDigests = union(a.RepoDigests, b.RepoDigests...)
	a.Access, a.Pinned = a.Access.with(b.Access), a.Pinned || b.Pinned
	if better := b.Name; strings.HasPrefix(a.Name, "sha256:") || strings.Contains(a.Name, "@") && !strings.Contains(better, "@") && !strings.HasPrefix(better, "sha256:") {
		a.Name = better
	}
	return a
}

// union is the sorted union of a and b, in memory of its own.
func union(a []string, b ...string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}
