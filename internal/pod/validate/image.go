package validate

import (
	"regexp"
	"strings"
)

// The grammar of an image reference, [host[:port]/]path[:tag][@digest], as
// the distribution project states it (distribution/reference, reference.go).
const (
	hostPart  = `(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])`
	imageHost = `(?:` + hostPart + `(?:\.` + hostPart + `)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?`
	pathPart  = `[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*`

	maxImagePath = 255
)

var (
	imageReference = regexp.MustCompile(`^(` + imageHost + `/)(` + pathPart + `(?:/` + pathPart + `)*)` +
		`(?::([\w][\w.-]{0,127}))?` + `(?:@(.+))?$`)
	imageDigest = regexp.MustCompile(`^(?:sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128})$`)
	bareDigest  = regexp.MustCompile(`^[a-f0-9]{64}$`)
)

// imageTag returns the tag of an image: "latest" if it has neither tag nor
// digest, and "" if it has only a digest or is no image reference at all.
func imageTag(image string) string {
	if bareDigest.MatchString(image) {
		return ""
	}
	m := imageReference.FindStringSubmatch(withHost(image))
	if m == nil || len(m[2]) > maxImagePath {
		return ""
	}
	switch tag, digest := m[3], m[4]; {
	case digest != "" && !imageDigest.MatchString(digest):
		return ""
	case tag == "" && digest == "":
		return "latest"
	default:
		return tag
	}
}

// withHost puts Docker Hub before an image without a host. The first part of a
// name is a host if it has a dot, a port or an upper-case letter, or is localhost.
func withHost(image string) string {
	const hub = "docker.io"
	first, rest, ok := strings.Cut(image, "/")
	switch {
	case !ok:
		return hub + "/library/" + image
	case first == "index.docker.io", first == hub:
		if !strings.Contains(rest, "/") {
			rest = "library/" + rest
		}
		return hub + "/" + rest
	case first == "localhost", strings.ContainsAny(first, ".:"), strings.ToLower(first) != first:
		return image
	default:
		return hub + "/" + image
	}
}
