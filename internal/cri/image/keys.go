package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Keys are the credentials of a pod's pull secrets; the zero value has none.
// They are tried before the node's own, the longest key first.
type Keys struct {
	ring keyring
	sum  string // of all of them: two pods with the same keys share a pull
}

// String keeps secrets out of everything that formats Keys.
func (k Keys) String() string { return fmt.Sprintf("%d credentials", len(k.ring.entries)) }

// GoString is String.
func (k Keys) GoString() string { return k.String() }

// KeysOf reads pull secrets: .dockerconfigjson or the older .dockercfg. One that
// cannot be read is left out and told of, without a word of what it holds.
func KeysOf(secrets []*corev1.Secret) (Keys, error) {
	var k Keys
	var errs []error
	for _, s := range secrets {
		var err error
		switch {
		case s.Type == corev1.SecretTypeDockercfg:
			var auths json.RawMessage = s.Data[corev1.DockerConfigKey]
			var whole []byte
			if whole, err = json.Marshal(map[string]json.RawMessage{"auths": auths}); err == nil {
				err = k.ring.add(whole)
			} else {
				err = errors.New("not a docker config: broken JSON")
			}
		case s.Type == corev1.SecretTypeDockerConfigJson:
			err = k.ring.add(s.Data[corev1.DockerConfigJsonKey])
		default:
			err = fmt.Errorf("its type %s is none of pull secrets", s.Type)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("use pull secret %s/%s: %w", s.Namespace, s.Name, err))
		}
	}
	all := sha256.New()
	for i := range k.ring.entries {
		e := &k.ring.entries[i]
		e.auth.grant = grantOf(e.auth)
		fmt.Fprintf(all, "%q %q %q\n", e.host, e.path, e.auth.grant)
	}
	if len(k.ring.entries) > 0 {
		k.sum = hex.EncodeToString(all.Sum(nil))
	}
	return k, errors.Join(errs...)
}

// grantOf stands for credentials where it is noted who may use an image: it
// tells whether two are the same, and not what they are.
func grantOf(a Auth) string {
	h := sha256.Sum256(fmt.Appendf(nil, "nodeagent pull %q %q %q", a.Username, a.Password, a.IdentityToken))
	return hex.EncodeToString(h[:16])
}

// accessLabel notes on an image's record with what it was pulled: accessNode, or
// the grants of the credentials, separated by commas. An image without it was
// not pulled by this program.
const (
	accessLabel = "nodeagent.io/pulled-with"
	accessNode  = "node"
	maxGrants   = 64 // a label has at most 4096 bytes
)

// Access tells for whom an image was pulled.
type Access struct {
	// Pulled: by this program. Else it was brought in by hand.
	Pulled bool
	// Node: without credentials or with the node's own, so that every pod may
	// use it.
	Node   bool
	grants []string
}

func accessOf(labels map[string]string) Access {
	text, pulled := labels[accessLabel]
	switch {
	case !pulled:
		return Access{}
	case text == accessNode:
		return Access{Pulled: true, Node: true}
	}
	return Access{Pulled: true, grants: strings.Split(text, ",")}
}

// Opens tells whether one who has the keys has pulled the image before, or could
// without any.
func (a Access) Opens(k Keys) bool {
	return a.Node || slices.ContainsFunc(k.ring.entries, func(e entry) bool {
		return e.unusable == "" && slices.Contains(a.grants, e.auth.grant)
	})
}

// with is the access to one content by two names: who may use it by one may.
func (a Access) with(b Access) Access {
	return Access{Pulled: a.Pulled && b.Pulled, Node: a.Node || b.Node, grants: union(a.grants, b.grants...)}
}

func (a Access) label() string {
	if a.Node {
		return accessNode
	}
	return strings.Join(a.grants, ",")
}

// label is what is noted of a pull with these credentials.
func (a Auth) label() string {
	if a.grant == "" {
		return accessNode
	}
	return a.grant
}
