package object

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// A token is asked for anew when four fifths of its life are over, a twentieth of
// it left to chance so that pods which came together do not ask together, and
// after a day at the latest (kubelet, requiresRefresh).
const (
	tokenLongest = 24 * time.Hour
	tokenShare   = 0.8
	tokenJitter  = 0.05
)

// token is one that a pod has of its service account. All but the first three is
// guarded by the Store's mu.
type token struct {
	asking
	s    *Store
	pod  *corev1.Pod
	wish pod.TokenWish

	first   chan struct{} // closed when the first attempt has ended
	text    string        // secret: it appears in no log and no error
	expires time.Time     // on our own clock, whatever the server's says
	err     error         // of the last attempt
	told    bool
	backoff backoff // belongs to the turns
}

// String keeps the token out of everything that formats one.
func (t *token) String() string { return fmt.Sprintf("token of pod %s", t.pod.UID) }

// GoString is String.
func (t *token) GoString() string { return t.String() }

// LogValue is String.
func (t *token) LogValue() slog.Value { return slog.StringValue(t.String()) }

func (s *Store) newToken(p *corev1.Pod, w pod.TokenWish) *token {
	t := &token{s: s, pod: p, wish: w, first: make(chan struct{})}
	t.asking = s.newAsking(s.ctx, t.fetch)
	return t
}

// Token returns a token of the pod's service account, from memory, like
// ConfigMap. Changed is called with the pod's UID under TokenKind when there is
// another one.
func (s *Store) Token(p *corev1.Pod, w pod.TokenWish) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	missing := unread{ref: tokenRef(p), name: fmt.Sprintf("of %s/%s", p.Namespace, p.Spec.ServiceAccountName)}
	k := s.pods[p.UID]
	if k == nil || k.tokens[w] == nil {
		return "", missing
	}
	t := k.tokens[w]
	t.told = true
	if t.text == "" || !time.Now().Before(t.expires) {
		missing.err = t.err
		if t.text != "" {
			missing.err = fmt.Errorf("token expired and refresh failed: %w", t.err)
		}
		return "", missing
	}
	return t.text, nil
}

func tokenRef(p *corev1.Pod) pod.ObjectRef {
	return pod.ObjectRef{Kind: pod.TokenKind, Namespace: p.Namespace, Name: string(p.UID)}
}

// fetch asks for a token and returns when to do so again.
func (t *token) fetch(ctx context.Context) time.Duration {
	// The life is counted from before the request by our own clock: that of the
	// server may be another.
	asked := time.Now()
	text, life, err := t.request(ctx)
	t.s.mu.Lock()
	news := t.told && t.ctx.Err() == nil && (err == nil || t.text == "" && (t.err == nil || reason(t.err) != reason(err)))
	again := t.err != nil && err != nil && reason(t.err) == reason(err) // said already
	t.err = err
	if err == nil {
		t.text, t.expires = text, asked.Add(life)
	}
	select {
	case <-t.first:
	default:
		close(t.first)
	}
	if news {
		t.told = false
	}
	held := t.text != ""
	t.s.mu.Unlock()
	if news {
		t.s.cfg.Changed(tokenRef(t.pod))
	}
	if err != nil {
		if held && !again {
			t.s.cfg.Logger.Warn("keep the old token", "pod", t.pod.Namespace+"/"+t.pod.Name, "podUID", t.pod.UID, "err", err)
		}
		return t.backoff.next(err)
	}
	t.backoff.reset()
	share := tokenShare - tokenJitter*rand.Float64()
	// A token that is over as soon as it is there is not asked for without a pause.
	return max(time.Until(asked.Add(min(time.Duration(share*float64(life)), tokenLongest))), lastWait/30)
}

func (t *token) request(ctx context.Context) (text string, life time.Duration, err error) {
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: t.pod.Name, UID: t.pod.UID},
	}}
	if t.wish.Audience != "" {
		r.Spec.Audiences = []string{t.wish.Audience}
	}
	if t.wish.Seconds != 0 {
		r.Spec.ExpirationSeconds = &t.wish.Seconds
	}
	answer, err := t.s.cfg.API.Token(ctx, t.pod.Namespace, t.pod.Spec.ServiceAccountName, r)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return "", 0, fmt.Errorf("failed to fetch token: %w", err)
	}
	if answer.Spec.ExpirationSeconds != nil {
		life = pod.Seconds(*answer.Spec.ExpirationSeconds)
	} else {
		life = time.Until(answer.Status.ExpirationTimestamp.Time)
	}
	if answer.Status.Token == "" || life <= 0 {
		return "", 0, errors.New("failed to fetch token: the API server's answer holds none that is valid")
	}
	return answer.Status.Token, life, nil
}
