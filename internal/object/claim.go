package object

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"nodeagent/internal/pod"
)

// claimed is a claim and the volume that it is bound to.
type claimed struct {
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
}

// newClaim makes a claim be asked for. The node authorizer lets a node get claims
// and their volumes, and neither list nor watch them; so one is asked for until
// it is bound, which never changes again, and once more for each new pod.
func (s *Store) newClaim(e *entry) *asking {
	var b backoff
	a := s.newAsking(e.ctx, func(ctx context.Context) time.Duration {
		c, said, err := s.getClaim(ctx, e.ref)
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
		if err != nil {
			s.fail(e, fmt.Errorf("error processing PVC %s/%s: %w", e.ref.Namespace, e.ref.Name, err), said)
			return b.next(err)
		}
		b.reset()
		s.mu.Lock()
		held, _ := e.value.(*claimed)
		s.mu.Unlock()
		if held != nil && equality.Semantic.DeepEqual(held.claim, c.claim) && equality.Semantic.DeepEqual(held.volume, c.volume) {
			c = held
		}
		s.put(e, c)
		return 0
	})
	return &a
}

// getClaim reads a claim that is bound, and its volume. said tells that an error
// is the API server's word on the claim.
func (s *Store) getClaim(ctx context.Context, ref pod.ObjectRef) (c *claimed, said bool, err error) {
	o, err := s.cfg.API.Get(ctx, ref)
	if err != nil {
		return nil, notFound(err), fmt.Errorf("failed to fetch PVC from API server: %w", err)
	}
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil, false, fmt.Errorf("failed to fetch PVC from API server: the answer is a %T", o)
	}
	if err := pod.ClaimBound(claim); err != nil {
		return nil, true, err
	}
	o, err = s.cfg.API.Get(ctx, pod.ObjectRef{Kind: VolumeKind, Name: claim.Spec.VolumeName})
	if err != nil {
		return nil, notFound(err), fmt.Errorf("failed to fetch PV %s from API server: %w", claim.Spec.VolumeName, err)
	}
	v, ok := o.(*corev1.PersistentVolume)
	if !ok {
		return nil, false, fmt.Errorf("failed to fetch PV %s from API server: the answer is a %T", claim.Spec.VolumeName, o)
	}
	if err := pod.VolumeOfClaim(v, claim); err != nil {
		return nil, true, err
	}
	kept := &claimed{
		claim:  &corev1.PersistentVolumeClaim{ObjectMeta: trimmed(&claim.ObjectMeta)},
		volume: &corev1.PersistentVolume{ObjectMeta: trimmed(&v.ObjectMeta), Spec: v.Spec},
	}
	kept.claim.OwnerReferences = claim.OwnerReferences
	return kept, false, nil
}

// Claim returns the volume that the claim behind a volume of the pod is bound to,
// from memory, like ConfigMap; an error names what this node cannot mount.
func (s *Store) Claim(p *corev1.Pod, vol *corev1.Volume) (*corev1.PersistentVolume, error) {
	ref := pod.ObjectRef{Kind: pod.ClaimKind, Namespace: p.Namespace, Name: pod.ClaimName(p, vol)}
	value, err := s.read(ref, corev1.Resource("persistentvolumeclaims"))
	if err != nil {
		return nil, err
	}
	c := value.(*claimed)
	if err := pod.UsableClaim(p, vol, c.claim, c.volume, s.cfg.NodeLabels()); err != nil {
		return nil, err
	}
	return c.volume, nil
}
