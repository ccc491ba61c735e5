package image

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// maxName bounds a reference; what a registry accepts is far shorter.
const maxName = 1024

// Name normalises a reference as CRI does: familiar names become complete
// ("busybox" is "docker.io/library/busybox:latest"), and of a tag and a digest
// together the digest is kept. IsInvalidName tells that ref is no reference.
func Name(ref string) (string, error) {
	named, err := parseName(ref)
	if err != nil {
		return "", err
	}
	return named.String(), nil
}

func parseName(ref string) (reference.Named, error) {
	if len(ref) > maxName {
		return nil, &failure{kind: kindInvalidName, msg: fmt.Sprintf("image name of %d characters is too long", len(ref))}
	}
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return nil, &failure{kind: kindInvalidName, msg: fmt.Sprintf("parse image name %q", ref), err: err}
	}
	return named, nil
}

var (
	wholeID = regexp.MustCompile(`^(sha256:)?[0-9a-f]{64}$`)
	shortID = regexp.MustCompile(`^(sha256:)?[0-9a-f]{8,63}$`)
)

// asID returns the start of the image id that ref may be, "" for a name.
func asID(ref string) (prefix string, sure bool) {
	switch {
	case wholeID.MatchString(ref):
		return "sha256:" + strings.TrimPrefix(ref, "sha256:"), true
	case shortID.MatchString(ref):
		return "sha256:" + strings.TrimPrefix(ref, "sha256:"), strings.HasPrefix(ref, "sha256:")
	}
	return "", false
}

// Repository is the part of a reference before tag and digest, made complete; ""
// where it is no name.
func Repository(ref string) string { return repository(ref) }

// repository is the part of a complete name before tag and digest.
func repository(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return ""
	}
	return named.Name()
}

// withoutPort is a repository as containerd's source labels name it.
func withoutPort(repo string) string {
	host, path, _ := strings.Cut(repo, "/")
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.Trim(host, "[]") + "/" + path
}

// digestOf is the digest of a name that has one.
func digestOf(named reference.Named) digest.Digest {
	if d, ok := named.(reference.Digested); ok {
		return d.Digest()
	}
	return ""
}
