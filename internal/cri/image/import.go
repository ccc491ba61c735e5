package image

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// localRepository names what an archive gives no repository for.
const localRepository = "localhost/import"

// Import reads a docker-save or OCI-layout archive (tar, or compressed with
// gzip or zstd), unpacks the images in it that can run here and returns their
// names, sorted. If none can, that is an error (IsNoPlatform) and nothing is
// kept. A tag without a repository is named localhost/import:TAG, an image
// without either localhost/import@DIGEST. Existing names are moved.
func (s *Store) Import(ctx context.Context, r io.Reader) (names []string, err error) {
	// containerd's content writers keep a stream until their context ends.
	ctx, cancel := context.WithCancel(s.namespaced(ctx))
	defer cancel()
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	defer func() { done(err) }()
	plain, closeReader, err := decompress(r)
	if err != nil {
		return nil, importError(err, nil)
	}
	defer closeReader()
	limited := &limitReader{r: plain, left: s.cfg.MaxSize, ctx: ctx}
	before, err := s.records(ctx)
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	records, err := s.cfg.Client.Import(ctx, limited,
		containerd.WithImportPlatform(s.match),
		containerd.WithSkipMissing(),
		containerd.WithImageRefTranslator(importName),
		containerd.WithDigestRef(func(d digest.Digest) string { return localRepository + "@" + d.String() }),
		containerd.WithSkipDigestRef(func(name string) bool { return name != "" }))
	if err != nil {
		return nil, importError(err, limited.err)
	}
	return s.imported(ctx, records, before)
}

func importError(err, limit error) error {
	if limit != nil {
		err = limit
	}
	var f *failure
	if errors.As(err, &f) {
		return &failure{kind: f.kind, msg: "import images: " + f.msg, err: f.err}
	}
	if errdefs.IsUnavailable(err) || errdefs.IsCanceled(err) || errdefs.IsDeadlineExceeded(err) {
		return fmt.Errorf("import images: %w", err) // containerd's fault, not the archive's
	}
	return &failure{kind: kindRefused, msg: "import images: not a usable docker or OCI archive", err: err}
}

// records are all image records by name.
func (s *Store) records(ctx context.Context) (map[string]images.Image, error) {
	ctx, cancel := s.call(ctx)
	defer cancel()
	list, err := s.cfg.Client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	out := make(map[string]images.Image, len(list))
	for _, r := range list {
		out[r.Name] = r
	}
	return out, nil
}

// imported keeps what can run here and points the other names back at what they
// were before.
func (s *Store) imported(ctx context.Context, records []images.Image, before map[string]images.Image) ([]string, error) {
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
		s.takeBack(ctx, r.Name, before[r.Name])
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

// decompress reads through gzip or zstd where the archive starts as one.
func decompress(r io.Reader) (io.Reader, func(), error) {
	b := bufio.NewReader(r)
	magic, err := b.Peek(4)
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		return z, func() {}, err
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case len(magic) == 0 && err != nil && err != io.EOF:
		return nil, nil, err
	}
	return b, func() {}, nil
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
