package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
)

// TokenReviewer asks the API server whose token that is.
type TokenReviewer interface {
	ReviewToken(ctx context.Context, token string) (authnv1.TokenReviewStatus, error)
}

// groupAuthenticated is what everybody is in who is known.
const groupAuthenticated = "system:authenticated"

// credentialID names the certificate that somebody came with (KEP-4193).
const credentialID = "authentication.kubernetes.io/credential-id"

// maxToken is longer than any token; the API server would not take more either.
const maxToken = 16 << 10

// errNobody: there is no credential that counts.
var errNobody = errors.New("no credential that counts")

// authenticator finds out who asks. There is nobody anonymous.
type authenticator struct {
	ca     *clientCA // nil: no certificate counts
	tokens TokenReviewer
	ttl    time.Duration
	known  *verdicts[authnv1.TokenReviewStatus]
	outage *outage
}

func newAuthenticator(cfg NodeAPIConfig, o *outage) *authenticator {
	n := &authenticator{
		tokens: cfg.Tokens, ttl: orUsual(cfg.TokenTTL, 2*time.Minute),
		known: newVerdicts[authnv1.TokenReviewStatus](), outage: o,
	}
	if cfg.ClientCAFile != "" {
		n.ca = &clientCA{path: cfg.ClientCAFile, log: cfg.Logger}
	}
	return n
}

func orUsual(d, usual time.Duration) time.Duration {
	if d == 0 {
		return usual
	}
	return d
}

// who returns errNobody where the request says nothing that counts, and another
// error where that could not be found out. A certificate comes before a token.
func (n *authenticator) who(r *http.Request) (authnv1.UserInfo, error) {
	if user, ok := n.byCertificate(r); ok {
		return user, nil
	}
	token, ok := bearer(r.Header)
	if !ok || n.tokens == nil {
		return authnv1.UserInfo{}, errNobody
	}
	// Refused tokens are not remembered: a flood of them would push out the good.
	status, err := n.known.get(r.Context(), sha256.Sum256([]byte(token)), func(ctx context.Context) (authnv1.TokenReviewStatus, time.Duration, error) {
		status, err := n.tokens.ReviewToken(ctx, token)
		if err != nil {
			return status, 0, err
		}
		n.outage.end()
		if !status.Authenticated {
			return status, 0, nil
		}
		return status, n.ttl, nil
	})
	switch {
	case err != nil:
		return authnv1.UserInfo{}, err
	case !status.Authenticated || status.User.Username == "":
		return authnv1.UserInfo{}, errNobody
	}
	return status.User, nil
}

// byCertificate judges the client's certificate by the authorities of now.
func (n *authenticator) byCertificate(r *http.Request) (authnv1.UserInfo, bool) {
	if n.ca == nil || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return authnv1.UserInfo{}, false
	}
	leaf, between := r.TLS.PeerCertificates[0], x509.NewCertPool()
	for _, c := range r.TLS.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: n.ca.pool(), Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil || leaf.Subject.CommonName == "" {
		return authnv1.UserInfo{}, false
	}
	digest := sha256.Sum256(leaf.Raw)
	groups := append([]string(nil), leaf.Subject.Organization...)
	return authnv1.UserInfo{
		Username: leaf.Subject.CommonName, Groups: append(groups, groupAuthenticated),
		Extra: map[string]authnv1.ExtraValue{credentialID: {"X509SHA256=" + hex.EncodeToString(digest[:])}},
	}, true
}

// bearer takes the token out of the header.
func bearer(h http.Header) (string, bool) {
	scheme, token, ok := strings.Cut(strings.TrimSpace(h.Get("Authorization")), " ")
	if token = strings.TrimSpace(token); !ok || !strings.EqualFold(scheme, "bearer") || token == "" || len(token) > maxToken {
		return "", false
	}
	return token, true
}

// authenticate answers whom nobody knows.
func (a *NodeAPI) authenticate(w http.ResponseWriter, r *http.Request) (authnv1.UserInfo, bool) {
	user, err := a.authn.who(r)
	switch {
	case errors.Is(err, errNobody):
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return user, false
	case err != nil:
		a.unavailable(w, r, err)
		return user, false
	}
	return user, true
}

// unavailable answers where the API server could not be asked, which a client may try
// again, and says no detail: who asks may be anybody.
func (a *NodeAPI) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		a.outage.tell(err)
	}
	w.Header().Set("Retry-After", "1")
	http.Error(w, "the node could not ask the API server who you are or what you may do: try again", http.StatusServiceUnavailable)
}
