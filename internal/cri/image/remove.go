package image

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
)

// Remove removes ref: a name, or with an image id all names of the image. It
// returns when containerd has collected what nothing refers to any more. What
// is absent is no error.
func (s *Store) Remove(ctx context.Context, ref string) error {
	names, err := s.namesOf(ctx, ref)
	if IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.removeNames(ctx, names)
}

func (s *Store) namesOf(ctx context.Context, ref string) ([]string, error) {
	prefix, sure := asID(ref)
	if !sure {
		name, err := Name(ref)
		if err != nil {
			return nil, err
		}
		if _, err = s.record(ctx, name); err == nil || !IsNotFound(err) || prefix == "" {
			return []string{name}, err
		}
	}
	img, err := s.byID(ctx, ref, prefix)
	if err != nil {
		return nil, err
	}
	return s.allNames(ctx, img)
}

// allNames are the names of all records that are the same image.
func (s *Store) allNames(ctx context.Context, img Image) ([]string, error) {
	records, err := s.records(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range records {
		if img.ID == "" {
			if r.Name == img.Name {
				names = append(names, r.Name)
			}
			continue
		}
		if other, err := s.inspect(ctx, r.Target); err == nil && other.ID == img.ID {
			names = append(names, r.Name)
		}
	}
	return names, nil
}

func (s *Store) removeNames(ctx context.Context, names []string) error {
	for i, name := range names {
		var opts []images.DeleteOpt
		if i == len(names)-1 {
			opts = append(opts, images.SynchronousDelete())
		}
		// Collecting the garbage of a large store takes its time.
		ctx, cancel := context.WithTimeout(s.namespaced(ctx), unpackDeadline)
		err := s.cfg.Client.ImageService().Delete(ctx, name, opts...)
		cancel()
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image %q: %w", name, err)
		}
	}
	return nil
}

// Prune removes every image that is not pinned and for which inUse is false, and
// returns what went, also when it fails on the way. An image that is about to be
// used must be seen as in use: nothing else protects it.
func (s *Store) Prune(ctx context.Context, inUse func(Image) bool) ([]Image, error) {
	list, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var gone []Image
	for _, img := range list {
		if img.Pinned || inUse(img) {
			continue
		}
		names, err := s.allNames(ctx, img)
		if err == nil {
			err = s.removeNames(ctx, names)
		}
		if err != nil {
			return gone, err
		}
		gone = append(gone, img)
	}
	return gone, nil
}

// Sweep gives back the leases that a daemon of the same Owner left when it
// died, so that what it pulled half is collected. Leases that are younger than
// this Store are its own.
func (s *Store) Sweep(ctx context.Context) error {
	ctx, cancel := s.call(ctx)
	defer cancel()
	ls := s.cfg.Client.LeasesService()
	left, err := ls.List(ctx, fmt.Sprintf("labels.%q==%q", ownerLabel, s.cfg.Owner))
	if err != nil {
		return fmt.Errorf("list leases of images: %w", err)
	}
	for _, l := range left {
		if !l.CreatedAt.Before(s.born) {
			continue
		}
		if err := ls.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("give back lease %s: %w", l.ID, err)
		}
	}
	return nil
}
