package pod

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// TokenWish is what a pod asks of a token of its service account.
type TokenWish struct {
	Audience string // "": the API server's own
	Seconds  int64  // how long it is to be valid; 0: not said
}

// WishOf is what a source of a projected volume asks for.
func WishOf(s *corev1.ServiceAccountTokenProjection) TokenWish {
	w := TokenWish{Audience: s.Audience}
	if s.ExpirationSeconds != nil {
		w.Seconds = *s.ExpirationSeconds
	}
	return w
}

// Tokens lists what the pod's volumes show of tokens, each once.
func Tokens(p *corev1.Pod) []TokenWish {
	var all []TokenWish
	for i := range p.Spec.Volumes {
		projected := p.Spec.Volumes[i].Projected
		if projected == nil {
			continue
		}
		for j := range projected.Sources {
			if s := projected.Sources[j].ServiceAccountToken; s != nil {
				if w := WishOf(s); !slices.Contains(all, w) {
					all = append(all, w)
				}
			}
		}
	}
	return all
}

// FSUser is the user that all containers of the pod run as by its spec, the only
// one who has to read its tokens; nil where they differ or one does not say
// (kubelet, FsUserFrom).
func FSUser(p *corev1.Pod) *int64 {
	var user *int64
	same := func(sc *corev1.SecurityContext) bool {
		as := (*int64)(nil)
		if p.Spec.SecurityContext != nil {
			as = p.Spec.SecurityContext.RunAsUser
		}
		if sc != nil && sc.RunAsUser != nil {
			as = sc.RunAsUser
		}
		if as == nil || user != nil && *user != *as {
			return false
		}
		user = as
		return true
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if !same(list[i].SecurityContext) {
				return nil
			}
		}
	}
	for i := range p.Spec.EphemeralContainers {
		if !same(p.Spec.EphemeralContainers[i].SecurityContext) {
			return nil
		}
	}
	return user
}
