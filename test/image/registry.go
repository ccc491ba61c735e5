package image

import (
	"path"
	"strings"
)

// Registry returns the files, by their path below its directory, from which the
// fake-registry-server of Kubernetes' agnhost image serves the images: each by the
// last part of its name, and under a tag.
func Registry(tag string, specs ...Spec) (map[string]File, error) {
	r := registry{}
	for _, s := range specs {
		name, _, _ := strings.Cut(path.Base(s.Name), ":")
		l := layout{to: under{r, name}, seen: map[string]bool{}}
		m, err := l.image(s)
		if err != nil {
			return nil, err
		}
		// Who asks for a tag is sent on to what the file holds; a manifest lies
		// beside the blobs there, not among them.
		r[path.Join(name, "manifests", tag)] = File{Mode: 0o644, Data: []byte(m.Digest + "\n")}
		data := r[path.Join(name, "blobs", nested(m.Digest))]
		r[path.Join(name, "manifests", nested(m.Digest))] = data
	}
	return r, nil
}

type registry map[string]File

// under stores the blobs of one image.
type under struct {
	registry
	name string
}

func (u under) put(name string, data []byte) error {
	digest := strings.Replace(strings.TrimPrefix(name, "blobs/"), "/", ":", 1)
	u.registry[path.Join(u.name, "blobs", nested(digest))] = File{Mode: 0o644, Data: data}
	return nil
}

// nested is where a digest's data lies: sha256/ab/abcd…/data.
func nested(digest string) string {
	kind, hash, _ := strings.Cut(digest, ":")
	return path.Join(kind, hash[:2], hash, "data")
}
