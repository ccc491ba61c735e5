package server

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
)

// AccessReviewer asks the API server what somebody may do.
type AccessReviewer interface {
	ReviewAccess(ctx context.Context, spec authzv1.SubjectAccessReviewSpec) (authzv1.SubjectAccessReviewStatus, error)
}

// authorizer finds out whether somebody may do that to this node.
type authorizer struct {
	node            string
	access          AccessReviewer
	allowed, denied time.Duration
	known           *verdicts[bool]
	outage          *outage
}

func newAuthorizer(cfg NodeAPIConfig, o *outage) *authorizer {
	return &authorizer{
		node: cfg.NodeName, access: cfg.Access,
		allowed: orUsual(cfg.AllowedTTL, 5*time.Minute), denied: orUsual(cfg.DeniedTTL, 30*time.Second),
		known: newVerdicts[bool](), outage: o,
	}
}

// may asks for each of the subresources until one is allowed.
func (z *authorizer) may(ctx context.Context, user authnv1.UserInfo, verb string, subresources []string) (bool, error) {
	for _, sub := range subresources {
		ok, err := z.ask(ctx, z.spec(user, verb, sub))
		if ok || err != nil {
			return ok && err == nil, err
		}
	}
	return false, nil
}

func (z *authorizer) spec(user authnv1.UserInfo, verb, subresource string) authzv1.SubjectAccessReviewSpec {
	extra := map[string]authzv1.ExtraValue{}
	for k, v := range user.Extra {
		extra[k] = authzv1.ExtraValue(v)
	}
	return authzv1.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
		ResourceAttributes: &authzv1.ResourceAttributes{
			Verb: verb, Version: "v1", Resource: "nodes", Subresource: subresource, Name: z.node,
		},
	}
}

func (z *authorizer) ask(ctx context.Context, spec authzv1.SubjectAccessReviewSpec) (bool, error) {
	question, err := json.Marshal(spec)
	if err != nil {
		return false, fmt.Errorf("encode a question of rights: %w", err)
	}
	return z.known.get(ctx, sha256.Sum256(question), func(ctx context.Context) (bool, time.Duration, error) {
		status, err := z.access.ReviewAccess(ctx, spec)
		if err != nil {
			return false, 0, err
		}
		z.outage.end()
		switch {
		case status.EvaluationError != "" && !status.Allowed:
			return false, 0, nil // it may have failed to find out: no, but not for long
		case status.Allowed && !status.Denied:
			return true, z.allowed, nil
		}
		return false, z.denied, nil
	})
}

// authorize answers who may not do that.
func (a *NodeAPI) authorize(w http.ResponseWriter, r *http.Request, user authnv1.UserInfo, rt route) bool {
	verb := rt.verb(r.Method)
	if verb == "" {
		http.Error(w, "405 method not allowed", http.StatusMethodNotAllowed)
		return false
	}
	ok, err := a.authz.may(r.Context(), user, verb, rt.subresources)
	switch {
	case err != nil:
		a.unavailable(w, r, err)
	case !ok:
		a.cfg.Logger.Debug("refuse a request to the node API", "user", user.Username, "verb", verb, "subresources", rt.subresources)
		// kubelet's words: people search for them.
		http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=[%s])",
			user.Username, verb, strings.Join(rt.subresources, " ")), http.StatusForbidden)
	}
	return ok && err == nil
}

// outage of the API server is told once, and so is its end.
type outage struct {
	log *slog.Logger
	on  atomic.Bool
}

func (o *outage) tell(err error) {
	if !o.on.Swap(true) {
		o.log.Warn("cannot ask the API server who may use the node API: until it answers, only what was asked lately is allowed", "err", err)
	}
}

// end is called with each answer; one that was remembered is none.
func (o *outage) end() {
	if o.on.Load() && o.on.Swap(false) {
		o.log.Info("the API server answers questions about the node API again")
	}
}
