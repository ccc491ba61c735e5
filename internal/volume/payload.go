package volume

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"nodeagent/internal/pod"
)

// Objects has the ConfigMaps and Secrets of pods. One that is not there is an
// error of which apierrors.IsNotFound is true.
type Objects interface {
	ConfigMap(namespace, name string) (*corev1.ConfigMap, error)
	Secret(namespace, name string) (*corev1.Secret, error)
}

// Tokens has the service account tokens of pods.
type Tokens interface {
	Token(p *corev1.Pod, w pod.TokenWish) (string, error)
}

// payload is what a volume shows: files by their paths in it.
type payload map[string]file

type file struct {
	data []byte
	mode uint32
	uid  uint32 // who owns it; zero is root
}

// absentKey is an object without the key that a volume asks for. Only a change
// of the object helps.
type absentKey struct{ kind, key string }

func (e absentKey) Error() string {
	return fmt.Sprintf("references non-existent %s key: %s", e.kind, e.key)
}

// Absent tells that trying again helps only when the object has changed.
func (e absentKey) Absent() bool { return true }

// payload gathers what the volume shows now.
func (v *Volumes) payload(p *corev1.Pod, vol *corev1.Volume) (payload, error) {
	switch {
	case vol.ConfigMap != nil:
		return v.configMap(p.Namespace, vol.ConfigMap.Name, vol.ConfigMap.Items, modeOr(vol.ConfigMap.DefaultMode), vol.ConfigMap.Optional)
	case vol.Secret != nil:
		return v.secret(p.Namespace, vol.Secret.SecretName, vol.Secret.Items, modeOr(vol.Secret.DefaultMode), vol.Secret.Optional)
	case vol.DownwardAPI != nil:
		return v.downward(p, vol.DownwardAPI.Items, modeOr(vol.DownwardAPI.DefaultMode))
	default:
		return v.projected(p, vol.Projected)
	}
}

// projected merges the sources; of two that write one path the last wins.
func (v *Volumes) projected(p *corev1.Pod, s *corev1.ProjectedVolumeSource) (payload, error) {
	all, mode := payload{}, modeOr(s.DefaultMode)
	for i := range s.Sources {
		var part payload
		var err error
		switch src := &s.Sources[i]; {
		case src.ConfigMap != nil:
			part, err = v.configMap(p.Namespace, src.ConfigMap.Name, src.ConfigMap.Items, mode, src.ConfigMap.Optional)
		case src.Secret != nil:
			part, err = v.secret(p.Namespace, src.Secret.Name, src.Secret.Items, mode, src.Secret.Optional)
		case src.DownwardAPI != nil:
			part, err = v.downward(p, src.DownwardAPI.Items, mode)
		case src.ServiceAccountToken != nil:
			part, err = v.token(p, src.ServiceAccountToken, mode)
		default:
			err = fmt.Errorf("source %d is of a kind that this node does not project", i)
		}
		if err != nil {
			return nil, err
		}
		maps.Copy(all, part)
	}
	return all, nil
}

// token shows a token of the pod's service account. Where it is known who has to
// read it, by the pod's user or group, nobody else may (kubelet, collectData of
// projected volumes).
func (v *Volumes) token(p *corev1.Pod, s *corev1.ServiceAccountTokenProjection, mode uint32) (payload, error) {
	if v.cfg.Tokens == nil {
		return nil, errors.New("cannot show a service account token: this node has no API server")
	}
	text, err := v.cfg.Tokens.Token(p, pod.WishOf(s))
	if err != nil {
		return nil, err
	}
	f := file{data: []byte(text), mode: mode}
	user := pod.FSUser(p)
	if user != nil || fsGroup(p) >= 0 {
		f.mode = 0o600
	}
	if user != nil {
		f.uid = uint32(*user)
	}
	return payload{path.Clean(s.Path): f}, nil
}

func (v *Volumes) configMap(namespace, name string, items []corev1.KeyToPath, mode uint32, optional *bool) (payload, error) {
	m, err := v.cfg.Objects.ConfigMap(namespace, name)
	if missing(err, optional) {
		return payload{}, nil
	}
	if err != nil {
		return nil, err
	}
	data := make(map[string][]byte, len(m.Data)+len(m.BinaryData))
	for k, text := range m.Data {
		data[k] = []byte(text)
	}
	maps.Copy(data, m.BinaryData)
	return pick(data, items, mode, optional, "config")
}

func (v *Volumes) secret(namespace, name string, items []corev1.KeyToPath, mode uint32, optional *bool) (payload, error) {
	s, err := v.cfg.Objects.Secret(namespace, name)
	if missing(err, optional) {
		return payload{}, nil
	}
	if err != nil {
		return nil, err
	}
	return pick(s.Data, items, mode, optional, "secret")
}

// missing tells that an object is not there and need not be.
func missing(err error, optional *bool) bool {
	return apierrors.IsNotFound(err) && optional != nil && *optional
}

// isUnread tells that nobody knows whether an object exists, since the API server
// has not told of it.
func isUnread(err error) bool {
	var u interface{ Unread() bool }
	return errors.As(err, &u) && u.Unread()
}

// pick returns all keys, or those that the items name, under the items' paths.
func pick(data map[string][]byte, items []corev1.KeyToPath, mode uint32, optional *bool, kind string) (payload, error) {
	all := payload{}
	if len(items) == 0 {
		for k, d := range data {
			all[k] = file{data: d, mode: mode}
		}
		return all, nil
	}
	for _, item := range items {
		d, ok := data[item.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}
			return nil, absentKey{kind, item.Key}
		}
		f := file{data: d, mode: mode}
		if item.Mode != nil {
			f.mode = uint32(*item.Mode)
		}
		all[item.Path] = f
	}
	return all, nil
}

// downward shows fields of the pod and resources of its containers.
func (v *Volumes) downward(p *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode uint32) (payload, error) {
	all := payload{}
	for i := range items {
		item := &items[i]
		var text string
		var err error
		if item.FieldRef != nil {
			text, err = v.cfg.Place.Field(p, item.FieldRef.FieldPath)
		} else if item.ResourceFieldRef != nil {
			text, err = v.cfg.Place.Resource(p, nil, item.ResourceFieldRef)
		} else {
			err = fmt.Errorf("the file %s shows neither a field nor a resource", item.Path)
		}
		if err != nil {
			return nil, err
		}
		f := file{data: []byte(text), mode: mode}
		if item.Mode != nil {
			f.mode = uint32(*item.Mode)
		}
		all[path.Clean(item.Path)] = f
	}
	return all, nil
}

// modeOr is the mode of files that have none of their own.
func modeOr(m *int32) uint32 {
	if m == nil {
		return 0o644
	}
	return uint32(*m)
}

// maxPathLength and maxNameLength bound the paths in a volume, as kubelet does.
const (
	maxPathLength = 4096
	maxNameLength = 255
)

// check refuses paths that would lead out of the volume, or into what makes it
// change at once. Validation does too, but not for the keys of an object.
func (p payload) check() error {
	for name := range p {
		if !filepath.IsLocal(name) || path.Clean(name) != name || name == "." || strings.HasPrefix(name, "..") ||
			len(name) > maxPathLength || strings.IndexByte(name, 0) >= 0 {
			return fmt.Errorf("the path %q of a file is not valid in a volume", name)
		}
		for part := range strings.SplitSeq(name, "/") {
			if len(part) > maxNameLength {
				return fmt.Errorf("the path %q of a file is not valid in a volume: a name is longer than %d", name, maxNameLength)
			}
		}
	}
	return nil
}
