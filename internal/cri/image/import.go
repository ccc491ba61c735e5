package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
)

// localRepository names what an archive gives no repository for.
const localRepository = "localhost/import"

// Import reads a docker-save or OCI-layout archive (tar, or compressed with
// gzip or zstd), unpacks the images in it that can run here and returns their
// names, sorted. If none can, that is an error (IsNoPlatform) and nothing is
// kept. A tag without a repository is named localhost/import:TAG, an image
// without either localhost/import@DIGEST. Existing names are moved.
func (s *Store) Import(ctx context.Context, r io.Reader) ([]string, error) {
	ctx, done, err := s.lease(s.namespaced(ctx))
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	defer done()
	limited := &limitReader{r: r, left: s.cfg.MaxSize, ctx: ctx}
	records, err := s.cfg.Client.Import(ctx, limited,
		containerd.WithImportPlatform(s.match),
		containerd.WithSkipMissing(),
		containerd.WithImageRefTranslator(importName),
		containerd.WithDigestRef(func(d digest.Digest) string { return localRepository + "@" + d.String() }),
		containerd.WithSkipDigestRef(func(name string) bool { return name != "" }))
	if err != nil {
		return nil, importError(err, limited.err)
	}
	return s.imported(ctx, records)
}

func importError(err, limit error) error {
	if limit != nil {
		err = limit
	}
	var f *failure
	if errors.As(err, &f) {
		return &failure{kind: f.kind, msg: "import images: " + f.msg, err: f.err}
	}
	return &failure{kind: kindRefused, msg: "import images: not a usable docker or OCI archive", err: err}
}

// imported keeps what can run here and takes back the rest.
func (s *Store) imported(ctx context.Context, records []images.Image) ([]string, error) {
	var names []string
	var problems []error
	for _, r := range records {
		s.cache.drop(r.Target.Digest)
		img, err := s.named(ctx, r)
		if err == nil {
			img, err = s.Unpack(ctx, img)
		}
		if err == nil {
			names = append(names, img.Name)
			continue
		}
		problems = append(problems, err)
		s.takeBack(ctx, r.Name, images.Image{})
	}
	slices.Sort(names)
	switch {
	case len(names) > 0:
		for _, p := range problems {
			s.cfg.Logger.Warn("leave out image of archive", "err", p)
		}
		return slices.Compact(names), nil
	case len(problems) > 0:
		return nil, fmt.Errorf("import images: %w", problems[0])
	}
	return nil, &failure{kind: kindRefused, msg: "import images: the archive holds no image"}
}

// importName makes a complete name of an OCI layout's ref.name, which may be a
// tag only. "" leaves the image without this name.
func importName(ref string) string {
	if !strings.ContainsAny(ref, "/:@") {
		ref = localRepository + ":" + ref
	}
	name, err := Name(ref)
	if err != nil {
		return ""
	}
	return name
}

// limitReader ends an archive that is larger than the limit, or whose import
// was cancelled, with an error.
type limitReader struct {
	r    io.Reader
	left int64
	ctx  context.Context
	err  error
}

func (l *limitReader) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	if l.left <= 0 {
		l.err = &failure{kind: kindRefused, msg: "the archive is larger than the limit"}
		return 0, l.err
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}
