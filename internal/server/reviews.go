package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// Reviews asks the API server. It implements TokenReviewer and AccessReviewer.
type Reviews struct{ client rest.Interface }

// NewReviews asks by cfg over h. How many questions there are at a time is bounded
// by who asks, so that no rate holds them back.
func NewReviews(cfg *rest.Config, h *http.Client) (*Reviews, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1
	cfg.APIPath = "/apis"
	cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	cfg.GroupVersion = &schema.GroupVersion{Group: authnv1.GroupName, Version: "v1"}
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()
	client, err := rest.RESTClientForConfigAndClient(cfg, h)
	if err != nil {
		return nil, fmt.Errorf("prepare to ask the API server for rights: %w", err)
	}
	return &Reviews{client}, nil
}

// ReviewToken implements TokenReviewer.
func (v *Reviews) ReviewToken(ctx context.Context, token string) (authnv1.TokenReviewStatus, error) {
	review := authnv1.TokenReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"},
		Spec:     authnv1.TokenReviewSpec{Token: token},
	}
	var answer authnv1.TokenReview
	if err := v.ask(ctx, "/apis/authentication.k8s.io/v1/tokenreviews", &review, &answer); err != nil {
		return authnv1.TokenReviewStatus{}, fmt.Errorf("ask whose token it is: %w", err)
	}
	return answer.Status, nil
}

// ReviewAccess implements AccessReviewer.
func (v *Reviews) ReviewAccess(ctx context.Context, spec authzv1.SubjectAccessReviewSpec) (authzv1.SubjectAccessReviewStatus, error) {
	review := authzv1.SubjectAccessReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SubjectAccessReview"},
		Spec:     spec,
	}
	var answer authzv1.SubjectAccessReview
	if err := v.ask(ctx, "/apis/authorization.k8s.io/v1/subjectaccessreviews", &review, &answer); err != nil {
		return authzv1.SubjectAccessReviewStatus{}, fmt.Errorf("ask what somebody may do: %w", err)
	}
	return answer.Status, nil
}

// ask posts a review and takes the answer into another one: what is asked holds what
// is remembered of a user, which others read meanwhile. It does not try again: the
// client that waits for it can, and is told so.
func (v *Reviews) ask(ctx context.Context, path string, review, into any) error {
	question, err := json.Marshal(review)
	if err != nil {
		return err
	}
	answer, err := v.client.Post().AbsPath(path).MaxRetries(0).
		SetHeader("Content-Type", runtime.ContentTypeJSON).Body(question).DoRaw(ctx)
	if err != nil {
		return err
	}
	if json.Unmarshal(answer, into) != nil {
		return errors.New("the answer is no review") // which might quote a token
	}
	return nil
}
